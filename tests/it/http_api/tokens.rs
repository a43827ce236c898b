//! OAuth 2.0 client credentials. The token endpoint is a fake, which counts and can be made to fail: it shows what no
//! real authorization server can be made to do.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use authlink::{
    api::Reason,
    backends::{
        Fault,
        external_api::{
            Authorization, Check, ClientAuthentication, ClientCredentials, Credential, EndpointSettings,
            Expectation, HttpEndpoint,
        },
        http::{Egress, Failure, Stage},
    },
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::future::join_all;
use hyper::{StatusCode, header::LOCATION};
use serde_json::json;

use super::{api::Api, endpoint, expectation, get, settings, text};
use crate::support::{SOON, eventually, free_port, hostile};

/// An API that repeats the credential it gets.
async fn api() -> Api {
    Api::start(|seen| seen.header("authorization").unwrap_or_default().to_owned().into_response()).await
}

fn with_client(api: &Api, token_url: &str) -> EndpointSettings {
    let secret = ClientAuthentication::Basic("hunter2+%&=".into());
    let client = ClientCredentials {
        scopes: vec!["read".to_owned(), "api://x/.default".to_owned()],
        ..ClientCredentials::new(&format!("{token_url}/token"), "app:1", secret)
    };
    let credential = Credential { authorization: Authorization::OAuth2(client), api_key: None };
    EndpointSettings { credential, ..settings(&api.url) }
}

/// Gives `token-1`, `token-2` and so on, each for so many seconds.
async fn issuer(seconds: u32) -> Api {
    let count = Arc::new(Mutex::new(0));
    Api::start(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        token(&format!("token-{count}"), seconds)
    })
    .await
}

fn token(token: &str, seconds: u32) -> Response {
    Json(json!({ "access_token": token, "token_type": "bearer", "expires_in": seconds })).into_response()
}

#[tokio::test]
async fn the_client_is_known_by_its_secret_and_asks_for_its_scopes() {
    let (api, issuer) = (api().await, issuer(300).await);
    let answer = get(&endpoint(with_client(&api, &issuer.url)), "/").await.unwrap();
    assert_eq!(text(answer).await, "Bearer token-1");
    let asked = issuer.only();
    assert_eq!(asked.line, "POST /token");
    assert_eq!(asked.body, "grant_type=client_credentials&scope=read%20api%3A%2F%2Fx%2F.default");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    let pair = asked.header("authorization").unwrap().strip_prefix("Basic ").unwrap();
    assert_eq!(BASE64_STANDARD.decode(pair).unwrap(), b"app%3A1:hunter2%2B%25%26%3D");
}

#[tokio::test]
async fn one_token_serves_all_callers() {
    let (api, issuer) = (api().await, issuer(300).await);
    let endpoint = endpoint(with_client(&api, &issuer.url));
    for _ in 0..2 {
        let answers = join_all((0..100).map(async |_| text(get(&endpoint, "/").await.unwrap()).await)).await;
        assert!(answers.iter().all(|answer| answer == "Bearer token-1"), "{answers:?}");
    }
    assert_eq!(issuer.seen().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_nobody_waits_for_that() {
    let (api, issuer) = (api().await, issuer(5).await);
    let endpoint = endpoint(with_client(&api, &issuer.url));
    let call = async || text(get(&endpoint, "/").await.unwrap()).await;
    assert_eq!(call().await, "Bearer token-1");
    let held = issuer.hold().await;
    let renewing = async || match (call().await, issuer.seen().len()) {
        (_, 2) => Ok(()),
        (token, count) => Err(format!("{token}, {count}")),
    };
    eventually(SOON, "a renewal", renewing).await;
    let answers = join_all((0..10).map(async |_| call().await)).await;
    assert!(answers.iter().all(|answer| answer == "Bearer token-1"), "{answers:?}");
    drop(held);
    let renewed = async || match call().await.as_str() {
        "Bearer token-2" => Ok(()),
        other => Err(other.to_owned()),
    };
    eventually(SOON, "the other token", renewed).await;
    assert_eq!(issuer.seen().len(), 2, "all callers share one renewal");
}

/// Lets so much time pass for this process, and none for its servers.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// An API that refuses whoever asks for `/refused`, and whoever has this token.
async fn refusing_api(token: &'static str) -> Api {
    Api::start(move |seen| match seen.header("authorization") {
        Some(found) if found != token && seen.line != "GET /refused" => found.to_owned().into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    })
    .await
}

#[tokio::test]
async fn a_token_that_is_revoked_is_replaced_once_it_is_refused() {
    let (api, issuer) = (refusing_api("Bearer token-1").await, issuer(3600).await);
    let endpoint = endpoint(with_client(&api, &issuer.url));
    let status = async || get(&endpoint, "/").await.unwrap().status();
    assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    assert_eq!(issuer.seen().len(), 1, "another one would fare no better");
    pass(Duration::from_secs(10)).await;
    let good = async || match status().await {
        StatusCode::OK => Ok(()),
        status => Err(status),
    };
    eventually(SOON, "the other token", good).await;
    assert_eq!(issuer.seen().len(), 2);
}

#[tokio::test]
async fn a_path_that_refuses_every_token_costs_fewer_and_fewer_of_them() {
    let (api, issuer) = (refusing_api("").await, issuer(3600).await);
    let endpoint = endpoint(with_client(&api, &issuer.url));
    for _ in 0..200 {
        assert_eq!(get(&endpoint, "/refused").await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(get(&endpoint, "/").await.unwrap().status(), StatusCode::OK);
        pass(Duration::from_secs(5)).await;
    }
    // In 1,000 s: the first one, and another one after 10, 20, 40, 80, 160 and 320 s.
    let fetched = issuer.seen().len();
    assert!((5..=7).contains(&fetched), "{fetched}");
}

#[tokio::test]
async fn a_refused_token_serves_on_until_there_is_another_one() {
    let api = refusing_api("").await;
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let issuer = Api::start(move |_| match counted.fetch_add(1, Relaxed) {
        0 => token("token-1", 3600),
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => token("token-2", 3600),
    })
    .await;
    let endpoint = endpoint(with_client(&api, &issuer.url));
    let call = async || text(get(&endpoint, "/").await.unwrap()).await;
    assert_eq!(call().await, "Bearer token-1");
    pass(Duration::from_secs(10)).await;

    let held = issuer.hold().await;
    get(&endpoint, "/refused").await.unwrap();
    let asked = async || if issuer.seen().len() == 2 { Ok(()) } else { Err("nothing") };
    eventually(SOON, "a question", asked).await;
    assert_eq!(call().await, "Bearer token-1", "while another one is fetched");
    drop(held);
    let renewed = async || {
        assert_eq!(get(&endpoint, "/refused").await.unwrap().status(), StatusCode::UNAUTHORIZED);
        match call().await.as_str() {
            "Bearer token-2" => Ok(()),
            other => Err(other.to_owned()),
        }
    };
    eventually(SOON, "the other token", renewed).await;
    assert_eq!(count.load(Relaxed), 3, "a failure is not asked about by each call");
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_forgotten_soon() {
    let api = api().await;
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let issuer = Api::start(move |_| {
        if switch.load(Relaxed) {
            token("token-1", 300)
        } else {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    })
    .await;
    let endpoint = endpoint(with_client(&api, &issuer.url));
    let failures = join_all((0..100).map(async |_| get(&endpoint, "/").await.map(drop).unwrap_err())).await;
    let fault = Fault::new(Reason::Unavailable, "token endpoint: got status 503 Service Unavailable");
    assert!(
        failures.iter().all(|failure| *failure == Failure { stage: Stage::Credential, fault: fault.clone() })
    );
    assert_eq!((issuer.seen().len(), api.seen().len()), (1, 0));
    healthy.store(true, Relaxed);
    eventually(SOON, "a token", async || {
        get(&endpoint, "/").await.map(drop).map_err(|failure| failure.fault)
    })
    .await;
}

async fn refused(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Fault {
    let (api, issuer) = (api().await, Api::start(move |_| answer()).await);
    let failure = get(&endpoint(with_client(&api, &issuer.url)), "/").await.unwrap_err();
    assert_eq!(failure.stage, Stage::Credential);
    assert!(api.seen().is_empty(), "nothing is sent without the credential");
    assert!(!failure.fault.message().contains("hunter2"), "{failure:?}");
    failure.fault
}

#[tokio::test]
async fn each_refusal_has_its_reason() {
    let error = |status: u16, code: &'static str| {
        let status = StatusCode::from_u16(status).unwrap();
        move || {
            (status, Json(json!({ "error": code, "error_description": "hunter2 is wrong" }))).into_response()
        }
    };
    let fault = refused(error(401, "invalid_client")).await;
    assert_eq!(
        fault,
        Fault::new(
            Reason::AuthenticationFailed,
            "token endpoint: the client was refused (invalid_client) with auth.oauth2.clientAuth Basic"
        )
    );
    assert_eq!(refused(error(400, "invalid_scope")).await.reason, Reason::PermissionDenied);
    assert_eq!(refused(error(400, "hunter2")).await.reason, Reason::ProtocolError);
    assert_eq!(refused(|| StatusCode::TOO_MANY_REQUESTS.into_response()).await.reason, Reason::Unavailable);
    let redirect = || (StatusCode::FOUND, [(LOCATION, "http://169.254.169.254/token")]).into_response();
    assert_eq!(refused(redirect).await.reason, Reason::ProtocolError);
}

#[tokio::test]
async fn what_is_no_token_is_protocol_error() {
    let answers: [fn() -> Response; 5] = [
        || "<html>hunter2</html>".into_response(),
        || Json(json!({ "token_type": "bearer" })).into_response(),
        || Json(json!({ "access_token": "a", "token_type": "mac" })).into_response(),
        || Json(json!({ "access_token": "a\r\nx: hunter2", "token_type": "bearer" })).into_response(),
        || Json(json!({ "access_token": "a".repeat(1 << 20), "token_type": "bearer" })).into_response(),
    ];
    for answer in answers {
        assert_eq!(refused(answer).await.reason, Reason::ProtocolError);
    }
}

/// As servers in the world send them; each is a token that is used.
#[tokio::test]
async fn a_token_response_is_taken_as_common_clients_take_it() {
    let responses = [
        json!({ "access_token": "a" }),
        json!({ "access_token": "a", "token_type": null, "expires_in": null }),
        json!({ "access_token": "a", "token_type": "bearer", "expires_in": 3600.0 }),
        json!({ "access_token": "a", "token_type": "Bearer", "expires_in": -1 }),
        json!({ "access_token": "a", "token_type": "BearerToken", "expires_in": "3599" }),
        json!({ "access_token": "a", "token_type": "Bearer", "expires_in": [], "scope": ["read"] }),
    ];
    for response in responses {
        let api = api().await;
        let sent = response.clone();
        let issuer = Api::start(move |_| Json(sent.clone()).into_response()).await;
        let endpoint = endpoint(with_client(&api, &issuer.url));
        for _ in 0..2 {
            let answer =
                get(&endpoint, "/").await.unwrap_or_else(|failure| panic!("{response}: {failure:?}"));
            assert_eq!(text(answer).await, "Bearer a", "{response}");
        }
        assert_eq!(issuer.seen().len(), 1, "{response}: it is used for a while");
    }
}

#[tokio::test]
async fn an_error_with_status_200_is_an_error() {
    let fault = refused(|| Json(json!({ "error": "invalid_scope" })).into_response()).await;
    assert_eq!(fault.reason, Reason::PermissionDenied, "{fault}");
}

/// Auth0 has it so; it cannot be had here.
#[tokio::test]
async fn the_audience_and_further_parameters_are_sent() {
    let (api, issuer) = (api().await, issuer(300).await);
    let mut settings = with_client(&api, &issuer.url);
    let Authorization::OAuth2(client) = &mut settings.credential.authorization else { panic!("OAuth 2.0") };
    client.audience = Some("https://api.example.com/".to_owned());
    client.params = BTreeMap::from([("tenant".to_owned(), "a b".to_owned())]);
    get(&endpoint(settings), "/").await.unwrap();
    let sent = issuer.only().body;
    assert!(sent.ends_with("&audience=https%3A%2F%2Fapi.example.com%2F&tenant=a%20b"), "{sent}");
}

#[tokio::test]
async fn a_token_server_that_cannot_be_reached_is_told_from_the_api() {
    let api = api().await;
    let port = free_port();
    let failure =
        get(&endpoint(with_client(&api, &format!("http://127.0.0.1:{port}"))), "/").await.unwrap_err();
    let fault = Fault::new(Reason::ConnectionRefused, "token endpoint: the connection was refused");
    assert_eq!(failure, Failure { stage: Stage::Credential, fault });
    let silent = format!("http://127.0.0.1:{}", hostile::silent_server());
    let check = Check::Http(Expectation { authenticated: true, ..expectation() });
    let timeout = Duration::from_millis(300);
    let fault = endpoint(EndpointSettings { check, timeout, ..with_client(&api, &silent) })
        .probe()
        .await
        .unwrap_err();
    assert_eq!(
        (fault.reason, fault.detail.starts_with("token endpoint: ")),
        (Reason::Timeout, true),
        "{fault}"
    );
}

#[tokio::test]
async fn the_token_server_is_guarded_like_the_api() {
    let (api, issuer) = (api().await, issuer(300).await);
    // It tells the two servers apart by how their addresses are written, since both are on loopback.
    let guard = |addresses: &[IpAddr]| match addresses {
        [address] if address.to_string() == "127.0.0.2" => Err(format!("{address} is refused")),
        _ => Ok(()),
    };
    let settings = with_client(&api, &issuer.url.replace("localhost", "127.0.0.2"));
    let endpoint = HttpEndpoint::new(settings, &Egress::new(Arc::new(guard))).unwrap();
    let failure = get(&endpoint, "/").await.unwrap_err();
    let fault = Fault::new(Reason::AddressDenied, "token endpoint: 127.0.0.2 is refused");
    assert_eq!(failure, Failure { stage: Stage::Credential, fault });
    assert!(issuer.seen().is_empty() && api.seen().is_empty());
}

#[tokio::test]
async fn the_token_server_s_certificate_is_checked_as_the_api_s() {
    let api = api().await;
    for (certificate, wanted) in [("server", Ok(())), ("expired", Err(Reason::CertificateExpired))] {
        let issuer = Api::start_tls(certificate, false, |_| token("token-1", 300)).await;
        // The name that the API's certificate must have says nothing of the token server's.
        let server_name = Some("api.example.com".to_owned());
        let settings = EndpointSettings { server_name, ..with_client(&api, &issuer.url) };
        let outcome = get(&endpoint(settings), "/").await.map(drop).map_err(|failure| failure.fault.reason);
        assert_eq!(outcome, wanted);
    }
}

#[tokio::test]
async fn a_renewal_goes_on_although_the_caller_goes_away() {
    let (api, issuer) = (api().await, issuer(300).await);
    let endpoint = endpoint(with_client(&api, &issuer.url));
    let held = issuer.hold().await;
    let asked = async || if issuer.seen().is_empty() { Err("nothing") } else { Ok(()) };
    tokio::select! {
        answer = get(&endpoint, "/") => panic!("there is no token yet: {answer:?}"),
        () = eventually(SOON, "a question", asked) => {}
    }
    drop(held);
    assert_eq!(text(get(&endpoint, "/").await.unwrap()).await, "Bearer token-1");
    assert_eq!(issuer.seen().len(), 1);
}
