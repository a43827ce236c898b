//! The rules of a `Database`.

use authlink::api::v1alpha1::Database;
use serde_json::{Value, json};

use super::{Refused, manifest};
use crate::commands::Place;

/// A spec that is right, with some fields set otherwise.
fn spec(changes: Value) -> Value {
    let mut spec = json!({ "type": "postgresql", "host": "db.example.com" });
    let Value::Object(changes) = changes else { panic!("fields") };
    spec.as_object_mut().unwrap().extend(changes);
    spec
}

pub(super) fn refused() -> Vec<Refused> {
    let uri = json!({ "name": "s" });
    let duration = "must be a duration from 1ms to 24h, such as 500ms, 30s or 1h30m";
    let pattern = "should match '^([0-9]+";
    let one_of = "set exactly one of host, hosts and uriSecretRef";
    let all =
        "credentialsRef, port, database and authSource are part of the URI in uriSecretRef: remove them";
    let hosts: Vec<_> = (0..17).map(|number| json!({ "host": format!("h{number}") })).collect();
    let query = json!({ "name": "a", "statement": "select 1" });
    let pool = |field: &str, value: Value| spec(json!({ "pool": { field: value } }));
    let tls = |value: Value| spec(json!({ "tls": value }));
    vec![
        (spec(json!({ "type": "oracle" })), "Unsupported value: \"oracle\"", "spec.type: must be one of"),
        (json!({ "host": "a" }), "spec.type: Required value", "spec: \"type\" is a required property"),
        (spec(json!({ "uriSecretRef": uri })), one_of, one_of),
        (spec(json!({ "hosts": [{ "host": "a" }] })), one_of, one_of),
        (json!({ "type": "redis" }), one_of, one_of),
        (json!({ "type": "redis", "uriSecretRef": uri, "credentialsRef": uri }), all, all),
        (json!({ "type": "redis", "uriSecretRef": uri, "port": 1 }), all, all),
        (json!({ "type": "redis", "uriSecretRef": uri, "database": "1" }), all, all),
        (
            spec(json!({ "type": "redis", "database": "orders" })),
            "database must be a number for type redis, such as \"0\"",
            "database must be a number for type redis, such as \"0\"",
        ),
        (
            tls(json!({ "mode": "None", "caRef": uri })),
            "tls.caRef needs tls.mode VerifyCa or VerifyFull",
            "tls.caRef needs tls.mode VerifyCa or VerifyFull",
        ),
        (
            tls(json!({ "mode": "None", "clientCertRef": uri })),
            "tls.clientCertRef needs a tls.mode other than None",
            "tls.clientCertRef needs a tls.mode other than None",
        ),
        (tls(json!({ "mode": "verify-full" })), "Unsupported value", "spec.tls.mode: must be one of"),
        (pool("min", json!(11)), "pool.min must be at most pool.max", "pool.min must be at most pool.max"),
        (
            pool("monitorInterval", json!("1s")),
            "pool.monitorInterval must be at least 5s",
            "pool.monitorInterval must be at least 5s",
        ),
        (
            pool("max", json!(0)),
            "greater than or equal to 1",
            "spec.pool.max: value is less than the minimum of 1",
        ),
        (pool("idleTimeout", json!("25h")), duration, duration),
        (pool("idleTimeout", json!("0s")), duration, duration),
        (pool("idleTimeout", json!("50")), pattern, "spec.pool.idleTimeout: value"),
        (pool("idleTimeout", json!("-5s")), pattern, "spec.pool.idleTimeout: value does not match"),
        (pool("idleTimeout", json!(5)), "must be of type string", "is not of type \"string\""),
        (
            spec(json!({ "healthCheck": { "interval": "99ms", "timeout": "50ms" } })),
            "healthCheck.interval must be at least 100ms",
            "healthCheck.interval must be at least 100ms",
        ),
        (
            spec(json!({ "healthCheck": { "interval": "5s", "timeout": "5s" } })),
            "healthCheck.timeout must be shorter than healthCheck.interval",
            "healthCheck.timeout must be shorter than healthCheck.interval",
        ),
        (
            spec(json!({ "port": 0 })),
            "greater than or equal to 1",
            "spec.port: value is less than the minimum of 1",
        ),
        (
            spec(json!({ "port": 70_000 })),
            "less than or equal to 65535",
            "spec.port: value is greater than the maximum of 65535",
        ),
        (json!({ "type": "redis", "hosts": [] }), "should have at least 1 items", "spec.hosts: "),
        (json!({ "type": "redis", "hosts": hosts }), "must have at most 16 items", "spec.hosts: "),
        (
            spec(json!({ "queries": [query, query] })),
            "spec.queries[1]: Duplicate value",
            "spec.queries[1]: is there twice",
        ),
        (spec(json!({ "hostt": "a" })), "unknown field \"spec.hostt\"", "spec.hostt: there is no such field"),
        (
            pool("maximum", json!(3)),
            "unknown field \"spec.pool.maximum\"",
            "spec.pool.maximum: there is no such field",
        ),
        (
            spec(json!({ "queries": [{ "name": "a", "statement": "b", "sql": "c" }] })),
            "unknown field \"spec.queries[0].sql\"",
            "spec.queries[0].sql: there is no such field",
        ),
    ]
}

/// Rules of where the server is, and who logs in.
pub(super) fn refused_addresses() -> Vec<Refused> {
    let uri = json!({ "name": "s" });
    let host = "must be a host name or address without a port";
    let all =
        "credentialsRef, port, database and authSource are part of the URI in uriSecretRef: remove them";
    vec![
        (spec(json!({ "host": "a b" })), host, host),
        (spec(json!({ "host": "postgres://app:pw@db" })), host, host),
        (json!({ "type": "redis", "hosts": [{ "host": "a/b" }] }), host, host),
        (
            spec(json!({ "authSource": "admin" })),
            "authSource is only for type mongodb",
            "authSource is only for type mongodb",
        ),
        (json!({ "type": "mongodb", "uriSecretRef": uri, "authSource": "admin" }), all, all),
        (
            spec(json!({ "credentialsRef": { "name": "s", "username": "a", "usernameKey": "b" } })),
            "set username or usernameKey, not both",
            "set username or usernameKey, not both",
        ),
    ]
}

pub(super) fn good() -> Vec<Value> {
    let uri = json!({ "name": "s" });
    vec![
        spec(json!({})),
        // A null is as good as nothing.
        spec(json!({ "hosts": null, "uriSecretRef": null, "port": null, "pool": null })),
        spec(
            json!({ "tls": { "caRef": uri }, "pool": { "max": 3 }, "healthCheck": { "interval": "1m30s" } }),
        ),
        json!({ "type": "redis", "uriSecretRef": uri }),
        json!({
            "type": "mongodb", "host": "a", "authSource": "admin", "tls": { "mode": "VerifyCa" },
            "credentialsRef": { "name": "s", "username": "root", "passwordKey": "mongodb-root-password" },
        }),
        json!({ "type": "mongodb", "hosts": [{ "host": "a" }, { "host": "::1", "port": 27018 }] }),
        spec(json!({ "queries": [{ "name": "a", "statement": "b" }, { "name": "b", "statement": "b" }] })),
    ]
}

#[test]
fn the_type_of_a_database_is_immutable() {
    let place = Place::new("immutable");
    let before = manifest("Database", &spec(json!({ "suspend": true })));
    place.kubectl(&["create", "-f", "-"], &before.to_string()).well();
    let patch = ["patch", "database", "orders", "--type=merge", "-p", r#"{"spec":{"type":"mysql"}}"#];
    let said = place.kubectl(&patch, "");
    let message = "type is immutable: create a new Database";
    assert!(said.code == Some(1) && said.err.contains(message), "{said:?}");

    let mut after = before.clone();
    after["spec"]["type"] = "mysql".into();
    let [before, after] = [before, after].map(|it| serde_json::from_value::<Database>(it).unwrap());
    let problems = kube::core::cel::validate_cel_update(&after, &before).unwrap_err().to_string();
    assert!(problems.contains(message), "{problems}");
    assert!(kube::core::cel::validate_cel_update(&before, &before).is_ok());
}
