//! Certificates as `openssl` and clouds make them.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{authorities, check};
use crate::support::{
    Namespace, Operator, Server, System, certificate_secret, condition, password_secret, secret,
};

#[test]
fn a_self_signed_certificate_is_trusted_where_it_is_in_the_bundle() {
    for system in System::ALL {
        let mut server = Server::start_with(system, &[("CERT", "selfsigned")]);
        check(&server.spec(), &[authorities("ca", "selfsigned.pem")]).ready();
        check(&server.spec(), &[]).fails("TlsFailed", &["authority"]);
        server.restart_with("CERT", "selfsigned-wronghost");
        let bundle = authorities("ca", "selfsigned-wronghost.pem");
        check(&server.spec(), std::slice::from_ref(&bundle))
            .fails("TlsFailed", &["not valid for this host name"]);
        check(&server.spec().with(&json!({ "tls": { "mode": "VerifyCa" } })), &[bundle]).ready();
        server.restart_with("CERT", "selfsigned-expired");
        check(&server.spec(), &[authorities("ca", "selfsigned-expired.pem")])
            .fails("CertificateExpired", &["renew"]);
    }
}

#[test]
fn a_certificate_of_version_1_needs_require_and_is_named() {
    for system in System::ALL {
        let server = Server::start_with(system, &[("CERT", "version1")]);
        check(&server.spec(), &[authorities("ca", "version1.pem")])
            .fails("TlsFailed", &["version 1", "version 3"]);
        check(&server.spec().with(&json!({ "tls": { "mode": "Require", "caRef": null } })), &[]).ready();
    }
}

#[test]
fn the_names_of_a_mongodb_may_be_left_unchecked() {
    let server = Server::start_with(System::Ferretdb, &[("CERT", "wronghost")]);
    check(&server.spec().with(&json!({ "tls": { "mode": "VerifyCa" } })), &[]).ready();
}

#[test]
fn a_certificate_that_expires_soon_is_told_of_on_every_engine() {
    for system in System::ALL {
        let server = Server::start_with(system, &[("CERT", "soon")]);
        let found = check(&server.spec(), &[]).ready();
        let degraded = found.condition("Degraded");
        assert!(degraded.starts_with("a server certificate expires at 20"), "{degraded}");
        assert!(found.status["tls"]["notAfter"].is_string(), "{found:?}");
    }
    let found = check(&System::Redis.spec(), &[]).ready();
    assert!(
        found.status["tls"]["notAfter"].as_str().is_some_and(|time| time.starts_with("2049")),
        "{found:?}"
    );
    assert!(!found.said.contains("Degraded"), "{found:?}");
}

#[test]
fn a_client_certificate_that_expires_soon_is_told_of() {
    let spec = System::Postgresql.spec().with(&json!({
        "credentialsRef": { "name": "who" }, "tls": { "clientCertRef": { "name": "pair" } },
    }));
    let who = secret("who", "Opaque", &[("username", "certuser"), ("password", "")]);
    let found = check(&spec, &[who, certificate_secret("pair", "client-soon")]).ready();
    let degraded = found.condition("Degraded");
    assert!(degraded.starts_with("the client certificate expires at 20"), "{degraded}");
    assert!(found.status["tls"]["clientNotAfter"].is_string(), "{found:?}");
}

#[tokio::test]
async fn the_operator_tells_of_a_certificate_that_expires_soon() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let server = Server::start_with(System::Mariadb, &[("CERT", "soon")]);
    namespace.apply::<Secret>(password_secret("login", "app", "app-secret")).await;
    namespace.database("db", &server.spec()).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "CertificateExpiringSoon")];
    let database = namespace.expect("db", &wanted).await;
    assert!(condition(&database, "Degraded").expect("Degraded").message.contains("renew the certificate"));
    assert!(database.status.expect("a status").tls.expect("TLS").not_after.is_some());
}
