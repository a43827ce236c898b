//! Calls of an API that fails: tried again, given up, kept away from it.

use std::{
    io::{Read, Write},
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::external_api::{Backend, Scene};
use crate::{
    http_api::nginx,
    support::{SOON, dns::Dns, eventually, hostile},
};

#[tokio::test]
async fn failures_are_tried_again_where_that_is_safe() {
    let backend = Backend::start().await;
    let retry = json!({ "retry": { "attempts": 3, "on": ["5xx", "429", "connect-failure"], "backoff": { "initial": "1ms", "max": "2ms" } } });
    let scene = Scene::set(&[backend.url()], retry.clone()).await;
    backend.fail(503, 2);
    assert_eq!(scene.get("/flaky").await.status, StatusCode::OK);
    assert_eq!(backend.calls(), 3);
    backend.fail(503, 0);
    assert_eq!(scene.get("/flaky").await.status, StatusCode::SERVICE_UNAVAILABLE, "the answer is passed on");
    assert_eq!(backend.calls(), 3);
    assert_eq!(scene.call(Method::POST, "/flaky").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(backend.calls(), 1, "a POST may have had its effect");
    let bearer = format!("Bearer {}", scene.token);
    let keyed = [("authorization", bearer.as_str()), ("idempotency-key", "7")];
    scene.gateway.send(Method::POST, &scene.path("/flaky"), &keyed, "").await;
    assert_eq!(backend.calls(), 3, "with a key the server knows that it is the same");
    scene.gateway.send(Method::PUT, &scene.path("/flaky"), &keyed, "a body").await;
    assert_eq!(backend.calls(), 1, "a body that was streamed is gone");
    backend.fail(429, 1);
    let started = std::time::Instant::now();
    assert_eq!(scene.get("/flaky").await.status, StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After is waited for");
    backend.calls();

    // A dead endpoint costs nothing but another attempt, a body included: nobody had begun to read it.
    let dead = format!("http://127.0.0.1:{}/v2", crate::support::free_port());
    scene.change(&[dead, backend.url()], retry).await;
    for _ in 0..8 {
        let answer = scene.gateway.call(Method::POST, &scene.path("/echo"), &scene.token, "a body").await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "a body"));
    }
}

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_an_attempt_and_not_the_call() {
    let backend = Backend::start().await;
    // Connections come about, by the backlog, and nobody takes them.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent = (format!("http://{}/v2", silent.local_addr().expect("an address")), silent);
    let retry = json!({ "timeout": "6s", "retry": { "attempts": 2, "on": ["timeout"], "backoff": { "initial": "1ms", "max": "1ms" } } });
    let scene = Scene::set(&[silent.0, backend.url()], retry).await;
    let calls = futures::future::join_all((0..16).map(|_| scene.get("/ok"))).await;
    assert!(calls.iter().all(|answer| answer.status == StatusCode::OK), "{calls:?}");
    silent.1.set_nonblocking(true).expect("a listener");
    silent.1.accept().expect("it was called");
}

#[tokio::test]
async fn an_endpoint_that_fails_at_once_draws_no_calls_from_one_that_works() {
    for status in [503, 429] {
        let (failing, works) = (Backend::start().await, Backend::start().await);
        failing.fail(status, 0);
        let urls = [failing.url(), format!("{}/late", works.url())];
        let scene = Scene::set(&urls, json!({})).await;
        let mut well = 0;
        for _ in 0..100 {
            well += u32::from(scene.get("/flaky").await.status == StatusCode::OK);
        }
        assert_eq!((well + failing.calls(), works.calls()), (100, well));
        assert!(well > 80, "{well} of 100, beside {status}");
    }
}

#[tokio::test]
async fn that_no_dns_server_answers_is_told_before_a_call_has_no_time_left() {
    let dns = Dns::start().await;
    dns.be_silent();
    // Four names, so that the resolver is more patient than half of a call.
    let search = "search a.test b.test c.test\noptions timeout:5 attempts:2";
    let resolv_conf = dns.resolv_conf_with(search);
    let flags = ["--resolv-conf", resolv_conf.to_str().expect("a path")];
    let urls = ["https://silent.test".to_owned()];
    let scene = Scene::set_with(&flags, &urls, json!({})).await;
    let told = async || {
        // Those that wait for another one's connection too.
        let calls = futures::future::join_all((0..3).map(|_| scene.get("/"))).await;
        for answer in calls {
            assert_eq!(answer.problem(), (502, "upstream-failed".to_owned()));
            let text = answer.text();
            assert!(
                text.contains("DnsFailed: DNS lookup of silent.test failed: no server responded"),
                "{text}"
            );
        }
    };
    told().await;
    scene.change(&urls, json!({ "retry": { "attempts": 2, "on": ["timeout"] } })).await;
    told().await;
}

#[tokio::test]
async fn a_circuit_opens_half_opens_and_closes() {
    let backend = Backend::start().await;
    let breaker = json!({ "circuitBreaker": {
        "failureThreshold": 50, "minRequests": 4, "window": "10s", "openFor": "2s", "halfOpenRequests": 1,
    } });
    let scene = Scene::set(&[backend.url()], breaker).await;
    backend.fail(500, 0);
    for _ in 0..4 {
        assert_eq!(scene.get("/flaky").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let refused = scene.get("/flaky").await;
    assert_eq!(refused.problem(), (503, "circuit-open".to_owned()));
    assert_eq!(refused.headers["retry-after"], "2");
    assert_eq!(backend.calls(), 4, "an open circuit calls nobody");
    backend.fail(0, 0);
    eventually(SOON, "the circuit closes", async || match scene.get("/flaky").await.status {
        StatusCode::OK => Ok(()),
        status => Err(status),
    })
    .await;
    for _ in 0..8 {
        assert_eq!(scene.get("/flaky").await.status, StatusCode::OK);
    }
    let turns = [r#""circuit":"Open""#, r#""circuit":"HalfOpen""#, r#""circuit":"Closed""#];
    scene.gateway.operator.logged(&turns).await;
}

#[tokio::test]
async fn an_api_that_fails_half_of_the_time_is_hidden_by_retries_within_their_budget_and_opens_its_circuit() {
    let backend = Backend::start().await;
    let retry = |percent: u32| {
        json!({ "retry": {
            "attempts": 2, "on": ["5xx"], "backoff": { "initial": "1ms", "max": "1ms" }, "budgetPercent": percent,
        } })
    };
    let scene = Scene::set(&[backend.url()], retry(100)).await;
    // How many of so many calls, one after the other, the caller saw fail.
    let failed = async |calls: u32| {
        let mut failed = 0;
        for _ in 0..calls {
            let answer = scene.get("/half").await;
            assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status), "{answer:?}");
            failed += u32::from(answer.status != StatusCode::OK);
        }
        failed
    };
    assert_eq!((failed(250).await, backend.calls()), (0, 500), "each failure is tried again");

    // Ten retries a second are free; beyond them the budget has none, and the caller gets the API's own answer.
    scene.change(&[backend.url()], retry(0)).await;
    let failed_anyway = failed(250).await;
    let retries = backend.calls() - 250;
    assert!((100..250).contains(&retries), "{retries}");
    assert!(failed_anyway > 0, "{retries} retries");

    let breaker = |threshold: u32| json!({ "circuitBreaker": { "failureThreshold": threshold, "minRequests": 10, "window": "1m", "openFor": "1m" } });
    scene.change(&[backend.url()], breaker(60)).await;
    assert_eq!((failed(40).await, backend.calls()), (20, 40), "half are fewer than 60 %");
    scene.change(&[backend.url()], breaker(50)).await;
    assert_eq!((failed(10).await, backend.calls()), (5, 10));
    assert_eq!(scene.get("/half").await.problem(), (503, "circuit-open".to_owned()));
    assert_eq!(backend.calls(), 0, "an open circuit calls nobody");
}

#[tokio::test]
async fn what_a_caller_does_to_its_own_request_opens_no_circuit() {
    let tls = json!({ "tls": { "caRef": { "name": "ca" } }, "circuitBreaker": { "minRequests": 5 } });
    let scene = Scene::set(&[nginx().1.replace("localhost", "127.0.0.1")], tls).await;
    let (path, token) = (scene.path("/upload"), &scene.token);
    let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n");
    for _ in 0..10 {
        let mut caller = TcpStream::connect(scene.gateway.address).await.expect("a connection");
        let broken = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nno chunk\r\n");
        caller.write_all(broken.as_bytes()).await.expect("it is taken");
        let mut said = Vec::new();
        let _ = tokio::time::timeout(SOON, caller.read_to_end(&mut said)).await.expect("an end");
    }
    let answer = scene.get("/").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.text().starts_with("HTTP/2.0 GET"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_an_http2_server_ends_after_many_requests_costs_no_call() {
    let tls = json!({ "tls": { "caRef": { "name": "ca" } } });
    let scene = Scene::set(&[nginx().1.replace("localhost", "127.0.0.1")], tls).await;
    // nginx ends a connection after 1,000 requests (keepalive_requests).
    let callers = (0..8).map(async |_| {
        for _ in 0..300 {
            let answer = scene.get("/").await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
    });
    futures::future::join_all(callers).await;
}

#[tokio::test]
async fn a_connection_that_a_server_closes_while_a_request_is_on_its_way_costs_no_call() {
    an_end_of_a_connection_costs_no_call(4096).await;
}

#[tokio::test]
async fn a_connection_that_a_server_resets_while_a_request_is_on_its_way_costs_no_call() {
    // What is closed with something left to read is reset.
    an_end_of_a_connection_costs_no_call(1).await;
}

/// The server reads so many bytes of the second request, and closes the connection.
async fn an_end_of_a_connection_costs_no_call(bytes: usize) {
    // A fake: no real server can be made to do it at just that moment.
    let port = hostile::serve(move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = stream.read(&mut request[..bytes]);
    });
    let scene = Scene::set(&[format!("http://127.0.0.1:{port}")], json!({})).await;
    for _ in 0..4 {
        let answer = scene.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"));
    }
    // What may have had its effect is not repeated.
    assert_eq!(scene.call(Method::POST, "/").await.problem(), (502, "upstream-failed".to_owned()));
}
