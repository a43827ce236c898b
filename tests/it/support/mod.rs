//! What every test stands on: the environment, a namespace of its own, and operators with the chart's permissions.

pub(crate) mod admission;
mod api_server;
pub(crate) mod dns;
mod environment;
pub(crate) mod gateway;
pub(crate) mod hostile;
mod manifests;
mod namespace;
mod operator;
mod ports;
pub(crate) mod postgresql;
mod processes;
mod systems;

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub(crate) use api_server::ApiServer;
pub(crate) use environment::{
    GATEWAY_ACCOUNT, admin, client_of, gateway_kubeconfig, operator_kubeconfig, test_dir, tls_file, variable,
};
pub(crate) use manifests::{Spec, certificate_secret, password_secret, secret};
pub(crate) use namespace::{Namespace, condition, conditions};
pub(crate) use operator::Operator;
pub(crate) use ports::free_port;
pub(crate) use processes::signal;
pub(crate) use systems::{Server, System};

/// How long anything may take that should happen at once: two busy cores included.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Asks `probe` again and again until it succeeds.
///
/// # Panics
/// After `deadline`, with what was seen last.
pub(crate) async fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() >= deadline => {
                panic!("{what}: not within {deadline:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits for another second than that of `time`: the API server keeps whole ones.
pub(crate) async fn the_second_after(time: Timestamp) {
    eventually(SOON, "the next second", async || {
        let now = Timestamp::now();
        if now.as_second() > time.as_second() { Ok(()) } else { Err(now) }
    })
    .await;
}
