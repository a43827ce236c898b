//! No secret ever shows: not in logs, Events, statuses or metrics.

use authlink::api::v1alpha1::Database;
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::api::ListParams;
use serde_json::json;

use crate::support::{
    Namespace, Operator, Spec, System, certificate_secret, password_secret, postgresql, secret, tls_file,
};

const GOOD: &str = "zq-good-7431";
const WRONG: &str = "zq-wrong-9052";
const IN_URI: &str = "zq-uri-1177";

fn by_uri(system: System) -> Spec {
    system.spec().with(&json!({
        "host": null, "port": null, "database": null, "credentialsRef": null, "uriSecretRef": { "name": system.engine() },
    }))
}

#[tokio::test]
async fn no_secret_shows_in_logs_events_statuses_or_metrics() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &["--log-level", "authlink=trace,debug"]).await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, GOOD).await;
    let key = tls_file("client.key");

    namespace.apply::<Secret>(password_secret("good", &role, GOOD)).await;
    namespace.apply::<Secret>(password_secret("wrong", "app", WRONG)).await;
    namespace.apply::<Secret>(certificate_secret("pair", "client")).await;
    let good = System::Postgresql.spec().probed_often().with(&json!({
        "credentialsRef": { "name": "good" }, "binding": { "enabled": true },
        "tls": { "clientCertRef": { "name": "pair" } },
        // The server quotes what it does not understand.
        "queries": [{ "name": "echo", "statement": format!("select \"{GOOD}\"") }],
    }));
    namespace.database("good", &good).await;
    for system in System::ALL {
        let wrong = system.spec().with(&json!({ "credentialsRef": { "name": "wrong" } }));
        namespace.database(&format!("wrong-{}", system.engine()), &wrong).await;
        let scheme = if system == System::Redis { "rediss" } else { system.engine() };
        let uri = format!("{scheme}://app:{IN_URI}@localhost:{}", system.tls_port(system.port()));
        namespace.apply::<Secret>(secret(system.engine(), "Opaque", &[("uri", &uri)])).await;
        namespace.database(&format!("uri-{}", system.engine()), &by_uri(system)).await;
    }
    namespace.apply::<Secret>(secret("broken", "Opaque", &[("uri", &format!("redis:{IN_URI}@h"))])).await;
    let broken = by_uri(System::Redis).with(&json!({ "uriSecretRef": { "name": "broken" } }));
    namespace.database("broken", &broken).await;

    namespace.ready("good").await;
    for system in System::ALL {
        for name in ["wrong", "uri"] {
            let name = format!("{name}-{}", system.engine());
            namespace.expect(&name, &[("Ready", "False", "AuthenticationFailed")]).await;
        }
    }
    namespace.expect("broken", &[("Ready", "False", "SecretInvalidValue")]).await;
    namespace.apply::<Secret>(password_secret("good", &role, WRONG)).await;
    namespace.expect("good", &[("Ready", "True", "Available")]).await;
    namespace
        .until("good", crate::support::SOON, "the wrong password is refused", |database| {
            let degraded = crate::support::condition(database, "Degraded");
            degraded.is_some_and(|degraded| degraded.reason == "PreviousCredentialInUse")
        })
        .await;

    let statuses: Vec<_> = namespace
        .api::<Database>()
        .list(&ListParams::default())
        .await
        .expect("Databases")
        .items
        .into_iter()
        .map(|database| database.status)
        .collect();
    let events = namespace.api::<Event>().list(&ListParams::default()).await.expect("Events").items;
    let places = [
        ("the log", operator.logs()),
        ("a status", serde_json::to_string(&statuses).expect("JSON")),
        ("an Event", serde_json::to_string(&events).expect("JSON")),
        ("the metrics", operator.metrics()),
    ];
    let line_of_key = key.lines().nth(1).expect("a line of the key");
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place} is empty");
        for secret in [GOOD, WRONG, IN_URI, line_of_key] {
            let around = text.find(secret).map(|at| text[at.saturating_sub(300)..at].to_owned());
            assert!(around.is_none(), "{place} has {secret} after {around:?}");
        }
    }
}
