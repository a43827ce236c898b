//! How many connections the pool keeps.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::{
    database::run::{Backend, read},
    support::{SOON, System, eventually},
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
        backend.database.tend().await;
        let size = backend.database.pool().size;
        if size == 1 { Ok(()) } else { Err(format!("{size} connections")) }
    })
    .await;
}
