//! HTTP itself: its versions, and bodies that are streamed.

use std::{collections::BTreeSet, error::Error};

use authlink::backends::{
    external_api::{EndpointSettings, HttpEndpoint},
    http::{AnswerBody, Body},
};
use axum::{Router, body::Body as ServerBody, extract::Request as ServerRequest};
use futures::{SinkExt, StreamExt, channel::mpsc, future::join_all};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
};
use tokio::{net::TcpListener, time::Instant};

use super::{TIMEOUT, endpoint, get, nginx, settings, text};
use crate::support::ApiServer;

#[tokio::test]
async fn http_2_is_spoken_where_tls_offers_it_and_else_http_1_1() {
    let (plain, encrypted) = nginx();
    for (url, version) in [(&plain, "HTTP/1.1"), (&encrypted, "HTTP/2.0")] {
        let endpoint = endpoint(settings(url));
        let answer = text(get(&endpoint, "/a?b=c").await.unwrap()).await;
        assert_eq!(answer, format!("{version} GET /a?b=c {}\n", url.split_once("://").unwrap().1));
        let facts = endpoint.probe().await.unwrap();
        assert_eq!(facts.http2, version == "HTTP/2.0");
        assert_eq!(facts.not_after.is_some(), url == &encrypted);
    }
}

#[tokio::test]
async fn many_calls_at_once_all_get_their_own_answer() {
    let (plain, encrypted) = nginx();
    for url in [plain, encrypted] {
        let endpoint = endpoint(settings(&url));
        let paths: Vec<_> = (0..300).map(|number| format!("/{number}")).collect();
        let answers =
            join_all(paths.iter().map(async |path| text(get(&endpoint, path).await.unwrap()).await)).await;
        for (path, answer) in paths.iter().zip(answers) {
            assert!(answer.contains(&format!(" {path} ")), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn of_many_calls_at_once_one_connects_where_http_2_is_spoken() {
    let (plain, encrypted) = nginx();
    for (url, connections) in [(plain, 2..=50), (encrypted, 1..=1)] {
        let endpoint = endpoint(settings(&url));
        let numbers = (0..50).map(async |_| text(get(&endpoint, "/number").await.unwrap()).await);
        let numbers: BTreeSet<_> = join_all(numbers).await.into_iter().collect();
        assert!(connections.contains(&numbers.len()), "{url}: {} connections", numbers.len());
    }
}

/// Responses whose bodies nobody reads, so that their streams stay open.
async fn unread(url: &str, number: usize) -> (HttpEndpoint, Vec<Response<AnswerBody>>) {
    let endpoint = endpoint(settings(url));
    let responses = join_all((0..number).map(|_| get(&endpoint, "/big"))).await;
    let responses = responses.into_iter().map(|response| response.expect("a head")).collect();
    (endpoint, responses)
}

#[tokio::test]
async fn where_a_server_allows_few_streams_there_are_more_connections() {
    let nginx = ApiServer::start_with("nginx", &[("STREAMS", "4")]);
    let (endpoint, responses) = unread(&format!("https://localhost:{}", nginx.port + 1), 12).await;
    let number = text(get(&endpoint, "/number").await.unwrap()).await;
    drop(responses);
    // What is free again is used again.
    let numbers = (0..4).map(async |_| text(get(&endpoint, "/number").await.unwrap()).await);
    let numbers: BTreeSet<_> = join_all(numbers).await.into_iter().collect();
    assert_eq!(numbers.len(), 1, "{numbers:?}, and before {number}");
}

#[tokio::test]
async fn callers_that_do_not_read_hold_up_no_other_call_on_the_connection() {
    let (endpoint, responses) = unread(&nginx().1, 20).await;
    assert!(text(get(&endpoint, "/a").await.unwrap()).await.contains(" /a "));
    assert_eq!(responses.len(), 20);
}

/// A server that sends back what it gets, as it gets it.
async fn echo() -> EndpointSettings {
    let app = Router::new()
        .fallback(async |request: ServerRequest| Response::new(ServerBody::new(request.into_body())));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let settings = settings(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    settings
}

type Part = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

/// A body that is sent part by part.
fn streamed() -> (mpsc::Sender<Part>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::streamed(StreamBody::new(receiver.boxed())))
}

#[tokio::test]
async fn each_part_of_a_body_is_passed_on_before_the_next_one_exists() {
    let endpoint = endpoint(echo().await);
    let (mut sender, body) = streamed();
    let call = endpoint.call(Request::post("/").body(body).unwrap(), Instant::now() + TIMEOUT);
    let mut answer = call.await.unwrap();
    for part in ["one", "two", "three"] {
        sender.send(Ok(Frame::data(part.into()))).await.unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(sender);
    assert!(answer.frame().await.is_none());
}

#[tokio::test]
async fn a_caller_that_breaks_off_is_not_taken_for_a_broken_server() {
    let api = super::api::Api::start(|_| Response::default()).await;
    let endpoint = endpoint(settings(&api.url));
    let (mut sender, body) = streamed();
    let call = endpoint.call(Request::post("/").body(body).unwrap(), Instant::now() + TIMEOUT);
    let feed = async {
        sender.send(Ok(Frame::data("one".into()))).await.unwrap();
        let gone = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the caller went away");
        sender.send(Err(gone.into())).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(call, feed);
    assert_eq!(outcome.unwrap_err().fault.reason, authlink::api::Reason::CallerAborted);
}
