//! What a spec names: missing, wrong, late, gone and back.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::support::{
    Namespace, Operator, SOON, System, condition, eventually, password_secret, postgresql, secret, tls_file,
};

/// The spec does not resolve: says so, names the culprit, and has nothing to say of what comes after.
async fn unresolved(namespace: &Namespace, name: &str, reason: &str, words: &[&str]) {
    let wanted = [
        ("Ready", "False", reason),
        ("ResolvedRefs", "False", reason),
        ("Stalled", "True", reason),
        ("Connected", "Unknown", "Pending"),
        ("Healthy", "Unknown", "Pending"),
    ];
    namespace.expect(name, &wanted).await;
    // Two faults in a row may share a reason: the words tell them apart.
    namespace
        .until(name, SOON, &format!("a message with {words:?}"), |database| {
            condition(database, "Ready").is_some_and(|it| words.iter().all(|word| it.message.contains(word)))
        })
        .await;
}

#[tokio::test]
async fn a_secret_may_come_late_go_and_come_back() {
    let namespace = Namespace::create().await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "late-secret").await;
    let _operator = Operator::start(&namespace, &[]).await;
    let spec = System::Postgresql.spec().with(&json!({ "credentialsRef": { "name": "late" } }));

    namespace.database("db", &spec).await;
    unresolved(&namespace, "db", "SecretNotFound", &["late", "create the Secret"]).await;

    let late = password_secret("late", &role, "late-secret");
    namespace.apply::<Secret>(late.clone()).await;
    let database = namespace.ready("db").await;
    assert!(condition(&database, "Stalled").is_none());
    assert!(postgresql::connections(&mut admin, &role).await > 0);

    namespace.delete::<Secret>("late").await;
    unresolved(&namespace, "db", "SecretNotFound", &["late"]).await;
    eventually(SOON, "nobody uses a deleted credential", async || {
        match postgresql::connections(&mut admin, &role).await {
            0 => Ok(()),
            open => Err(format!("{open} connections")),
        }
    })
    .await;

    namespace.apply::<Secret>(late).await;
    namespace.ready("db").await;
}

#[tokio::test]
async fn a_secret_without_a_key_is_secret_missing_keys() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(secret("half", "Opaque", &[("username", "app")])).await;
    let spec = System::Mariadb.spec().with(&json!({ "credentialsRef": { "name": "half" } }));
    namespace.database("db", &spec).await;
    unresolved(&namespace, "db", "SecretMissingKeys", &["half", "password"]).await;

    let whole = [("username", "app"), ("password", "app-secret")];
    namespace.apply::<Secret>(secret("half", "Opaque", &whole)).await;
    namespace.ready("db").await;
}

#[tokio::test]
async fn a_redis_needs_no_user_name() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(secret("requirepass", "Opaque", &[("password", "admin-secret")])).await;
    let spec = System::Redis.spec().with(&json!({ "credentialsRef": { "name": "requirepass" } }));
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
}

#[tokio::test]
async fn a_ca_must_exist_have_the_key_and_be_pem() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let spec = System::Postgresql.spec().with(&json!({ "tls": { "caRef": { "name": "roots" } } }));
    namespace.database("db", &spec).await;
    unresolved(&namespace, "db", "RefNotFound", &["ConfigMap roots"]).await;

    let other_key = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "roots" }, "data": { "other": "" },
    });
    namespace.apply::<ConfigMap>(other_key).await;
    unresolved(&namespace, "db", "RefNotFound", &["key ca.crt", "ConfigMap roots"]).await;

    namespace.certificates("roots", "no certificate").await;
    unresolved(&namespace, "db", "SecretInvalidValue", &["roots", "ca.crt", "PEM"]).await;

    namespace.certificates("roots", &tls_file("ca.pem")).await;
    namespace.ready("db").await;

    namespace.delete::<ConfigMap>("roots").await;
    unresolved(&namespace, "db", "RefNotFound", &["ConfigMap roots"]).await;
}

#[tokio::test]
async fn a_ca_may_be_in_a_secret() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(secret("roots", "Opaque", &[("bundle", &tls_file("ca.pem"))])).await;
    let reference = json!({ "kind": "Secret", "name": "roots", "key": "bundle" });
    namespace.database("db", &System::Redis.spec().with(&json!({ "tls": { "caRef": reference } }))).await;
    namespace.ready("db").await;
}

#[tokio::test]
async fn a_uri_may_hold_every_printable_character_in_its_password() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let password: String = ('!'..='~').collect();
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, &password).await;
    let encoded = utf8_percent_encode(&password, NON_ALPHANUMERIC);
    let uri = format!("postgresql://{role}:{encoded}@localhost:{}/app", System::Postgresql.port());
    namespace.apply::<Secret>(secret("whole", "Opaque", &[("uri", &uri)])).await;
    let spec = System::Postgresql.spec().with(&json!({
        "host": null, "port": null, "database": null, "credentialsRef": null, "uriSecretRef": { "name": "whole" },
        "binding": { "enabled": true },
    }));
    namespace.database("db", &spec).await;
    let database = namespace.ready("db").await;
    assert_eq!(database.status.expect("a status").common.endpoints[0].address, "localhost");

    let binding = eventually(SOON, "the binding", async || {
        namespace.api::<Secret>().get_opt("db-binding").await.expect("an answer").ok_or("no Secret")
    })
    .await;
    assert_eq!(binding.data.expect("data")["password"].0, password.as_bytes());
}

#[tokio::test]
async fn an_invalid_uri_is_refused_without_quoting_it() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let uri = "mysql://app:qe7hunter2@localhost:port/app";
    namespace.apply::<Secret>(secret("whole", "Opaque", &[("uri", uri)])).await;
    let spec = System::Mariadb.spec().with(&json!({
        "host": null, "port": null, "database": null, "credentialsRef": null, "uriSecretRef": { "name": "whole" },
    }));
    namespace.database("db", &spec).await;
    unresolved(&namespace, "db", "SecretInvalidValue", &["whole", "a port that is no number"]).await;
    let database = namespace.api().get("db").await.expect("the Database");
    let database: authlink::api::v1alpha1::Database = database;
    assert!(!serde_json::to_string(&database).expect("JSON").contains("hunter2"));
}

#[tokio::test]
async fn the_tls_mode_of_a_uri_weakens_nothing_that_the_spec_asks_for() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let uri = format!("redis://app:app-secret@localhost:{}/0", System::Redis.tls_port(System::Redis.port()));
    namespace.apply::<Secret>(secret("plain", "Opaque", &[("uri", &uri)])).await;
    let spec = System::Redis.spec().with(&json!({
        "host": null, "port": null, "credentialsRef": null, "uriSecretRef": { "name": "plain" },
    }));
    namespace.database("asked", &spec.clone().with(&json!({ "tls": { "mode": "VerifyFull" } }))).await;
    let database = namespace.ready("asked").await;
    assert!(database.status.expect("a status").server.expect("a server").tls);
    namespace.database("unused", &spec).await;
    unresolved(&namespace, "unused", "SecretInvalidValue", &["plain", "no use of spec.tls.caRef"]).await;
}
