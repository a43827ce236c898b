//! HTTP itself: its versions, and bodies that are streamed.

use std::{collections::BTreeSet, error::Error};

use authlink::backends::{external_api::EndpointSettings, http::Body};
use axum::{Router, body::Body as ServerBody, extract::Request as ServerRequest, response::Response};
use futures::{SinkExt, StreamExt, channel::mpsc, future::join_all};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request,
    body::{Bytes, Frame},
};
use tokio::{net::TcpListener, time::Instant};

use super::{PATIENCE, get, nginx, service, settings, text};

#[tokio::test]
async fn http_2_is_spoken_where_tls_offers_it_and_else_http_1_1() {
    let (plain, encrypted) = nginx();
    for (url, version) in [(&plain, "HTTP/1.1"), (&encrypted, "HTTP/2.0")] {
        let service = service(settings(url));
        let answer = text(get(&service, "/a?b=c").await.unwrap()).await;
        assert_eq!(answer, format!("{version} GET /a?b=c {}\n", url.split_once("://").unwrap().1));
        let facts = service.probe().await.unwrap();
        assert_eq!(facts.http2, version == "HTTP/2.0");
        assert_eq!(facts.not_after.is_some(), url == &encrypted);
    }
}

#[tokio::test]
async fn many_calls_at_once_all_get_their_own_answer() {
    let (plain, encrypted) = nginx();
    for url in [plain, encrypted] {
        let service = service(settings(&url));
        let paths: Vec<_> = (0..300).map(|number| format!("/{number}")).collect();
        let answers =
            join_all(paths.iter().map(async |path| text(get(&service, path).await.unwrap()).await)).await;
        for (path, answer) in paths.iter().zip(answers) {
            assert!(answer.contains(&format!(" {path} ")), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn of_many_calls_at_once_one_connects_where_http_2_is_spoken() {
    let (plain, encrypted) = nginx();
    for (url, connections) in [(plain, 2..=50), (encrypted, 1..=1)] {
        let service = service(settings(&url));
        let numbers = (0..50).map(async |_| text(get(&service, "/number").await.unwrap()).await);
        let numbers: BTreeSet<_> = join_all(numbers).await.into_iter().collect();
        assert!(connections.contains(&numbers.len()), "{url}: {} connections", numbers.len());
    }
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
    let service = service(echo().await);
    let (mut sender, body) = streamed();
    let call = service.call(Request::post("/").body(body).unwrap(), Instant::now() + PATIENCE);
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
    let service = service(settings(&api.url));
    let (mut sender, body) = streamed();
    let call = service.call(Request::post("/").body(body).unwrap(), Instant::now() + PATIENCE);
    let feed = async {
        sender.send(Ok(Frame::data("one".into()))).await.unwrap();
        let gone = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the caller went away");
        sender.send(Err(gone.into())).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(call, feed);
    assert_eq!(outcome.unwrap_err().fault.reason, authlink::api::Reason::CallerAborted);
}
