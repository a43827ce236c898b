//! A changed credential: tried before it replaces the one that works.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::support::{
    Namespace, Operator, SOON, Server, System, admission::Admission, certificate_secret, condition,
    eventually, password_secret, postgresql, secret,
};

async fn fingerprint(namespace: &Namespace) -> String {
    let database = namespace.ready("db").await;
    database.status.expect("a status").common.credentials[0].fingerprint.clone()
}

#[tokio::test]
async fn a_rotated_password_is_used_without_one_failed_probe() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "first-password").await;
    namespace.apply::<Secret>(password_secret("rotated", &role, "first-password")).await;
    let spec = System::Postgresql.spec().probed_patiently().with(&json!({
        "credentialsRef": { "name": "rotated" }, "binding": { "enabled": true },
    }));
    namespace.database("db", &spec).await;
    let before = fingerprint(&namespace).await;
    operator.more_probes(1).await; // an Event follows the status that it tells of
    let (earlier, (_, failed)) = (namespace.events("db").await.len(), operator.probes());

    postgresql::run(&mut admin, &format!("alter role {role} password 'second-password'")).await;
    operator.more_probes(1).await;
    namespace.apply::<Secret>(password_secret("rotated", &role, "second-password")).await;
    namespace
        .until("db", SOON, "another fingerprint", |database| {
            let status = database.status.as_ref().expect("a status");
            status.common.credentials[0].fingerprint != before
        })
        .await;
    operator.more_probes(2).await;

    let events = namespace.events_with("db", "CredentialRotated").await;
    let reasons: Vec<_> =
        events[earlier..].iter().map(|event| (event.kind.as_str(), event.reason.as_str())).collect();
    assert_eq!(reasons, [("Normal", "CredentialRotated")]);
    assert_eq!(operator.probes().1, failed, "failed probes");
    eventually(SOON, "the binding has the new password", async || {
        let binding = namespace.api::<Secret>().get("db-binding").await.expect("the binding");
        let password = binding.data.expect("data")["password"].0.clone();
        if password == b"second-password" { Ok(()) } else { Err("the old one") }
    })
    .await;
}

#[tokio::test]
async fn a_rotated_password_that_does_not_work_leaves_the_previous_one_in_use() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "good-password").await;
    namespace.apply::<Secret>(password_secret("rotated", &role, "good-password")).await;
    let spec = System::Postgresql.spec().probed_patiently().with(&json!({
        "credentialsRef": { "name": "rotated" }, "binding": { "enabled": true },
    }));
    namespace.database("db", &spec).await;
    let before = fingerprint(&namespace).await;
    operator.more_probes(1).await;
    let earlier = namespace.events("db").await.len();

    namespace.apply::<Secret>(password_secret("rotated", &role, "mistyped-password")).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    let database = namespace.expect("db", &wanted).await;
    assert!(condition(&database, "Degraded").expect("Degraded").message.contains("correct the Secret"));
    assert_eq!(database.status.expect("a status").common.credentials[0].fingerprint, before);
    let binding = namespace.api::<Secret>().get("db-binding").await.expect("the binding");
    assert_eq!(binding.data.expect("data")["password"].0, b"good-password");

    // The other way to correct it: the server learns the new password.
    postgresql::run(&mut admin, &format!("alter role {role} password 'mistyped-password'")).await;
    namespace.until("db", SOON, "no fault", |database| condition(database, "Degraded").is_none()).await;
    assert_ne!(fingerprint(&namespace).await, before);

    let mut reasons: Vec<_> = namespace
        .events_with("db", "CredentialRotated")
        .await
        .split_off(earlier)
        .into_iter()
        .map(|event| event.reason)
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["CredentialRotated", "PreviousCredentialInUse"], "it never stopped being ready");
}

#[tokio::test]
async fn a_refused_password_is_retried_with_backoff_and_another_one_at_once() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let server = Server::start(System::Redis);
    namespace.database("db", &server.spec().probed_often()).await;
    namespace.ready("db").await;
    let failed_logins = || operator.probes().1.get("AuthenticationFailed").copied().unwrap_or_default();

    namespace.apply::<Secret>(password_secret("login", "app", "mistyped-password")).await;
    let refused = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    namespace.expect("db", &refused).await;
    // Of one each second, it is tried at the seconds 0, 1, 3, 7, 15 and 31.
    operator.more_probes(24).await;
    let tried = failed_logins();
    assert!((4..=6).contains(&tried), "{tried} failed logins");
    namespace.expect("db", &refused).await;
    // After the next one it is left alone for half a minute at least.
    eventually(SOON, "another try", async || match failed_logins() {
        more if more > tried => Ok(()),
        same => Err(same),
    })
    .await;

    let (before, _) = operator.probes();
    server.redis(&["acl", "setuser", "app", ">third-password"]);
    namespace.apply::<Secret>(password_secret("login", "app", "third-password")).await;
    namespace.until("db", SOON, "no fault", |database| condition(database, "Degraded").is_none()).await;
    let (after, _) = operator.probes();
    assert!(after - before <= 12, "{} probes in the meantime", after - before);
}

#[tokio::test]
async fn a_password_refused_for_one_object_is_not_tried_for_each_of_many() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let server = Server::start(System::Redis);
    let names: Vec<_> = (0..16).map(|number| format!("db-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let own = json!({ "database": number.to_string(), "pool": { "max": 1 } });
        namespace.database(name, &server.spec().probed_patiently().with(&own)).await;
    }
    for name in &names {
        namespace.ready(name).await;
    }
    namespace.apply::<Secret>(password_secret("login", "app", "mistyped-password")).await;
    for name in &names {
        let refused = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
        namespace.expect(name, &refused).await;
    }
    let tried = operator.probes().1["AuthenticationFailed"];
    // After some seconds it may have been tried again.
    assert!(tried <= 3, "{tried} failed logins");
    server.redis(&["acl", "setuser", "app", ">mistyped-password"]);
    for name in &names {
        namespace.until(name, SOON, "no fault", |database| condition(database, "Degraded").is_none()).await;
    }
}

#[tokio::test]
async fn a_password_refused_for_one_object_is_tried_for_another_once_a_third_has_logged_in_with_it() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = Server::start(System::Redis);
    let login = async |name: &str, password: &str| {
        namespace.apply::<Secret>(password_secret(name, "app", password)).await;
    };
    let database = async |name: &str, number: &str| {
        let spec = json!({ "database": number, "credentialsRef": { "name": name } });
        namespace.database(name, &server.spec().with(&spec)).await;
        namespace.ready(name).await;
    };
    for (name, number) in [("first", "1"), ("second", "2")] {
        login(name, "app-secret").await;
        database(name, number).await;
    }
    login("first", "mistyped-password").await;
    namespace.expect("first", &[("Degraded", "True", "PreviousCredentialInUse")]).await;
    server.redis(&["acl", "setuser", "app", ">mistyped-password"]);
    login("third", "mistyped-password").await;
    database("third", "3").await;
    login("second", "mistyped-password").await;
    let events = namespace.events_with("second", "CredentialRotated").await;
    assert!(!events.iter().any(|event| event.reason == "PreviousCredentialInUse"), "{events:?}");
}

#[tokio::test]
async fn restoring_the_password_ends_degraded() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &System::Redis.spec().probed_often()).await;
    let before = fingerprint(&namespace).await;
    namespace.apply::<Secret>(password_secret("login", "app", "mistyped-password")).await;
    namespace.expect("db", &[("Degraded", "True", "PreviousCredentialInUse")]).await;
    namespace.apply::<Secret>(password_secret("login", "app", "app-secret")).await;
    namespace.until("db", SOON, "no fault", |database| condition(database, "Degraded").is_none()).await;
    assert_eq!(fingerprint(&namespace).await, before);
}

#[tokio::test]
async fn a_client_certificate_that_does_not_work_leaves_the_previous_one_in_use() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.apply::<Secret>(certificate_secret("pair", "client")).await;
    namespace.apply::<Secret>(secret("who", "Opaque", &[("username", "certuser"), ("password", "")])).await;
    let spec = System::Postgresql.spec().probed_often().with(&json!({
        "credentialsRef": { "name": "who" }, "tls": { "clientCertRef": { "name": "pair" } },
    }));
    namespace.database("db", &spec).await;
    let before = fingerprint(&namespace).await;
    namespace.apply::<Secret>(certificate_secret("pair", "server")).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    namespace.expect("db", &wanted).await;
    assert_eq!(fingerprint(&namespace).await, before);
}

#[tokio::test]
async fn a_reconcile_that_times_out_keeps_the_previous_credential() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Redis);
    let _operator = Operator::start(&namespace, &["--reconcile-timeout", "2s"]).await;
    namespace.database("db", &server.spec()).await;
    let before = fingerprint(&namespace).await;

    server.freeze();
    namespace.apply::<Secret>(password_secret("login", "app", "mistyped-password")).await;
    namespace.expect("db", &[("Reconciling", "True", "DeadlineExceeded")]).await;
    server.thaw();
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    namespace.expect("db", &wanted).await;
    assert_eq!(fingerprint(&namespace).await, before);
}

#[tokio::test]
async fn a_rotation_is_reported_even_after_failed_reconciles() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let server = Server::start(System::Redis);
    namespace.database("db", &server.spec().probed_often()).await;
    let before = fingerprint(&namespace).await;

    let webhook = Admission::unreachable(&namespace, &["databases/status"]).await;
    server.redis(&["acl", "setuser", "app", ">second-password"]);
    namespace.apply::<Secret>(password_secret("login", "app", "second-password")).await;
    let failed = r#"kind="Database",reason="ClusterFailed""#;
    eventually(SOON, "passes that failed", async || {
        match operator.metric("authlink_reconcile_errors_total", failed) {
            2.0.. => Ok(()),
            count => Err(count),
        }
    })
    .await;
    assert!(operator.metric("authlink_secret_rotation_total", "rotated") > 0.0);
    drop(webhook);
    namespace.events_with("db", "CredentialRotated").await;
    assert_ne!(fingerprint(&namespace).await, before);
    namespace.database("db", &server.spec().probed_often().with(&json!({ "pool": { "max": 3 } }))).await;
    namespace.ready("db").await;
    let events = namespace.events("db").await;
    let told = events.iter().filter(|event| event.reason == "CredentialRotated");
    assert_eq!(told.map(|event| event.times).sum::<i32>(), 1, "{events:?}");
}
