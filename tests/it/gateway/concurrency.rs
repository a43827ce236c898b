//! Many callers, and several endpoints.

use std::time::{Duration, Instant};

use authlink::api::v1alpha1::ExternalApi;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::json;

use super::external_api::{Backend, Scene, api};

/// They share ten connections of HTTP/2, so that the test's own descriptors are not what limits them.
const CALLERS: usize = 10_000;
const CONNECTIONS: usize = 10;

/// Calls of one API that a gateway has in flight at most, and how long each of these takes.
const IN_FLIGHT: f64 = 1024.0;
const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_of_a_slow_api_cost_little_and_hold_up_no_other() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({ "timeout": "20s" })).await;
    let other = api("other", &[backend.url()], json!({}));
    scene.namespace.apply::<ExternalApi>(other).await;
    scene.namespace.expect_of::<ExternalApi>("other", &[("Ready", "True", "Available")]).await;
    let quick = format!("/v1/apis/{}/other/ok", scene.namespace.name);
    assert_eq!(scene.gateway.get(&quick, &scene.token).await.status, StatusCode::OK);
    let before = scene.gateway.operator.memory();

    let slow = |client: Client<_, Full<Bytes>>| {
        let uri = format!("http://{}{}", scene.gateway.address, scene.path("/slow"));
        let bearer = format!("Bearer {}", scene.token);
        async move {
            let request = Request::builder().uri(uri).header("authorization", bearer);
            let answer = client.request(request.body(Full::default()).expect("a request")).await;
            let answer = answer.expect("an answer");
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("the whole of it").to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        }
    };
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Client::builder(TokioExecutor::new());
            client.timer(TokioTimer::new()).http2_only(true).build_http()
        })
        .collect();
    let slow_calls = stream::iter(0..CALLERS).map(|number| slow(clients[number % CONNECTIONS].clone()));
    let slow_calls = slow_calls.buffer_unordered(CALLERS).collect::<Vec<_>>();
    let others = async {
        for _ in 0..50 {
            assert_eq!(scene.gateway.get(&quick, &scene.token).await.status, StatusCode::OK);
        }
        scene.gateway.operator.memory()
    };
    let started = Instant::now();
    let (answers, during) = tokio::join!(slow_calls, others);
    let took = started.elapsed();

    let (waited, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(status, _)| *status == StatusCode::GATEWAY_TIMEOUT);
    let other = others
        .iter()
        .find(|(status, text)| *status != StatusCode::SERVICE_UNAVAILABLE || !text.contains("in flight"));
    assert_eq!(other, None, "the others need not wait to hear that too many are in flight");
    let admitted = IN_FLIGHT * (1.0 + took.div_duration_f64(TIMEOUT));
    let count = u32::try_from(waited.len()).expect("a number");
    assert!(count > 0 && f64::from(count) <= admitted, "{count} within {took:?}");
    let most = scene.gateway.operator.memory().max(during);
    assert!(most < before + 300_000_000, "{before} bytes before, {most} with the slow calls");
}

#[tokio::test]
async fn endpoints_in_the_gateways_own_zone_are_called_while_one_of_them_works() {
    let (near, far) = (Backend::start().await, Backend::start().await);
    let endpoints = json!({ "endpoints": [
        { "url": near.url(), "zone": "eu-1" }, { "url": far.url(), "zone": "us-1", "weight": 1000 },
    ], "circuitBreaker": { "failureThreshold": 50, "minRequests": 5, "openFor": "1m" } });
    let scene = Scene::set_with(&["--zone", "eu-1"], &[], endpoints).await;
    for _ in 0..20 {
        assert_eq!(scene.get("/flaky").await.status, StatusCode::OK);
    }
    assert_eq!((near.calls(), far.calls()), (20, 0));
    near.fail(500, 0);
    crate::support::eventually(crate::support::SOON, "the far one is called", async || {
        let status = scene.get("/flaky").await.status;
        if far.calls() > 0 { Ok(()) } else { Err(status) }
    })
    .await;
}
