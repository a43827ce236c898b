//! The binding Secret: what it holds, who may touch it, and when it goes.

use std::{collections::BTreeMap, str::FromStr};

use authlink::api::v1alpha1::Database;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use crate::support::{
    Namespace, Operator, SOON, Server, Spec, System, admission::Admission, condition, eventually, postgresql,
    secret,
};

fn bound(system: System) -> Spec {
    system.spec().with(&json!({ "binding": { "enabled": true } }))
}

pub(super) fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8(value.0.clone()).expect("text"))).collect()
}

async fn binding(namespace: &Namespace, what: &str, holds: impl Fn(&Secret) -> bool) -> Secret {
    eventually(SOON, what, async || {
        let secret = namespace.api::<Secret>().get_opt("db-binding").await.expect("an answer");
        secret.filter(|secret| holds(secret)).ok_or("not so yet")
    })
    .await
}

async fn no_secret(namespace: &Namespace, name: &str) {
    eventually(SOON, "the Secret goes", async || {
        match namespace.api::<Secret>().get_opt(name).await.expect("an answer") {
            None => Ok(()),
            Some(_) => Err("still there"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_binding_holds_what_a_client_needs_to_log_in() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &bound(System::Postgresql)).await;
    let database = namespace
        .until("db", SOON, "a binding", |database| {
            database.status.as_ref().is_some_and(|status| status.common.binding.is_some())
        })
        .await;
    assert_eq!(database.status.expect("a status").common.binding.expect("a binding").name, "db-binding");
    let secret = binding(&namespace, "the binding", |_| true).await;
    assert_eq!(secret.type_.as_deref(), Some("servicebinding.io/postgresql"));
    assert_eq!(secret.metadata.owner_references.as_ref().expect("an owner")[0].name, "db");

    let mut values = texts(&secret);
    let ca = values.remove("ca.crt").expect("the CA");
    let uri = values.remove("uri").expect("a URI");
    let port = System::Postgresql.port().to_string();
    let wanted = [
        ("type", "postgresql"),
        ("provider", "authlink"),
        ("host", "localhost"),
        ("port", &port),
        ("database", "app"),
        ("username", "app"),
        ("password", "app-secret"),
    ];
    assert_eq!(values, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let options = PgConnectOptions::from_str(&uri).expect("a URI").ssl_root_cert_from_pem(ca.into_bytes());
    postgresql::close(options.connect().await.expect("the URI logs in")).await;
}

#[tokio::test]
async fn each_engine_has_a_binding_of_its_own_type() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    for system in System::ALL {
        namespace.database(system.engine(), &bound(system)).await;
    }
    for system in System::ALL {
        let name = format!("{}-binding", system.engine());
        let secret = eventually(SOON, &name, async || {
            namespace.api::<Secret>().get_opt(&name).await.expect("an answer").ok_or("no Secret")
        })
        .await;
        assert_eq!(secret.type_, Some(format!("servicebinding.io/{}", system.engine())));
        assert_eq!(texts(&secret)["port"], system.tls_port(system.port()).to_string());
    }
}

#[tokio::test]
async fn a_binding_that_is_edited_or_deleted_is_repaired() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &bound(System::Redis)).await;
    let made = binding(&namespace, "the binding", |_| true).await;

    namespace
        .apply::<Secret>(secret("db-binding", "servicebinding.io/redis", &[("password", "edited")]))
        .await;
    binding(&namespace, "the edit is undone", |secret| texts(secret) == texts(&made)).await;

    namespace.delete::<Secret>("db-binding").await;
    let again = binding(&namespace, "a new one", |secret| secret.metadata.uid != made.metadata.uid).await;
    assert_eq!(texts(&again), texts(&made));
}

#[tokio::test]
async fn a_binding_follows_its_name_and_goes_when_it_is_switched_off() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &bound(System::Redis)).await;
    binding(&namespace, "the binding", |_| true).await;

    let renamed = bound(System::Redis).with(&json!({ "binding": { "secretName": "other" } }));
    namespace.database("db", &renamed).await;
    no_secret(&namespace, "db-binding").await;
    eventually(SOON, "the other name", async || {
        namespace.api::<Secret>().get_opt("other").await.expect("an answer").ok_or("no Secret")
    })
    .await;

    namespace.database("db", &System::Redis.spec()).await;
    no_secret(&namespace, "other").await;
    let database = namespace.ready("db").await;
    assert!(database.status.expect("a status").common.binding.is_none());
}

#[tokio::test]
async fn a_secret_of_another_owner_is_left_alone() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(secret("db-binding", "Opaque", &[("mine", "precious")])).await;
    namespace.database("db", &bound(System::Redis)).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "BindingConflict")];
    let database = namespace.expect("db", &wanted).await;
    assert!(condition(&database, "Degraded").expect("Degraded").message.contains("db-binding"));
    let untouched = binding(&namespace, "the Secret", |_| true).await;
    assert_eq!(texts(&untouched), [("mine".to_owned(), "precious".to_owned())].into());
    assert!(untouched.metadata.owner_references.is_none());

    namespace.delete::<Secret>("db-binding").await;
    binding(&namespace, "the binding", |secret| texts(secret).contains_key("uri")).await;
    namespace
        .until("db", SOON, "the conflict is over", |database| condition(database, "Degraded").is_none())
        .await;
}

#[tokio::test]
async fn a_binding_goes_with_its_database() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &bound(System::Redis)).await;
    binding(&namespace, "the binding", |_| true).await;
    namespace.delete::<Database>("db").await;
    no_secret(&namespace, "db-binding").await;
}

#[tokio::test]
async fn a_credential_that_does_not_work_is_not_bound() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(crate::support::password_secret("login", "app", "not-the-password")).await;
    namespace.database("db", &bound(System::Redis)).await;
    namespace.expect("db", &[("Ready", "False", "AuthenticationFailed")]).await;
    assert!(namespace.api::<Secret>().get_opt("db-binding").await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_binding_that_a_policy_denies_is_reported_and_the_database_is_ready() {
    let namespace = Namespace::create().await;
    let _policy = Admission::policy(&namespace, &["secrets"], "RequestEntityTooLarge").await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &bound(System::Postgresql)).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "BindingRefused")];
    let database = namespace.expect("db", &wanted).await;
    assert!(database.status.expect("a status").common.binding.is_none());
}

fn two(first: &Server, second: &Server) -> Spec {
    let hosts = [first, second].map(|server| json!({ "host": "localhost", "port": server.port + 1 }));
    bound(System::Redis).with(
        &json!({ "host": null, "port": null, "hosts": hosts, "binding": { "secretName": "db-binding" } }),
    )
}

async fn bound_to(namespace: &Namespace, server: &Server) {
    let port = (server.port + 1).to_string();
    binding(namespace, "the server that works", |secret| texts(secret)["port"] == port).await;
}

#[tokio::test]
async fn the_last_working_server_stays_bound_while_none_works() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (first, second) = (Server::start(System::Redis), Server::start(System::Redis));
    first.kill();
    namespace.database("db", &two(&first, &second).probed_often()).await;
    bound_to(&namespace, &second).await;
    let known = namespace.api::<Secret>().get("db-binding").await.expect("the binding");
    second.kill();
    // The Secret is seen to before the status is written.
    namespace.expect("db", &[("Ready", "False", "ConnectionRefused")]).await;
    let kept = namespace.api::<Secret>().get("db-binding").await.expect("the binding");
    assert_eq!(texts(&kept), texts(&known));
    first.resume();
    bound_to(&namespace, &first).await;
}

#[tokio::test]
async fn after_a_restart_the_primary_stays_bound_until_all_roles_are_known() {
    let namespace = Namespace::create().await;
    let (replica, primary) = (Server::start(System::Redis), Server::start(System::Redis));
    replica.redis(&["config", "set", "masteruser", "app"]);
    replica.redis(&["config", "set", "masterauth", "app-secret"]);
    replica.redis(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    let operator = Operator::start(&namespace, &[]).await;
    let patient = json!({ "healthCheck": {
        "interval": "4s", "timeout": "3s", "unhealthyThreshold": 3, "jitterPercent": 0,
    } });
    namespace.database("db", &two(&replica, &primary).with(&patient)).await;
    bound_to(&namespace, &primary).await;
    namespace.expect("db", &[("Ready", "True", "Available")]).await;
    drop(operator);

    primary.freeze();
    let written = || namespace.writes().get("patch secrets/").copied().unwrap_or_default();
    let before = written();
    let operator = Operator::start(&namespace, &[]).await;
    eventually(SOON, "a probe that failed", async || match operator.probes().1.values().sum() {
        0_u64 => Err("none yet"),
        _ => Ok(()),
    })
    .await;
    primary.thaw();
    eventually(
        SOON,
        "a write of the binding",
        async || if written() > before { Ok(()) } else { Err("none") },
    )
    .await;
    let port =
        texts(&namespace.api::<Secret>().get("db-binding").await.expect("the binding"))["port"].clone();
    assert_eq!(
        (port, written()),
        ((primary.port + 1).to_string(), before + 1),
        "the replica was never bound"
    );
}
