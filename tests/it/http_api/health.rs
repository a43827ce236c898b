//! Health checks: what they ask, and what they take for an answer.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use authlink::{
    api::{
        Reason,
        v1alpha1::{database::TlsMode, external_api::CheckMethod},
    },
    backends::{
        Fault,
        external_api::{Check, EndpointSettings, Expectation, Facts, HttpEndpoint},
        http::Egress,
        transport::TlsSettings,
    },
};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::{StatusCode, header::LOCATION};

use super::{api::Api, endpoint, expectation, get, probe, settings, unrestricted};
use crate::support::{free_port, hostile};

async fn checked(
    expectation: Expectation,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> Result<(), Fault> {
    let api = Api::start(move |_| answer()).await;
    probe(EndpointSettings { check: Check::Http(expectation), ..settings(&api.url) }).await
}

#[tokio::test]
async fn a_probe_asks_what_the_check_says() {
    let api = Api::start(|_| "ok".into_response()).await;
    let method = CheckMethod::Options;
    let check = Check::Http(Expectation { method, path: "/healthz?full=1".to_owned(), ..expectation() });
    probe(EndpointSettings { check, ..settings(&format!("{}/v2/", api.url)) }).await.unwrap();
    let seen = api.only();
    assert_eq!(seen.line, "OPTIONS /v2/healthz?full=1");
    assert_eq!(seen.header("user-agent"), Some(concat!("authlink/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn only_the_expected_statuses_are_healthy() {
    for (status, healthy) in
        [(200, true), (204, true), (299, true), (404, true), (199 + 101, false), (503, false)]
    {
        let statuses = vec![200..=299, 404..=404];
        let status = StatusCode::from_u16(status).unwrap();
        let outcome =
            checked(Expectation { statuses, ..expectation() }, move || status.into_response()).await;
        let reason = outcome.as_ref().map_err(|fault| fault.reason);
        assert_eq!(reason, if healthy { Ok(&()) } else { Err(Reason::UnexpectedStatus) }, "{status}");
        if let Err(fault) = outcome {
            assert!(fault.message().contains(status.as_str()), "{fault}");
        }
    }
}

#[tokio::test]
async fn the_expected_text_is_looked_for_in_the_first_64_kib() {
    let wants = |text: &str| Expectation { body: Some(text.to_owned()), ..expectation() };
    checked(wants("\"up\""), || r#"{"state":"up"}"#.into_response()).await.unwrap();
    let fault = checked(wants("\"up\""), || r#"{"state":"down"}"#.into_response()).await.unwrap_err();
    assert_eq!(fault.reason, Reason::UnexpectedBody);
    let padded = |bytes: usize| move || format!("{}up", "-".repeat(bytes)).into_response();
    checked(wants("-up"), padded(64 * 1024 - 2)).await.unwrap();
    let fault = checked(wants("-up"), padded(64 * 1024)).await.unwrap_err();
    assert_eq!(fault.reason, Reason::UnexpectedBody);
}

#[tokio::test]
async fn a_redirect_is_not_followed_by_probes_and_not_by_calls() {
    let api =
        Api::start(|_| (StatusCode::FOUND, [(LOCATION, "http://169.254.169.254/latest")]).into_response())
            .await;
    // Whoever followed it would have to ask.
    let guard = |addresses: &[std::net::IpAddr]| {
        assert!(addresses.iter().all(std::net::IpAddr::is_loopback), "{addresses:?}");
        Ok(())
    };
    let endpoint = HttpEndpoint::new(settings(&api.url), &Egress::new(Arc::new(guard))).unwrap();
    let fault = endpoint.probe().await.unwrap_err();
    assert_eq!(fault.reason, Reason::UnexpectedStatus);
    assert!(fault.detail.contains("redirects are not followed"), "{fault}");
    let answer = get(&endpoint, "/").await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()[LOCATION]),
        (StatusCode::FOUND, &"http://169.254.169.254/latest".parse().unwrap())
    );
    assert_eq!(api.seen().len(), 2);
}

#[tokio::test]
async fn a_tcp_check_is_content_with_a_connection() {
    let check =
        |check: Check, port: u16| EndpointSettings { check, ..settings(&format!("http://127.0.0.1:{port}")) };
    probe(check(Check::Tcp, hostile::silent_server())).await.unwrap();
    let fault = probe(check(Check::Tcp, free_port())).await.unwrap_err();
    assert_eq!(fault.reason, Reason::ConnectionRefused);
}

#[tokio::test]
async fn a_tcp_check_of_https_shakes_hands_and_is_patient_only_so_long() {
    let api = Api::start_tls("server", false, |_| "ok".into_response()).await;
    let facts = endpoint(EndpointSettings { check: Check::Tcp, ..settings(&api.url) }).probe().await.unwrap();
    assert_eq!(facts.not_after, Some("2049-12-31T23:59:59Z".parse().unwrap()));
    assert!(api.seen().is_empty());
    let url = format!("https://127.0.0.1:{}", hostile::silent_server());
    let timeout = Duration::from_millis(300);
    let fault = probe(EndpointSettings { check: Check::Tcp, timeout, ..settings(&url) }).await.unwrap_err();
    assert_eq!(fault, Fault::new(Reason::Timeout, "the TLS handshake timed out"));
}

/// The resolver is a fake: it says which of the two addresses comes first.
#[tokio::test]
async fn of_servers_behind_one_name_the_certificate_that_expires_first_is_told_whichever_answers() {
    let port = free_port();
    let _one = Api::start_tls_at(&format!("127.0.0.1:{port}"), "server").await;
    let _other = Api::start_tls_at(&format!("127.0.0.2:{port}"), "expired").await;
    let answer = Arc::<Mutex<Vec<IpAddr>>>::default();
    let asked = Arc::clone(&answer);
    let egress = unrestricted().with_resolver(Arc::new(move |_| {
        let answer = asked.lock().unwrap().clone();
        async { Ok(answer) }.boxed()
    }));
    let settings = settings(&format!("https://two.example:{port}"));
    // One of them has expired, and both are to be seen.
    let tls = TlsSettings { mode: TlsMode::Require, ..settings.tls.clone() };
    let endpoint =
        HttpEndpoint::new(EndpointSettings { check: Check::Tcp, tls, ..settings }, &egress).unwrap();
    let not_after = async |last: &[u8]| {
        *answer.lock().unwrap() = last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect();
        endpoint.probe().await.unwrap().not_after.unwrap()
    };
    let late = not_after(&[1, 2]).await;
    let early = not_after(&[2, 1]).await;
    assert!(early < late);
    assert_eq!(not_after(&[1, 2]).await, early);
    assert_eq!(not_after(&[1]).await, early, "a name need not lead to all of its servers each time");
}

#[tokio::test]
async fn without_a_check_nobody_is_asked() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let facts = endpoint(EndpointSettings { check: Check::None, ..settings(&url) }).probe().await.unwrap();
    assert_eq!(facts, Facts::default());
}

#[tokio::test]
async fn each_probe_connects_anew_and_calls_share_a_connection() {
    let api = Api::start_tls("server", false, |_| "ok".into_response()).await;
    let endpoint = endpoint(settings(&api.url));
    for _ in 0..3 {
        endpoint.probe().await.unwrap();
    }
    assert_eq!(api.connections(), 3);
    for _ in 0..3 {
        super::text(get(&endpoint, "/").await.unwrap()).await;
    }
    assert_eq!(api.connections(), 4);
}
