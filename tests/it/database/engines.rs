//! Each engine becomes ready, and its status says what it is.

use serde_json::json;

use crate::support::{Namespace, Operator, System, conditions};

async fn becomes_ready(system: System, version: &str, tells_identity: bool) {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &system.spec()).await;
    let database = namespace.ready("db").await;

    let said = conditions(&database);
    let all = [
        ("Accepted", ("True", "Valid")),
        ("Connected", ("True", "LoginSucceeded")),
        ("Healthy", ("True", "ProbeSucceeded")),
        ("PoolHealthy", ("True", "WithinBounds")),
        ("Ready", ("True", "Available")),
        ("ResolvedRefs", ("True", "Resolved")),
    ];
    assert_eq!(said, all.into());

    let status = database.status.expect("a status");
    let server = status.server.expect("a server");
    assert!(server.version.starts_with(version), "{server:?}");
    assert_eq!((server.role.as_str(), server.tls), ("Primary", true));
    assert_eq!(server.identity.is_some(), tells_identity, "{server:?}");
    let endpoint = &status.common.endpoints[0];
    assert_eq!((endpoint.address.as_str(), endpoint.port), ("localhost", system.tls_port(system.port())));
    assert_eq!((endpoint.ready, endpoint.reason.as_str()), (true, "ProbeSucceeded"));
    let credential = &status.common.credentials[0];
    assert_eq!(credential.secret, "login");
    assert!(!credential.fingerprint.is_empty() && credential.verified_time.is_some());
    let pool = status.pool.expect("a pool");
    assert!(pool.size >= 1 && pool.summary.ends_with("/10"), "{pool:?}");
    let health = serde_json::to_value(status.common.health).expect("JSON");
    assert_eq!((&health["state"], &health["consecutiveFailures"]), (&json!("Healthy"), &json!(0)));
    assert_eq!(operator.probes().1.len(), 0, "no probe failed");
}

#[tokio::test]
async fn a_postgresql_becomes_ready() {
    becomes_ready(System::Postgresql, "1", true).await;
}

#[tokio::test]
async fn a_mariadb_becomes_ready() {
    becomes_ready(System::Mariadb, "1", true).await;
}

#[tokio::test]
async fn a_redis_becomes_ready() {
    becomes_ready(System::Redis, "", true).await;
}

#[tokio::test]
async fn a_mongodb_becomes_ready() {
    becomes_ready(System::Ferretdb, "", false).await;
}
