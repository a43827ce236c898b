//! APIs as they are in the world, through the gateway: references, encoded slashes, streams and WebSockets.

use std::process::Command;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::external_api::{Backend, Scene};
use crate::{http_api::nginx, support::ApiServer};

/// The nginx that all tests share, at `/v2`.
fn url() -> String {
    format!("{}/v2", nginx().0.replace("localhost", "127.0.0.1"))
}

#[tokio::test]
async fn references_into_the_api_lead_through_the_gateway() {
    let scene = Scene::set(&[url()], json!({})).await;
    let own = scene.path("/items/7");
    let outside = url().replace("/v2", "/login");
    let rows = [
        ("/moved", "location", own.clone()),
        ("/created", "location", own.clone()),
        ("/created", "content-location", format!("{own}?a=b")),
        ("/login", "location", outside),
        ("/elsewhere", "location", "https://login.example.com/v2/items".to_owned()),
    ];
    for (path, header, expected) in rows {
        assert_eq!(scene.get(path).await.headers[header], expected, "{path}");
    }
    assert_eq!(scene.get("/items/7").await.status, StatusCode::OK, "it is one that the gateway knows");
}

#[tokio::test]
async fn an_encoded_slash_is_forwarded_where_the_spec_says_so() {
    let entry = |path: &str, more: Value| {
        let mut entry = json!({ "methods": ["GET"], "pathPrefix": path });
        entry.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        entry
    };
    let slashes = json!({ "encodedSlashes": true });
    let allow =
        [entry("/api/queues", slashes.clone()), entry("/api", json!({})), entry("/projects", slashes)];
    let scene = Scene::set(&[nginx().0.replace("localhost", "127.0.0.1")], json!({ "allow": allow })).await;
    for path in ["/api/queues/%2F/jobs", "/api/queues/%2f/jobs", "/projects/group%2Fname/issues?a=%2F"] {
        let asked = scene.get(path).await;
        let sent = path.replace("%2f", "%2F");
        assert_eq!(asked.status, StatusCode::OK, "{path}: {asked:?}");
        assert!(asked.text().contains(&format!(" {sent} ")), "{path}: {}", asked.text());
    }
    let refused = scene.get("/api/vhosts/%2F").await;
    assert_eq!(refused.problem(), (400, "bad-request".to_owned()));
    let text = "contains an encoded slash (%2F), which needs encodedSlashes in spec.allow";
    assert!(refused.text().contains(text), "{}", refused.text());
    for path in ["/projects/a%2F..%2F..%2Fadmin", "/projects/%2F../x", "/projects%2F..%2Fapi", "/other%2Fa"] {
        assert!([400, 403].contains(&scene.get(path).await.problem().0), "{path}");
    }
}

#[tokio::test]
async fn a_download_may_take_longer_than_the_time_out_of_its_head() {
    let scene = Scene::set(&[nginx().0.replace("localhost", "127.0.0.1")], json!({ "timeout": "1s" })).await;
    let answer = scene.get("/drip").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 96 * 1024));
}

#[tokio::test]
async fn a_response_that_pauses_for_too_long_is_cut_off_and_no_failure_of_the_api() {
    let backend = Backend::start().await;
    let breaker = json!({
        "failureThreshold": 1, "minRequests": 1, "window": "1m", "openFor": "1m", "halfOpenRequests": 1,
    });
    let more = json!({ "timeout": "10s", "idleTimeout": "1s", "circuitBreaker": breaker });
    let scene = Scene::set(&[backend.url()], more).await;
    for _ in 0..3 {
        let cut = scene.get("/paused").await;
        assert_eq!(cut.status, StatusCode::OK, "{cut:?}");
        assert!(cut.body.is_empty(), "what broke off has no body for this client: {cut:?}");
    }
    assert_eq!(scene.get("/ok").await.status, StatusCode::OK, "the circuit is closed");
}

#[tokio::test]
async fn a_method_that_a_route_does_not_have_is_told_with_those_that_it_has() {
    let scene = Scene::set(&[url()], json!({})).await;
    let namespace = &scene.namespace.name;
    let rows = [
        (Method::GET, format!("/v1/databases/{namespace}/orders/queries/by-id"), "POST"),
        (Method::POST, format!("/v1/discovery/{namespace}/billing"), "GET,HEAD"),
        (Method::DELETE, "/openapi.json".to_owned(), "GET,HEAD"),
    ];
    for (method, path, allowed) in rows {
        let answer = scene.gateway.call(method, &path, &scene.token, "").await;
        assert_eq!(answer.problem(), (405, "method-not-allowed".to_owned()), "{path}");
        assert_eq!(answer.headers["allow"], allowed, "{path}");
    }
}

/// A client that says what it sees; a real one, from Debian.
const CLIENT: &str = r#"
import asyncio, sys, websockets

async def main(url, token, *messages):
    headers = {"Authorization": f"Bearer {token}", "Cookie": "session=1"}
    try:
        async with websockets.connect(url, extra_headers=headers, subprotocols=["v1.billing"], ping_interval=None) as socket:
            print(socket.subprotocol)
            for message in messages:
                await socket.send(message)
                print(await socket.recv())
            print(await asyncio.wait_for(socket.recv(), 60) if "wait" in messages else "done")
    except websockets.exceptions.InvalidStatusCode as error:
        print(error.status_code)
    except websockets.exceptions.ConnectionClosed as error:
        print("closed")

asyncio.run(main(*sys.argv[1:]))
"#;

async fn talk(scene: &Scene, path: &str, messages: &[&str]) -> Vec<String> {
    let mut client = Command::new("/usr/bin/python3");
    client.args(["-c", CLIENT]).arg(format!("ws://{}{}", scene.gateway.address, scene.path(path)));
    client.arg(&scene.token).args(messages);
    let output =
        tokio::task::spawn_blocking(move || client.output().expect("Python")).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_websocket_is_passed_on_where_the_spec_says_so() {
    let server = ApiServer::start("websocket");
    let upstream = server.port.to_string();
    // In front of it an nginx with TLS that prefers HTTP/2, which has no upgrades.
    let proxy = ApiServer::start_with("nginx", &[("UPSTREAM", &upstream)]);
    let allow = json!([
        { "methods": ["GET"], "pathPrefix": "/", "webSocket": true },
        { "methods": ["POST"], "pathPrefix": "/plain" },
    ]);
    let more = [json!({ "allow": allow }), json!({ "allow": allow, "tls": { "caRef": { "name": "ca" } } })];
    let urls = [format!("http://127.0.0.1:{upstream}"), format!("https://127.0.0.1:{}/ws", proxy.port + 1)];
    for (url, more) in urls.into_iter().zip(more) {
        let scene = Scene::set(std::slice::from_ref(&url), more).await;
        let said = talk(&scene, "/a?b=c", &["hello", "headers"]).await;
        assert_eq!(said[..2], ["v1.billing", "hello"], "{url}: {said:?}");
        assert!(!said[2].contains("Bearer") && !said[2].contains("session"), "{url}: {said:?}");
        assert_eq!(said[3], "done");
        scene.gateway.operator.logged(&[r#""status":101"#, r#""attempts":1"#]).await;
    }
}

#[tokio::test]
async fn a_websocket_is_refused_with_words_where_the_spec_does_not_allow_it() {
    let server = ApiServer::start("websocket");
    let scene = Scene::set(&[format!("http://127.0.0.1:{}", server.port)], json!({})).await;
    assert_eq!(talk(&scene, "/", &["hello"]).await, ["403"]);
    let bearer = format!("Bearer {}", scene.token);
    let headers = [("authorization", bearer.as_str()), ("connection", "Upgrade"), ("upgrade", "websocket")];
    let refused = scene.gateway.send(Method::GET, &scene.path("/"), &headers, "").await;
    assert_eq!(refused.problem(), (403, "call-not-allowed".to_owned()));
    assert!(refused.text().contains("opens a WebSocket, which needs webSocket in spec.allow"), "{refused:?}");
}

#[tokio::test]
async fn a_websocket_on_which_nobody_speaks_is_closed_and_so_is_each_at_the_end() {
    let server = ApiServer::start("websocket");
    let allow = json!([{ "methods": ["GET"], "pathPrefix": "/", "webSocket": true }]);
    let url = [format!("http://127.0.0.1:{}", server.port)];
    let scene = Scene::set(&url, json!({ "allow": allow, "idleTimeout": "1s" })).await;
    assert_eq!(talk(&scene, "/", &["hello", "wait"]).await, ["v1.billing", "hello", "wait", "closed"]);
    let scene = Scene::set(&url, json!({ "allow": allow, "idleTimeout": "10m" })).await;
    let stop = async {
        scene.gateway.operator.logged(&[r#""status":101"#]).await;
        scene.gateway.operator.signal("TERM");
    };
    let (said, ()) = tokio::join!(talk(&scene, "/", &["hello", "wait"]), stop);
    assert_eq!(said.last().map(String::as_str), Some("closed"), "{said:?}");
}
