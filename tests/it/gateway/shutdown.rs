//! A gateway that is asked to end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, routing::get};
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::external_api::Scene;
use crate::support::{SOON, eventually};

/// As many as share one connection of HTTP/2.
const CALLS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_under_way_over_http_2_are_answered_before_it_ends() {
    // It answers when it is told to.
    let (tell, told) = watch::channel(false);
    let arrived = Arc::<AtomicUsize>::default();
    let arriving = Arc::clone(&arrived);
    let answer = move || {
        let mut told = told.clone();
        arriving.fetch_add(1, SeqCst);
        async move {
            let _ = told.wait_for(|told| *told).await;
            "late, and still"
        }
    };
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let backend =
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(get(answer))).await });
    let mut scene = Scene::set(&[url], json!({ "timeout": "20s" })).await;

    let mut client = Client::builder(TokioExecutor::new());
    let client: Client<_, Full<Bytes>> = client.timer(TokioTimer::new()).http2_only(true).build_http();
    let call = || {
        let uri = format!("http://{}{}", scene.gateway.address, scene.path("/"));
        let request = Request::builder().uri(uri).header("authorization", format!("Bearer {}", scene.token));
        let sent = client.request(request.body(Full::default()).expect("a request"));
        async move {
            let answer = sent.await.expect("an answer");
            (answer.status(), answer.into_body().collect().await.expect("the whole of it").to_bytes())
        }
    };
    let calls = tokio::spawn(join_all((0..CALLS).map(|_| call())));
    eventually(SOON, "all are under way", async || match arrived.load(SeqCst) {
        CALLS => Ok(()),
        some => Err(some),
    })
    .await;
    scene.gateway.operator.signal("TERM");
    eventually(SOON, "nobody else is let in", async || {
        match TcpStream::connect(scene.gateway.address).await {
            Ok(_) => Err("connected"),
            Err(_) => Ok(()),
        }
    })
    .await;
    tell.send(true).expect("somebody waits");
    for (status, body) in calls.await.expect("answers") {
        assert_eq!((status, body.as_ref()), (StatusCode::OK, &b"late, and still"[..]));
    }
    assert!(scene.gateway.operator.ended_within(SOON), "it ends when there is nothing left to do");
    backend.abort();
}
