//! authlink as users run it, against a real API server and real systems: `make test` starts them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by a panic"
)]

mod admission;
mod chart;
mod check;
mod commands;
mod crds;
mod database;
mod discovery;
mod engine;
mod examples;
mod external_api;
mod gateway;
mod layers;
mod leader;
mod outage;
mod registration;
mod resolver;
mod service;
mod service_ranges;
mod store;
mod support;
