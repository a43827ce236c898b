//! authlink: a Kubernetes operator that connects an authentication platform with everything around it.
#[allow(unreachable_pub, reason = "the derive of CRD schemas makes hidden copies of the types")]
pub mod api;
pub mod backends;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod domain;
pub mod gateway;
pub mod probing;
pub mod resolving;
pub mod runtime;
pub mod store;
pub mod telemetry;
