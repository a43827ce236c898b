//! How many connections the pool keeps.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    database::run::{Backend, read},
    support::{SOON, Server, System, eventually, postgresql},
};

const LOGIN: (&str, &str) = ("app", "app-secret");

#[tokio::test]
async fn after_a_burst_the_pool_shrinks_although_probes_go_on() {
    let (system, port) = (System::Postgresql, System::Postgresql.port());
    let pool = json!({ "max": 5, "min": 0, "idleTimeout": "2s" });
    let backend = Backend::bounded(system, port, LOGIN, pool, Duration::from_secs(10));
    let slow = read("select pg_sleep(1) is null as slow");
    join_all((0..5).map(|_| backend.rows(&slow, "[]"))).await;
    assert_eq!(backend.database.pool().size, 5);
    eventually(SOON, "a smaller pool", async || {
        backend.database.probe().await.expect("a server");
        backend.database.maintain().await;
        let size = backend.database.pool().size;
        if size == 1 { Ok(()) } else { Err(format!("{size} connections")) }
    })
    .await;
}

#[tokio::test]
async fn a_pool_reaches_its_minimum_although_logins_are_slow() {
    const MIN: u32 = 4;
    let server = Server::start(System::Postgresql);
    let mut admin = postgresql::admin_on(server.port).await;
    postgresql::run(&mut admin, "alter system set pre_auth_delay = 1").await;
    postgresql::run(&mut admin, "select pg_reload_conf()").await;
    // It has reached who makes the processes before those that there are.
    eventually(SOON, "a slow server", async || {
        let delay = postgresql::show(&mut admin, "pre_auth_delay").await;
        if delay == "1s" { Ok(()) } else { Err(delay) }
    })
    .await;
    let patience = Duration::from_millis(2500);
    let pool = json!({ "max": 5, "min": MIN });
    let backend = Backend::bounded(System::Postgresql, server.port, LOGIN, pool, patience);
    eventually(SOON, "the minimum", async || {
        let _ = timeout(patience, backend.database.maintain()).await;
        let size = backend.database.pool().size;
        if size == MIN { Ok(()) } else { Err(format!("{size} connections")) }
    })
    .await;
}
