//! TLS: what is checked in each mode, and what is said when a check fails.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::faults::all_fail;
use crate::support::{Namespace, Operator, Server, System, certificate_secret, hostile, secret, tls_file};

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_tls_failed() {
    let namespace = Namespace::create().await;
    namespace.certificates("other-ca", &tls_file("other-ca.pem")).await;
    let other = json!({ "tls": { "caRef": { "name": "other-ca" } } });
    let specs: Vec<_> =
        System::ALL.iter().map(|system| (system.engine(), system.spec().with(&other))).collect();
    all_fail(&namespace, &specs, "TlsFailed", "authority").await;
}

#[tokio::test]
async fn without_a_ca_only_the_public_authorities_are_trusted() {
    let namespace = Namespace::create().await;
    let public = json!({ "tls": { "caRef": null } });
    let specs: Vec<_> =
        System::ALL.iter().map(|system| (system.engine(), system.spec().with(&public))).collect();
    all_fail(&namespace, &specs, "TlsFailed", "authority").await;
}

#[tokio::test]
async fn a_server_without_tls_is_tls_failed() {
    let namespace = Namespace::create().await;
    let port = hostile::postgresql_without_tls();
    let specs = [("postgresql", System::Postgresql.spec().with(&json!({ "port": port })))];
    all_fail(&namespace, &specs, "TlsFailed", "TLS").await;
}

#[tokio::test]
async fn a_server_that_takes_the_handshake_for_a_command_is_tls_failed() {
    // Redis and MongoDB without TLS wait for the rest of what they take for a command.
    let namespace = Namespace::create().await;
    let plain = |system: System| {
        system.spec().with(&json!({ "port": system.port(), "healthCheck": { "timeout": "1s" } }))
    };
    let specs = [("redis", plain(System::Redis)), ("mongodb", plain(System::Ferretdb))];
    all_fail(&namespace, &specs, "TlsFailed", "no TLS on this port").await;
}

/// A certificate for another host, and then one that has expired.
async fn certificates_are_checked(system: System) {
    let namespace = Namespace::create().await;
    let mut server = Server::start_with(system, &[("CERT", "wronghost")]);
    all_fail(&namespace, &[("wrong", server.spec())], "TlsFailed", "name").await;

    let operator = Operator::start(&namespace, &[]).await;
    namespace.database("authority", &server.spec().with(&json!({ "tls": { "mode": "VerifyCa" } }))).await;
    namespace.ready("authority").await;
    let unchecked = json!({ "tls": { "mode": "Require", "caRef": null } });
    namespace.database("unchecked", &server.spec().with(&unchecked)).await;
    namespace.ready("unchecked").await;
    drop(operator);

    server.restart_with("CERT", "expired");
    all_fail(&namespace, &[("expired", server.spec())], "CertificateExpired", "renew").await;
}

#[tokio::test]
async fn the_certificate_of_a_postgresql_is_checked() {
    certificates_are_checked(System::Postgresql).await;
}

#[tokio::test]
async fn the_certificate_of_a_mariadb_is_checked() {
    certificates_are_checked(System::Mariadb).await;
}

#[tokio::test]
async fn the_certificate_of_a_redis_is_checked() {
    certificates_are_checked(System::Redis).await;
}

#[tokio::test]
async fn the_certificate_of_a_mongodb_is_checked() {
    certificates_are_checked(System::Ferretdb).await;
}

#[tokio::test]
async fn a_client_certificate_logs_in_without_a_password() {
    let namespace = Namespace::create().await;
    namespace.apply::<Secret>(certificate_secret("pair", "client")).await;
    namespace.apply::<Secret>(secret("who", "Opaque", &[("username", "certuser"), ("password", "")])).await;
    let spec = System::Postgresql.spec().with(&json!({
        "credentialsRef": { "name": "who" }, "tls": { "clientCertRef": { "name": "pair" } },
    }));
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("with", &spec).await;
    namespace.ready("with").await;
    namespace.database("without", &spec.with(&json!({ "tls": { "clientCertRef": null } }))).await;
    namespace.expect("without", &[("Ready", "False", "AuthenticationFailed")]).await;
}
