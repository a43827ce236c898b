//! Secrets as people and other operators make them.

use serde_json::{Value, json};

use super::{by_uri, check};
use crate::support::{Spec, System, secret};

fn with(system: System, reference: &Value) -> Spec {
    system.spec().with(&json!({ "credentialsRef": reference }))
}

#[test]
fn secrets_of_other_tools_are_taken_as_they_are() {
    let opaque = |data: &[(&str, &str)]| secret("made", "Opaque", data);
    let made = json!({ "name": "made" });
    for (system, reference, secret) in [
        (
            System::Postgresql,
            made.clone(),
            secret(
                "made",
                "connection.crossplane.io/v1alpha1",
                &[("username", "app"), ("password", "app-secret"), ("endpoint", "db"), ("port", "5432")],
            ),
        ),
        // By `echo`, and by an editor of Windows.
        (System::Mariadb, made.clone(), opaque(&[("username", "app\n"), ("password", "app-secret\n")])),
        (System::Ferretdb, made.clone(), opaque(&[("username", "app\r\n"), ("password", "app-secret\r\n")])),
        // Bitnami's charts: a key of its own, and no user name at all.
        (
            System::Postgresql,
            json!({ "name": "made", "username": "postgres", "passwordKey": "postgres-password" }),
            opaque(&[("postgres-password", "admin-secret"), ("password", "wrong")]),
        ),
        (
            System::Mariadb,
            json!({ "name": "made", "usernameKey": "user", "passwordKey": "pass" }),
            opaque(&[("user", "app"), ("pass", "app-secret")]),
        ),
        // `requirepass`, where a form was filled in with an empty name.
        (System::Redis, made.clone(), opaque(&[("username", ""), ("password", "admin-secret")])),
        (System::Redis, made.clone(), opaque(&[("password", "admin-secret\r\n")])),
    ] {
        check(&with(system, &reference), &[secret]).ready();
    }
}

#[test]
fn a_uri_with_a_line_end_or_an_empty_user_is_taken() {
    let redis = System::Redis.tls_port(System::Redis.port());
    for uri in [
        format!("rediss://:admin-secret@localhost:{redis}/0\r\n"),
        format!("rediss://default:admin-secret@localhost:{redis}\n"),
    ] {
        let (spec, secret) = by_uri(System::Redis, &uri);
        check(&spec, &[secret]).ready();
    }
}

#[test]
fn what_is_missing_or_empty_is_named() {
    let opaque = |data: &[(&str, &str)]| secret("made", "Opaque", data);
    let pair = [("username", ""), ("password", "app-secret")];
    let spec = with(System::Postgresql, &json!({ "name": "made" }));
    check(&spec, &[opaque(&pair)]).fails("SecretInvalidValue", &["key username", "is empty"]);
    check(&spec, &[opaque(&pair[1..])]).fails("SecretMissingKeys", &["no key username"]);
    let spec = with(System::Redis, &json!({ "name": "made", "passwordKey": "pass" }));
    check(&spec, &[opaque(&pair)]).fails("SecretMissingKeys", &["no key pass"]);
}

#[test]
fn a_user_of_mongodb_may_be_defined_in_another_database() {
    let admin = secret("made", "Opaque", &[("username", "admin"), ("password", "admin-secret")]);
    let spec = with(System::Ferretdb, &json!({ "name": "made" }));
    check(&spec, std::slice::from_ref(&admin))
        .fails("AuthenticationFailed", &["looked up in the database app", "set authSource"]);
    check(&spec.with(&json!({ "authSource": "admin" })), &[admin]).ready();
}
