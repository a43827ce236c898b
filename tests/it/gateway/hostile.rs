//! APIs that do what no honest one does. Fakes, since no real server can be made to.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use authlink::api::v1alpha1::ExternalApi;
use hyper::StatusCode;
use serde_json::json;

use super::external_api::{ALLOWED, api};
use crate::support::{Namespace, dns::Dns, free_port, gateway::Gateway, hostile};

/// Reads a request's head, and then does as it is told.
fn server(then: impl Fn(&mut TcpStream) + Send + 'static) -> String {
    let port = hostile::serve(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
        then(&mut stream);
    });
    format!("http://127.0.0.1:{port}")
}

fn says(answer: &'static str) -> String {
    server(move |stream| drop(stream.write_all(answer.as_bytes())))
}

#[tokio::test]
async fn each_kind_of_hostility_ends_in_its_own_answer_and_in_time() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let hangs = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        std::thread::sleep(Duration::from_secs(20));
    });
    let drips = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        for _ in 0..5 {
            let _ = stream.write_all(b"x");
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(20));
    });
    let rows = [
        ("refuses", format!("http://127.0.0.1:{}", free_port()), Err("upstream-failed")),
        ("hangs", hangs, Err("upstream-timeout")),
        ("closes", server(|_| ()), Err("upstream-failed")),
        ("babbles", says("SSH-2.0-OpenSSH_9\r\n"), Err("upstream-failed")),
        ("drips", drips, Ok(StatusCode::OK)),
        // Neither is followed.
        (
            "redirects",
            says("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"),
            Ok(StatusCode::FOUND),
        ),
    ];
    for (name, url, wanted) in rows {
        namespace
            .apply::<ExternalApi>(api(name, &[url], json!({ "timeout": "2s", "idleTimeout": "2s" })))
            .await;
        namespace.expect_of::<ExternalApi>(name, &[("Ready", "True", "Available")]).await;
        let started = std::time::Instant::now();
        let answer = gateway.get(&format!("/v1/apis/{}/{name}/x", namespace.name), &token).await;
        match wanted {
            Ok(status) => assert_eq!(answer.status, status, "{name}"),
            Err(kind) => assert_eq!(answer.problem().1, kind, "{name}"),
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{name}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_comes_as_far_as_it_came() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let url = says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    namespace.apply::<ExternalApi>(api("breaks", &[url], json!({}))).await;
    namespace.expect_of::<ExternalApi>("breaks", &[("Ready", "True", "Available")]).await;
    // Many times, since the end sometimes arrives together with what came before it.
    for _ in 0..200 {
        let answer = gateway.get(&format!("/v1/apis/{}/breaks/x", namespace.name), &token).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-length"], "100");
    }
}

#[tokio::test]
async fn a_name_that_comes_to_mean_a_forbidden_address_is_not_called() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    let resolv_conf = dns.resolv_conf();
    let flags = ["--resolv-conf", resolv_conf.to_str().unwrap(), "--egress-allow-cidrs", "10.99.0.0/24"];
    let gateway = Gateway::start(&namespace, &flags).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = axum::Router::new().fallback(|| async { ([("connection", "close")], "inside") });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    dns.answer(&["10.99.0.1"]);
    let url = format!("http://rebind.test:{port}");
    namespace.apply::<ExternalApi>(api("rebind", &[url], json!({ "timeout": "5s" }))).await;
    namespace.expect_of::<ExternalApi>("rebind", &[("Ready", "True", "Available")]).await;
    let path = format!("/v1/apis/{}/rebind/x", namespace.name);
    assert_eq!(gateway.get(&path, &token).await.text(), "inside");
    for address in ["127.0.0.1", "169.254.169.254", "10.1.2.3"] {
        dns.answer(&[address]);
        crate::support::eventually(crate::support::SOON, address, async || {
            let answer = gateway.get(&path, &token).await;
            if answer.text().contains("AddressDenied") && answer.text().contains(address) {
                assert_eq!(answer.problem(), (502, "upstream-failed".to_owned()));
                return Ok(());
            }
            Err(answer.text()) // until the time to live of the answer before is over
        })
        .await;
    }
}
