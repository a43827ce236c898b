//! What callers do to the connection, and not to the request: by hand, since no client does it.

use std::time::Duration;

use h2::{RecvStream, client::SendRequest};
use hyper::{Request, Response, StatusCode, body::Bytes};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::external_api::{Backend, Scene};
use crate::support::{SOON, eventually};

/// Longer than a gateway waits for the head of a request, and for another call over a connection of HTTP/2.
const SILENCE: Duration = Duration::from_secs(90);

async fn connect(scene: &Scene, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(scene.gateway.address).await.expect("a connection");
    stream.write_all(sent.as_bytes()).await.expect("it is taken");
    stream
}

/// The head of a request, with these headers.
fn head(scene: &Scene, path: &str, headers: &str) -> String {
    let (path, token) = (scene.path(path), &scene.token);
    format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n{headers}\r\n")
}

/// A connection of HTTP/2 that lets the gateway send so many bytes of each answer, until it ends.
async fn http2(scene: &Scene, window: u32) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(scene.gateway.address).await.expect("a connection");
    let handshake = h2::client::Builder::new().initial_window_size(window).handshake(stream);
    let (client, connection) = handshake.await.expect("HTTP/2");
    (client, tokio::spawn(connection))
}

async fn ask(client: &mut SendRequest<Bytes>, scene: &Scene, path: &str) -> Response<RecvStream> {
    let request = Request::get(format!("http://gateway{}", scene.path(path)))
        .header("authorization", format!("Bearer {}", scene.token));
    let (answer, _) = client.send_request(request.body(()).expect("a request"), true).expect("it is sent");
    answer.await.expect("a head")
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_leaves_its_line_and_is_counted() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({})).await;
    let stream = connect(&scene, &head(&scene, "/slow", "x-request-id: left-alone\r\n")).await;
    eventually(SOON, "the API is asked", async || match backend.calls() {
        1 => Ok(()),
        calls => Err(calls),
    })
    .await;
    drop(stream);
    let line =
        [r#""request_id":"left-alone""#, r#""status":499"#, r#""problem":"caller-gone""#, r#""attempts":1"#];
    scene.gateway.operator.logged(&line).await;
    let labels = "name=\"billing\",operation=\"GET\",code=\"499\"";
    let counted = scene.gateway.operator.metric("authlink_gateway_request_duration_seconds_count", labels);
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed_whatever_it_speaks() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({})).await;
    // With an empty SETTINGS frame: length 0, type 4, no flags, stream 0.
    let settings = "\0\0\0\x04\0\0\0\0\0";
    let http2 = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{settings}");
    let closed = ["", "PRI * HT", "GET / HTTP/1.1\r\nhost:", &http2].map(async |sent| {
        let mut stream = connect(&scene, sent).await;
        let mut said = Vec::new();
        // Closed by an end or a reset.
        let ended = timeout(SILENCE, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{sent:?} was answered by {said:?}, and the connection is open");
    });
    futures::future::join_all(closed).await;
    assert!(scene.get("/ok").await.status.is_success());
}

#[tokio::test]
async fn the_body_of_a_get_arrives_whose_length_nobody_has_said() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({})).await;
    let headers = "connection: close\r\ntransfer-encoding: chunked\r\n";
    let mut stream = connect(&scene, &(head(&scene, "/echo", headers) + "5\r\nhello\r\n0\r\n\r\n")).await;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_answer_holds_no_connection_beyond_the_time_out() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({ "timeout": "2s", "idleTimeout": "2s" })).await;
    let mut stream = connect(&scene, &head(&scene, "/endless", "")).await;
    eventually(SOON, "the API answers", async || match backend.endless() {
        1 => Ok(()),
        open => Err(open),
    })
    .await;
    eventually(SOON, "nobody takes the answer", async || match backend.endless() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
    // What was on its way arrives, and then the end that is none.
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && !answer.ends_with(b"0\r\n\r\n"), "{}", answer.len());
}

#[tokio::test]
async fn a_connection_of_http2_is_closed_some_time_after_its_last_call() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({ "timeout": "10m" })).await;
    // First, so that it is also the first one to be looked at.
    let (mut busy, _open) = http2(&scene, 65_535).await;
    let answer = ask(&mut busy, &scene, "/endless").await;
    let (mut idle, closed) = http2(&scene, 65_535).await;
    assert_eq!(ask(&mut idle, &scene, "/ok").await.status(), StatusCode::OK);
    // Neither a token nor a window is needed to hold one open, if anything is.
    let (mut silent, cut) = http2(&scene, 0).await;
    let request = Request::get("http://gateway/v1/apis/default/billing/ok").body(()).expect("a request");
    let (refused, _) = silent.send_request(request, true).expect("it is sent");
    assert_eq!(refused.await.expect("a head").status(), StatusCode::UNAUTHORIZED);
    timeout(SILENCE, closed).await.expect("it is closed").expect("no panic").expect("an orderly end");
    assert_eq!(ask(&mut busy, &scene, "/ok").await.status(), StatusCode::OK, "{answer:?} is under way");
    let _ = timeout(SILENCE, cut).await.expect("it is closed").expect("no panic");
}

#[tokio::test]
async fn a_caller_that_takes_nothing_of_a_short_answer_holds_no_trial_of_a_circuit() {
    let backend = Backend::start().await;
    let breaker = json!({ "circuitBreaker": {
        "failureThreshold": 50, "minRequests": 4, "window": "10s", "openFor": "1s", "halfOpenRequests": 1,
    } });
    let scene = Scene::set(&[backend.url()], breaker).await;
    backend.fail(500, 0);
    for _ in 0..4 {
        assert_eq!(scene.get("/flaky").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    backend.fail(0, 0);
    let (mut client, _connection) = http2(&scene, 0).await;
    // Those that the circuit refuses are dropped: a body that nobody takes keeps its stream open, and of those a connection has
    // a limited number.
    let held = eventually(SOON, "a trial", async || {
        match timeout(SOON, ask(&mut client, &scene, "/flaky")).await.expect("in time") {
            answer if answer.status() == StatusCode::OK => Ok(answer),
            answer => Err(answer.status()),
        }
    })
    .await;
    let answer = scene.get("/flaky").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}, while {held:?}");
}
