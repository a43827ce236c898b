//! Connection URIs.

use serde_json::json;

use super::{by_uri, check};
use crate::support::{Server, System, hostile, postgresql};

fn address(system: System) -> String {
    format!("localhost:{}", system.tls_port(system.port()))
}

#[test]
fn options_of_drivers_and_providers_are_ignored_and_named() {
    let [postgresql, mysql, redis, mongodb] = System::ALL.map(address);
    for (system, uri, ignored) in [
        // Neon.
        (
            System::Postgresql,
            format!(
                "postgresql://app:app-secret@{postgresql}/app?sslmode=verify-full&channel_binding=require"
            ),
            "channel_binding",
        ),
        // Prisma with a pooler, and libpq.
        (
            System::Postgresql,
            format!(
                "postgres://app:app-secret@{postgresql}/app?pgbouncer=true&connect_timeout=10\
                 &target_session_attrs=read-write"
            ),
            "pgbouncer, connect_timeout, target_session_attrs",
        ),
        (System::Mariadb, format!("mysql://app:app-secret@{mysql}/app?charset=utf8mb4"), "charset"),
        (System::Redis, format!("rediss://app:app-secret@{redis}/0?protocol=3"), "protocol"),
        // Azure Cosmos DB.
        (
            System::Ferretdb,
            format!(
                "mongodb://app:app-secret@{mongodb}/app?ssl=true&authsource=app&retrywrites=false\
                 &maxIdleTimeMS=120000&AUTHMECHANISM=SCRAM-SHA-256&appName=@acct@"
            ),
            "retrywrites, maxIdleTimeMS, appName",
        ),
    ] {
        let (spec, secret) = by_uri(system, &uri);
        let found = check(&spec, &[secret]).ready();
        let resolved = found.condition("ResolvedRefs");
        assert!(resolved.ends_with(&format!("ignored options of the URI: {ignored}")), "{resolved}");
        assert!(!found.said.contains("app-secret"), "{found:?}");
    }
}

#[tokio::test]
async fn the_options_of_a_postgresql_session_are_honoured() {
    let mut admin = postgresql::admin().await;
    let schema = format!("schema_{:012x}", rand::random::<u64>() >> 16);
    postgresql::run(&mut admin, &format!("create schema {schema} authorization app")).await;
    postgresql::run(
        &mut admin,
        &format!("create table {schema}.{schema} (n int); grant all on {schema}.{schema} to app"),
    )
    .await;
    let query = json!({ "queries": [{ "name": "q", "statement": format!("select n from {schema}"), "readOnly": true }] });
    let uri = format!("postgres://app:app-secret@{}/app", address(System::Postgresql));
    for (options, invalid) in [("", true), (&format!("?options=-c%20search_path%3D{schema}"), false)] {
        let (spec, secret) = by_uri(System::Postgresql, &format!("{uri}{options}"));
        let found = check(&spec.with(&query), &[secret]).ready();
        assert_eq!(found.status.get("invalidQueries").is_some(), invalid, "{found:?}");
    }
    postgresql::run(&mut admin, &format!("drop schema {schema} cascade")).await;
}

#[test]
fn an_option_that_contradicts_the_spec_or_needs_a_field_is_refused_by_name() {
    let no_ca = json!({ "tls": null });
    let uri =
        |options: &str| format!("postgres://app:app-secret@{}/app?{options}", address(System::Postgresql));
    for (options, has_ca, words) in [
        ("sslrootcert=system", true, ["sslrootcert=system", "spec.tls.caRef"]),
        ("sslmode=verify-full&sslrootcert=/etc/ca.pem", false, ["option sslrootcert", "set spec.tls.caRef"]),
        ("sslcert=/etc/c.pem", true, ["option sslcert", "set spec.tls.clientCertRef"]),
        ("sslmode=disable", true, ["no use of spec.tls.caRef", "set spec.tls.mode"]),
        ("sslmode=magic", true, ["option sslmode", "not known"]),
    ] {
        let (spec, secret) = by_uri(System::Postgresql, &uri(options));
        let spec = if has_ca { spec } else { spec.with(&no_ca) };
        check(&spec, &[secret]).fails("SecretInvalidValue", &words);
    }
    // Only the public authorities, none of which has signed the test server's.
    let (spec, secret) = by_uri(System::Postgresql, &uri("sslrootcert=system"));
    check(&spec.with(&no_ca), &[secret]).fails("TlsFailed", &["authority"]);
    let (spec, secret) = by_uri(System::Ferretdb, "mongodb://a:b@localhost/c?authMechanism=MONGODB-AWS");
    check(&spec, &[secret]).fails("SecretInvalidValue", &["authMechanism", "MONGODB-X509"]);
    let (spec, secret) = by_uri(System::Ferretdb, "mongodb+srv://a:b@cluster0.example.net/c");
    check(&spec, &[secret]).fails("SecretInvalidValue", &["mongodb+srv", "list the hosts"]);
}

#[test]
fn a_password_that_is_not_encoded_is_refused_and_no_part_of_it_shows() {
    for uri in [
        "postgres://app:12/34qx7@db.example.com/app",
        "postgres://app:34qx7?12@db.example.com/app",
        "postgres://app:a@34qx7/12@db.example.com/app",
    ] {
        let (spec, secret) = by_uri(System::Postgresql, uri);
        let found = check(&spec, &[secret]).fails("SecretInvalidValue", &["percent-encode", "%2F"]);
        assert!(!found.said.contains("34qx7"), "{found:?}");
    }
}

#[test]
fn a_server_without_tls_is_tls_failed_on_every_engine() {
    let mut mariadb = Server::start(System::Mariadb);
    mariadb.restart_with("OPTIONS", "--skip-ssl");
    for (system, uri) in [
        (
            System::Postgresql,
            format!("postgres://app:pw@localhost:{}/app", hostile::postgresql_without_tls()),
        ),
        (System::Mariadb, format!("mysql://app:app-secret@localhost:{}/app", mariadb.port)),
        (System::Redis, format!("rediss://app:app-secret@localhost:{}/0", System::Redis.port())),
        (
            System::Ferretdb,
            format!("mongodb://app:app-secret@localhost:{}/app?authSource=admin", System::Ferretdb.port()),
        ),
    ] {
        let (spec, secret) = by_uri(system, &uri);
        check(&spec, &[secret]).fails("TlsFailed", &["no TLS on this port", "set tls.mode"]);
    }
}
