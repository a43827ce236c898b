//! A server that dies, comes back, flaps or is replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use authlink::api::v1alpha1::Database;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Namespace, Operator, SOON, Server, System, condition, eventually, password_secret, postgresql, signal,
    the_second_after,
};

/// Dies by a kill, and is told apart from a login that fails; comes back, and is found.
async fn a_death_is_noticed(system: System) {
    let namespace = Namespace::create().await;
    let server = Server::start(system);
    let operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &server.spec().probed_often()).await;
    let alive = namespace.ready("db").await;
    let known = alive.status.expect("a status").server;

    server.kill();
    let wanted = [
        ("Ready", "False", "ConnectionRefused"),
        ("Connected", "False", "ConnectionRefused"),
        ("Healthy", "False", "ProbeFailed"),
        ("PoolHealthy", "Unknown", "Pending"),
    ];
    let dead = namespace.expect("db", &wanted).await;
    let status = dead.status.as_ref().expect("a status");
    assert_eq!(status.server, known, "what was known last stays");
    // Unhealthy from the second failure on, and not before: then the status is written, once.
    let failures = status.common.health.as_ref().expect("health").consecutive_failures;
    assert!((2..=4).contains(&failures), "{failures}");
    operator.more_probes(2).await;

    server.resume();
    namespace.ready("db").await;
    let events: Vec<_> =
        namespace.events_with("db", "Available").await.into_iter().map(|event| event.reason).collect();
    assert_eq!(events.iter().filter(|reason| *reason == "Available").count(), 1, "{events:?}");
    assert_eq!(events.iter().filter(|reason| *reason == "ConnectionRefused").count(), 1, "{events:?}");
}

#[tokio::test]
async fn the_death_of_a_postgresql_is_noticed_and_its_return() {
    a_death_is_noticed(System::Postgresql).await;
}

#[tokio::test]
async fn the_death_of_a_mariadb_is_noticed_and_its_return() {
    a_death_is_noticed(System::Mariadb).await;
}

#[tokio::test]
async fn the_death_of_a_redis_is_noticed_and_its_return() {
    a_death_is_noticed(System::Redis).await;
}

#[tokio::test]
async fn the_death_of_a_mongodb_is_noticed_and_its_return() {
    a_death_is_noticed(System::Ferretdb).await;
}

#[tokio::test]
async fn a_server_that_restarts_all_the_time_does_not_flap() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Postgresql);
    let operator = Operator::start(&namespace, &[]).await;
    let patient = json!({ "healthCheck": { "unhealthyThreshold": 100 } });
    namespace.database("db", &server.spec().probed_often().with(&patient)).await;
    namespace.ready("db").await;
    operator.more_probes(2).await; // if the first probe took too long, an Event tells that it is available after all
    let (writes, earlier) = (namespace.status_writes(), namespace.events("db").await);
    for _ in 0..3 {
        server.kill();
        operator.more_probes(2).await;
        server.resume();
        operator.more_probes(2).await;
    }
    let (_, failed) = operator.probes();
    assert!(failed.values().sum::<u64>() >= 3, "each death was seen by probes: {failed:?}");
    namespace.ready("db").await;
    assert_eq!(namespace.events("db").await, earlier);
    assert_eq!(namespace.status_writes(), writes, "and not one write");
}

#[tokio::test]
async fn connections_that_are_dropped_silently_do_not_make_a_server_unhealthy() {
    const POOL: i64 = 4;
    let namespace = Namespace::create().await;
    let server = Server::start(System::Postgresql);
    let operator = Operator::start(&namespace, &[]).await;
    let pool = json!({ "pool": { "min": POOL, "max": 8, "monitorInterval": "5s" } });
    namespace.database("db", &server.spec().probed_patiently().with(&pool)).await;
    namespace.ready("db").await;
    let mut admin = postgresql::admin_on(server.port).await;
    eventually(SOON, "the pool is open", async || {
        let open = postgresql::connections(&mut admin, "app").await;
        if open >= POOL { Ok(()) } else { Err(format!("{open} connections")) }
    })
    .await;
    let (_, failed) = operator.probes();
    // Each connection has a process of its own. One that is stopped neither answers nor closes anything.
    for process in postgresql::processes(&mut admin, "app").await {
        signal("STOP", &process.to_string());
    }
    operator.more_probes(POOL.unsigned_abs()).await;
    assert_eq!(operator.probes().1, failed, "no probe has failed");
    namespace.ready("db").await;
}

#[tokio::test]
async fn a_changed_probe_schedule_keeps_the_verdict() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Redis);
    let _operator = Operator::start(&namespace, &[]).await;
    let patient = |threshold: u32| json!({ "healthCheck": { "unhealthyThreshold": threshold } });
    namespace.database("db", &server.spec().probed_often().with(&patient(100))).await;
    let since = |database: &Database| database.status.as_ref()?.common.health.as_ref()?.since.clone();
    let before = since(&namespace.ready("db").await).expect("a time");
    the_second_after(before.0).await;
    // One failed probe is far from enough, whoever counts them.
    server.kill();
    namespace.database("db", &server.spec().probed_often().with(&patient(99))).await;
    let seen = |database: &Database| {
        let status = database.status.as_ref()?;
        (status.common.observed_generation == database.metadata.generation).then_some(())
    };
    let changed =
        namespace.until("db", SOON, "the change is seen", |database| seen(database).is_some()).await;
    assert_eq!(condition(&changed, "Ready").map(|ready| ready.status.as_str()), Some("True"), "{changed:?}");
    assert_eq!(since(&changed), Some(before));
}

#[tokio::test]
async fn after_a_restart_hung_servers_are_detected_in_parallel() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Redis);
    let operator = Operator::start(&namespace, &[]).await;
    let names: Vec<_> = (0..12).map(|number| format!("db-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        // Each has probes of its own.
        let own = json!({ "healthCheck": { "timeout": format!("{}ms", 2900 - number) } });
        namespace.database(name, &server.spec().probed_patiently().with(&own)).await;
    }
    for name in &names {
        namespace.ready(name).await;
    }
    operator.signal("KILL");
    drop(operator);
    server.freeze();
    let written = namespace.status_writes();
    let _operator = Operator::start(&namespace, &["--concurrency", "1"]).await;
    let restarted = Instant::now();
    for name in &names {
        namespace.expect(name, &[("Healthy", "False", "ProbeFailed")]).await;
    }
    // Two probes of three seconds each. One object after the other, the first of these alone would take 35 s.
    let took = restarted.elapsed().as_secs();
    assert!(took < 20, "{took} s");
    assert_eq!(namespace.status_writes(), written + names.len(), "each was told of once");
    server.thaw();
}

#[tokio::test]
async fn a_replaced_server_is_reported_for_one_reconcile() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Postgresql);
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &server.spec().probed_often()).await;
    let before = namespace.ready("db").await.status.expect("a status").server.expect("a server");

    server.replace();
    let found = namespace.expect("db", &[("Degraded", "True", "ServerReplaced")]).await;
    let message = &condition(&found, "Degraded").expect("Degraded").message;
    assert!(message.contains("another server"), "{message}");
    let after = found.status.expect("a status").server.expect("a server");
    assert!(after.identity.is_some() && after.identity != before.identity);
    namespace.until("db", SOON, "said once", |database| condition(database, "Degraded").is_none()).await;
    namespace.ready("db").await;
    let events = namespace.events_with("db", "ServerReplaced").await;
    assert_eq!(events.iter().filter(|event| event.reason == "ServerReplaced").count(), 1, "{events:?}");
}

/// Leads each connection to the next of these ports, and ends it before the next probe; gives its port, and counts.
async fn balancer(ports: [u16; 2]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let port = ports[counted.fetch_add(1, Relaxed) % 2];
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
                let carried = copy_bidirectional(&mut near, &mut far);
                let _ = tokio::time::timeout(Duration::from_millis(500), carried).await;
            });
        }
    });
    (port, count)
}

#[tokio::test]
async fn each_server_behind_one_address_is_reported_once() {
    let namespace = Namespace::create().await;
    let servers = [System::Postgresql, System::Postgresql].map(Server::start);
    let (port, connections) = balancer(servers.each_ref().map(|server| server.port)).await;
    let _operator = Operator::start(&namespace, &[]).await;
    let patient = json!({ "healthCheck": { "unhealthyThreshold": 100 } });
    namespace.database("db", &System::Postgresql.spec_on(port).probed_often().with(&patient)).await;
    namespace.events_with("db", "ServerReplaced").await;
    namespace.until("db", SOON, "said once", |database| condition(database, "Degraded").is_none()).await;

    let (writes, earlier) = (namespace.status_writes(), connections.load(Relaxed));
    eventually(SOON, "more turns", async || match connections.load(Relaxed) - earlier {
        8.. => Ok(()),
        turns => Err(turns),
    })
    .await;
    assert_eq!(namespace.status_writes(), writes);
    let events = namespace.events("db").await;
    assert_eq!(events.iter().filter(|event| event.reason == "ServerReplaced").count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_server_that_the_spec_was_changed_to_is_not_reported_as_replaced() {
    let namespace = Namespace::create().await;
    let (one, other) = (Server::start(System::Postgresql), Server::start(System::Postgresql));
    let _operator = Operator::start(&namespace, &[]).await;
    let identity = |database: &Database| database.status.as_ref()?.server.as_ref()?.identity.clone();
    namespace.database("db", &one.spec().probed_often()).await;
    let first = identity(&namespace.ready("db").await);
    let is_new =
        |before: Option<String>| move |it: &Database| identity(it).is_some_and(|id| Some(id) != before);

    namespace.database("db", &other.spec().probed_often()).await;
    let changed = namespace.until("db", SOON, "another server", is_new(first)).await;
    assert!(condition(&changed, "Degraded").is_none());
    let second = identity(&changed);

    // Back to the first, which is not there yet.
    one.kill();
    namespace.database("db", &one.spec().probed_often()).await;
    namespace.expect("db", &[("Ready", "False", "ConnectionRefused")]).await;
    one.resume();
    let back = namespace.until("db", SOON, "the first server", is_new(second)).await;
    assert!(condition(&back, "Degraded").is_none());
}

#[tokio::test]
async fn a_password_that_is_revoked_on_the_server_is_noticed_when_connections_end() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "first-password").await;
    namespace.apply::<Secret>(password_secret("mine", &role, "first-password")).await;
    let spec =
        System::Postgresql.spec().probed_often().with(&json!({ "credentialsRef": { "name": "mine" } }));
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
    let revoke = format!(
        "alter role {role} password 'another'; \
         select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
    );
    postgresql::run(&mut admin, &revoke).await;
    let wanted = [("Ready", "False", "AuthenticationFailed"), ("Healthy", "False", "ProbeFailed")];
    namespace.expect("db", &wanted).await;
}
