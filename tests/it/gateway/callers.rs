//! Who may call, and what everybody else is told.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use authlink::api::v1alpha1::ExternalApi;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::{Method, StatusCode};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::Role};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::external_api::{ALLOWED, Backend, api};
use crate::support::{Namespace, SOON, eventually, gateway::Gateway, test_dir};

/// The token with other claims, signed by the cluster's own key (RFC 7518 3.3): the API server issues none that has expired.
fn signed_anew(token: &str, claims: impl FnOnce(&mut Value)) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let text = BASE64_URL_SAFE_NO_PAD.decode(parts[1]).expect("claims");
    let mut said = serde_json::from_slice(&text).expect("claims");
    claims(&mut said);
    let signed = format!("{}.{}", parts[0], BASE64_URL_SAFE_NO_PAD.encode(said.to_string()));
    let key = test_dir().join("cluster/pki/sa.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign"]).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut signing = openssl.spawn().expect("openssl");
    signing.stdin.take().expect("a pipe").write_all(signed.as_bytes()).expect("written");
    let signature = signing.wait_with_output().expect("a signature").stdout;
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_token_that_is_missing_forged_expired_or_for_another_audience_is_refused() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let path = format!("/v1/apis/{}/billing/ok", namespace.name);
    let answer = gateway.send(Method::GET, &path, &[], "").await;
    assert_eq!(answer.problem(), (401, "unauthenticated".to_owned()));
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"authlink\"");
    assert!(answer.text().contains("the audience authlink"), "{}", answer.text());
    let other = namespace.token("shop", "https://kubernetes.default.svc").await;
    let good = namespace.token("shop", "authlink").await;
    let forged = format!("{good}x");
    let expired = signed_anew(&good, |claims| {
        for time in ["iat", "nbf", "exp"] {
            claims[time] = json!(claims[time].as_i64().expect("a time") - 24 * 3600);
        }
    });
    for token in [other.as_str(), &forged, &expired, "none"] {
        let answer = gateway.get(&path, token).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".to_owned()));
        assert!(!answer.text().contains(token), "a token is nowhere said");
    }
    let renewed = signed_anew(&good, |claims| claims["jti"] = json!("another one"));
    assert_eq!(gateway.get(&path, &renewed).await.problem().0, 404, "the signature is not what was wrong");
    assert!(!gateway.operator.logs().contains(&good), "nor in the log");
}

#[tokio::test]
async fn a_right_is_needed_by_name_and_what_is_missing_is_named() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let backend = Backend::start().await;
    for name in ["billing", "other"] {
        namespace.apply::<ExternalApi>(api(name, &[backend.url()], json!({}))).await;
        namespace.expect_of::<ExternalApi>(name, &[("Ready", "True", "Available")]).await;
    }
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &["billing"])]).await;
    let path = |name: &str| format!("/v1/apis/{}/{name}/ok", namespace.name);
    assert_eq!(gateway.get(&path("billing"), &token).await.status, StatusCode::OK);
    // Whether it exists is not for those who may not call it.
    for name in ["other", "none"] {
        let answer = gateway.get(&path(name), &token).await;
        assert_eq!(answer.problem(), (403, "forbidden".to_owned()));
        let text = answer.text();
        let missing =
            format!("may not create externalapis/invoke {name} in the namespace {}", namespace.name);
        assert!(text.contains(&missing) && text.contains(&format!("{}:shop", namespace.name)), "{text}");
    }
    let all = namespace.caller("all", &[("create", "externalapis/invoke", &[])]).await;
    assert_eq!(gateway.get(&path("none"), &all).await.problem(), (404, "service-not-found".to_owned()));
}

#[tokio::test]
async fn a_right_or_an_account_that_is_taken_away_ends_within_half_a_minute() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let backend = Backend::start().await;
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({}))).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let right = [("create", "externalapis/invoke", &[][..])];
    let (role, account) = (namespace.caller("role", &right).await, namespace.caller("account", &right).await);
    let path = format!("/v1/apis/{}/billing/ok", namespace.name);
    for token in [&role, &account] {
        assert_eq!(gateway.get(&path, token).await.status, StatusCode::OK);
    }
    let started = std::time::Instant::now();
    namespace.api::<Role>().delete("role", &DeleteParams::default()).await.expect("deleted");
    namespace.api::<ServiceAccount>().delete("account", &DeleteParams::default()).await.expect("deleted");
    for (token, status) in [(&role, 403), (&account, 401)] {
        eventually(SOON, "the right has ended", async || match gateway.get(&path, token).await.status {
            now if now == status => Ok(()),
            now => Err(now),
        })
        .await;
    }
    // What is remembered holds for 30 s, and the API server's own memory of a token for 10 s.
    assert!(started.elapsed().as_secs() < 45, "{:?}", started.elapsed());
}

#[tokio::test]
async fn routes_that_do_not_exist_say_so_as_problems_and_every_answer_has_a_request_id() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let answer = gateway.send(Method::GET, "/v2/none", &[("x-request-id", "mine-7")], "").await;
    assert_eq!(answer.problem(), (404, "route-not-found".to_owned()));
    assert_eq!(answer.headers["x-request-id"], "mine-7");
    let made = gateway.send(Method::GET, "/", &[("x-request-id", "not one")], "").await;
    assert_eq!(made.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn each_call_is_one_line_in_the_log_without_payload() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let backend = Backend::start().await;
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({}))).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let path = format!("/v1/apis/{}/billing/echo?card=4111111111111111", namespace.name);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("traceparent", trace), ("x-request-id", "r-1")];
    let answer = gateway.send(Method::POST, &path, &headers, "the payload").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "the payload"));
    // The log is written a moment after the answer.
    let (logs, lines) = eventually(SOON, "one line", async || {
        let logs = gateway.operator.logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["target"] == "authlink::access").collect();
        if lines.len() == 1 { Ok((logs, lines)) } else { Err(format!("{lines:?}")) }
    })
    .await;
    let said = |field: &str| lines[0][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(said("caller"), format!("system:serviceaccount:{}:shop", namespace.name));
    assert_eq!((said("request_id").as_str(), said("traceparent").as_str()), ("r-1", trace));
    assert_eq!((lines[0]["status"].as_u64(), lines[0]["attempts"].as_u64()), (Some(200), Some(1)));
    assert!(!logs.contains("the payload") && !logs.contains("4111111111111111"), "no payload, no query");
    let seen = gateway.operator.metric("authlink_gateway_request_duration_seconds_count", "name=\"billing\"");
    assert!((seen - 1.0).abs() < f64::EPSILON, "{seen}");
}
