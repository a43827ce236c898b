//! authlink as users run it, against a real API server and real systems: `make test` starts them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by a panic"
)]

mod admission;
mod argocd;
mod chart;
mod check;
mod commands;
mod crds;
mod database;
mod delivery;
mod directory;
mod discovery;
mod engine;
mod examples;
mod external_api;
mod gateway;
mod http_api;
mod kinds;
mod layers;
mod ldap_directory;
mod leader;
mod outage;
mod resolver;
mod service_ranges;
mod service_registration;
mod store;
mod support;
mod webhook;
