//! TLS: what is checked of the server, and what is shown to it.

use authlink::{
    api::Reason,
    backends::{Fault, external_api::EndpointSettings, transport::TlsSettings},
};
use axum::response::IntoResponse;

use super::{api::Api, endpoint, get, nginx, probe, settings, text};
use crate::support::tls_file;

async fn served(
    certificate: &str,
    change: impl Fn(EndpointSettings) -> EndpointSettings,
) -> Result<(), Fault> {
    let api = Api::start_tls(certificate, false, |_| "ok".into_response()).await;
    let settings = change(settings(&api.url));
    let called = get(&endpoint(settings.clone()), "/").await.map(drop).map_err(Fault::from);
    let probed = probe(settings).await;
    // Calls may do without a full handshake, and must still see what probes see.
    assert_eq!(called, probed);
    assert_eq!(api.seen().is_empty(), probed.is_err(), "nothing is sent to a server that is not trusted");
    probed
}

fn with_ca(ca: Option<String>) -> impl Fn(EndpointSettings) -> EndpointSettings {
    move |settings| EndpointSettings {
        tls: TlsSettings { ca: ca.clone(), ..settings.tls.clone() },
        ..settings
    }
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_and_name_is_taken() {
    served("server", |settings| settings).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_certificate_expired() {
    assert_eq!(served("expired", |settings| settings).await.unwrap_err().reason, Reason::CertificateExpired);
}

#[tokio::test]
async fn a_certificate_for_another_host_is_tls_failed_unless_it_has_the_name_that_is_asked_for() {
    let fault = served("wronghost", |settings| settings).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TlsFailed);
    assert!(fault.detail.contains("is not valid for this host name"), "{fault}");
    let named = |name: &str| {
        let name = Some(name.to_owned());
        move |settings| EndpointSettings { server_name: name.clone(), ..settings }
    };
    served("wronghost", named("wrong.example.org")).await.unwrap();
    assert_eq!(served("server", named("wrong.example.org")).await.unwrap_err().reason, Reason::TlsFailed);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_tls_failed() {
    for ca in [Some(tls_file("other-ca.pem")), None] {
        let fault = served("server", with_ca(ca)).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TlsFailed);
        assert!(fault.detail.contains("authority"), "{fault}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_tls_failed() {
    let api = Api::start(|_| "ok".into_response()).await;
    let fault = probe(settings(&api.url.replace("http:", "https:"))).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TlsFailed);
    assert!(fault.detail.contains("no TLS on this port"), "{fault}");
}

fn with_certificate(settings: EndpointSettings) -> EndpointSettings {
    let client = Some((tls_file("client.pem"), tls_file("client.key").into()));
    EndpointSettings { tls: TlsSettings { client, ..settings.tls.clone() }, ..settings }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_takes_ours_and_refuses_none() {
    let api = Api::start_tls("server", true, |_| "ok".into_response()).await;
    probe(with_certificate(settings(&api.url))).await.unwrap();
    assert_eq!(text(get(&endpoint(with_certificate(settings(&api.url))), "/").await.unwrap()).await, "ok");
    let fault = probe(settings(&api.url)).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TlsFailed);
    assert!(fault.detail.contains("CertificateRequired"), "{fault}");
    let failure = get(&endpoint(settings(&api.url)), "/").await.unwrap_err();
    assert_eq!(failure.fault, fault);
}

#[tokio::test]
async fn a_real_server_reads_our_client_certificate() {
    let url = nginx().1;
    let answer = get(&endpoint(with_certificate(settings(&url))), "/cert").await.unwrap();
    assert_eq!(text(answer).await, "CN=certuser\n");
    assert_eq!(get(&endpoint(settings(&url)), "/cert").await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_client_certificate_that_is_none_is_told_before_anything_is_sent() {
    let pem = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n";
    let broken = |certificate: String, key: String| {
        let tls = TlsSettings { client: Some((certificate, key.into())), ..TlsSettings::default() };
        let settings = EndpointSettings { tls, ..settings("https://localhost") };
        authlink::backends::external_api::HttpEndpoint::new(settings, &super::unrestricted()).err().unwrap()
    };
    for fault in
        [broken(pem.to_owned(), tls_file("client.key")), broken(tls_file("client.pem"), "hunter2".to_owned())]
    {
        assert_eq!(fault.reason, Reason::SecretInvalidValue);
        assert!(!fault.detail.contains("hunter2"), "{fault}");
    }
}
