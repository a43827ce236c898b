//! The credential: what the server sees of it, and that nobody else does.

use authlink::{
    api::Reason,
    backends::{
        external_api::{ApiKey, Authorization, Check, Credential, EndpointSettings, Expectation},
        http,
    },
};
use axum::response::IntoResponse;
use hyper::{Request, StatusCode};
use tokio::time::Instant;

use super::{TIMEOUT, api::Api, endpoint, expectation, get, nginx, probe, settings, text, with_token};

fn api_key(header: &str) -> ApiKey {
    ApiKey { header: header.to_owned(), key: "key-1".into() }
}

fn basic(password: &str) -> Authorization {
    Authorization::Basic { username: "app".to_owned(), password: password.into() }
}

#[tokio::test]
async fn each_type_of_credential_is_the_header_that_the_server_sees() {
    let bearer = || Authorization::Bearer("token-1".into());
    let none = || Authorization::None;
    let rows = [
        (Credential { authorization: none(), api_key: None }, None, None),
        (Credential { authorization: bearer(), api_key: None }, Some("Bearer token-1"), None),
        (Credential { authorization: none(), api_key: Some(api_key("X-API-Key")) }, None, Some("key-1")),
        (
            Credential { authorization: bearer(), api_key: Some(api_key("x-api-key")) },
            Some("Bearer token-1"),
            Some("key-1"),
        ),
        (Credential { authorization: none(), api_key: Some(api_key("Authorization")) }, Some("key-1"), None),
        (
            Credential { authorization: basic("app-secret"), api_key: None },
            Some("Basic YXBwOmFwcC1zZWNyZXQ="),
            None,
        ),
    ];
    for (credential, authorization, key) in rows {
        let api = Api::start(|_| "ok".into_response()).await;
        let answer =
            get(&endpoint(EndpointSettings { credential, ..settings(&api.url) }), "/a").await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let seen = api.only();
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (authorization, key));
    }
}

#[tokio::test]
async fn what_a_caller_says_of_host_and_credential_is_replaced_and_the_rest_is_kept() {
    let api = Api::start(|_| "ok".into_response()).await;
    let request = Request::post("/a?b=c")
        .header("authorization", "Bearer of-the-caller")
        .header("host", "evil.example")
        .header("x-request-id", "7")
        .body(http::Body::whole("payload"))
        .unwrap();
    let endpoint = endpoint(with_token(&format!("{}/v2", api.url)));
    endpoint.call(request, Instant::now() + TIMEOUT).await.unwrap();
    let seen = api.only();
    assert_eq!((seen.line.as_str(), seen.body.as_str()), ("POST /v2/a?b=c", "payload"));
    assert_eq!(seen.headers.get_all("authorization").iter().collect::<Vec<_>>(), ["Bearer hunter2"]);
    assert_eq!(seen.header("host"), api.url.strip_prefix("http://"));
    assert_eq!(seen.header("x-request-id"), Some("7"));
}

#[tokio::test]
async fn a_probe_carries_the_credential_only_where_the_check_says_so() {
    for authenticated in [false, true] {
        let api = Api::start(|_| "ok".into_response()).await;
        let check = Check::Http(Expectation { authenticated, ..expectation() });
        probe(EndpointSettings { check, ..with_token(&api.url) }).await.unwrap();
        let seen = api.only();
        assert_eq!(seen.header("authorization"), authenticated.then_some("Bearer hunter2"));
    }
}

#[tokio::test]
async fn a_real_server_takes_the_password_and_refuses_a_wrong_one() {
    let with = |password: &str| {
        let credential = Credential { authorization: basic(password), api_key: None };
        let check = Expectation { path: "/login".to_owned(), authenticated: true, ..expectation() };
        EndpointSettings { credential, check: Check::Http(check), ..settings(&nginx().0) }
    };
    probe(with("app-secret")).await.unwrap();
    assert_eq!(text(get(&endpoint(with("app-secret")), "/login").await.unwrap()).await, "welcome\n");
    let fault = probe(with("hunter2")).await.unwrap_err();
    assert_eq!(fault.reason, Reason::AuthenticationFailed);
    assert!(!fault.message().contains("hunter2"), "{fault}");
    // A call's status is the caller's to read.
    assert_eq!(get(&endpoint(with("hunter2")), "/login").await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_refused_and_a_forbidden_probe_say_whose_fault_it_is() {
    let rows = [
        (StatusCode::UNAUTHORIZED, true, Reason::AuthenticationFailed),
        (StatusCode::FORBIDDEN, true, Reason::PermissionDenied),
        (StatusCode::UNAUTHORIZED, false, Reason::UnexpectedStatus),
    ];
    for (status, authenticated, reason) in rows {
        let api = Api::start(move |_| (status, "you sent hunter2").into_response()).await;
        let check = Check::Http(Expectation { authenticated, ..expectation() });
        let fault = probe(EndpointSettings { check, ..with_token(&api.url) }).await.unwrap_err();
        assert_eq!(fault.reason, reason);
        assert!(!fault.message().contains("hunter2"), "{fault}");
    }
}
