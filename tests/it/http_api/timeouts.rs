//! A timeout says in which stage it happened: to a user, a name server, a firewall, a server without TLS and a slow API are four
//! different things to look at.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use authlink::{
    api::Reason,
    backends::external_api::{EndpointSettings, HttpEndpoint},
};
use futures::FutureExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{settings, unrestricted};
use crate::support::hostile;

const SHORT: Duration = Duration::from_millis(500);

/// A port that accepts no more connections, as behind a firewall that drops packets.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(queued) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queue.push(queued.unwrap());
    }
    (listener, queue)
}

/// Sends a head, and no body. It waits for the request: a client refuses a response that comes before it.
fn headed() -> u16 {
    hostile::serve(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
        std::mem::forget(stream);
    })
}

#[tokio::test]
async fn a_timeout_names_its_stage() {
    let (listener, _queue) = full().await;
    let silent = hostile::silent_server();
    let rows = [
        ("https://slow.example".to_owned(), Reason::DnsFailed, "DNS lookup of slow.example failed"),
        (
            format!("http://{}", listener.local_addr().unwrap()),
            Reason::Timeout,
            "the TCP connection timed out",
        ),
        (format!("https://127.0.0.1:{silent}"), Reason::Timeout, "the TLS handshake timed out"),
        (format!("http://127.0.0.1:{silent}"), Reason::Timeout, "waiting for the response timed out"),
        (format!("http://127.0.0.1:{}", headed()), Reason::Timeout, "reading the response body timed out"),
    ];
    for (url, reason, text) in rows {
        // The resolver is a fake that never answers: a real one gives up by itself, later.
        let egress = unrestricted().with_resolver(Arc::new(|_| std::future::pending().boxed()));
        let settings = EndpointSettings { timeout: SHORT, ..settings(&url) };
        let fault = HttpEndpoint::new(settings, &egress).unwrap().probe().await.unwrap_err();
        assert_eq!(fault.reason, reason, "{url}: {fault}");
        assert!(fault.detail.starts_with(text), "{url}: {fault}");
    }
}
