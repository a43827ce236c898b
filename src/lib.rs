//! authlink: a Kubernetes operator and gateway that connect an authentication platform with databases, HTTP APIs and external services.
#[allow(unreachable_pub, reason = "the derive of CRD schemas makes hidden copies of the types")]
pub mod api;
pub mod backends;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod delivery;
pub mod domain;
pub mod gateway;
pub mod probing;
pub mod resolving;
pub mod runtime;
pub mod store;
pub mod sync;
pub mod telemetry;
