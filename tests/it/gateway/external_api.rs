//! Calls of an ExternalApi, within what its spec allows.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use authlink::api::v1alpha1::ExternalApi;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Uri},
    response::IntoResponse,
    routing::{any, get},
};
use futures::StreamExt;
use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::{
    http_api::nginx,
    support::{Namespace, SOON, certificate_secret, eventually, gateway::Gateway, secret},
};

/// The loopback, which nobody may call unless the operator's settings say so.
pub(super) const ALLOWED: [&str; 2] = ["--egress-allow-cidrs", "127.0.0.0/8"];

/// An API that a test can make fail; gone with the value.
pub(crate) struct Backend {
    port: u16,
    pub(super) seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Default)]
pub(super) struct Seen {
    /// Calls of `/flaky`, `/half` and `/slow`.
    calls: AtomicU32,
    /// What `/flaky` is answered by; 0 for 200.
    status: AtomicU16,
    /// So many times, then 200 again; 0 for always.
    times: AtomicU32,
    /// Answers of `/endless` that somebody still takes.
    endless: Arc<AtomicU32>,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let routes = Router::new()
            .route("/v2/ok", any(|| async { "ok" }))
            .route("/v2/echo", any(|body: Body| async { body }))
            .route("/v2/slow", get(slow))
            .route("/v2/flaky", any(flaky))
            .route("/v2/late/flaky", any(late))
            .route("/v2/half", any(half))
            .route("/v2/endless", any(endless))
            .route("/v2/paused", any(paused))
            .fallback(headers)
            .with_state(Arc::clone(&seen));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
        Self { port, seen, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v2", self.port)
    }

    pub(super) fn fail(&self, status: u16, times: u32) {
        self.seen.status.store(status, SeqCst);
        self.seen.times.store(times, SeqCst);
    }

    /// Answers of `/endless` that somebody still takes.
    pub(super) fn endless(&self) -> u32 {
        self.seen.endless.load(SeqCst)
    }

    pub(super) fn calls(&self) -> u32 {
        self.seen.calls.swap(0, SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn slow(State(seen): State<Arc<Seen>>) -> &'static str {
    seen.calls.fetch_add(1, SeqCst);
    tokio::time::sleep(Duration::from_secs(30)).await;
    "late"
}

async fn flaky(State(seen): State<Arc<Seen>>) -> impl IntoResponse {
    seen.calls.fetch_add(1, SeqCst);
    let status = seen.status.load(SeqCst);
    if status != 0 && seen.times.load(SeqCst) == 1 {
        seen.status.store(0, SeqCst);
    }
    let _ = seen.times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [("retry-after", if status == StatusCode::TOO_MANY_REQUESTS { "1" } else { "0" })], "flaky")
}

/// The same, not at once.
async fn late(seen: State<Arc<Seen>>) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(50)).await;
    flaky(seen).await
}

/// Fails every second time.
async fn half(State(seen): State<Arc<Seen>>) -> StatusCode {
    if seen.calls.fetch_add(1, SeqCst).is_multiple_of(2) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

/// Answers for ever, as fast as it is read.
async fn endless(State(seen): State<Arc<Seen>>) -> Body {
    let open = Open(Arc::clone(&seen.endless));
    open.0.fetch_add(1, SeqCst);
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    Body::from_stream(futures::stream::repeat_with(move || {
        let _ = &open;
        Ok::<_, std::convert::Infallible>(chunk.clone())
    }))
}

/// Begins an answer that does not go on.
async fn paused() -> Body {
    let first = futures::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from("first")) });
    Body::from_stream(first.chain(futures::stream::pending()))
}

struct Open(Arc<AtomicU32>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What the API was asked, as JSON.
async fn headers(method: Method, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    let pairs = headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or("?"))));
    let asked = json!({ "method": method.as_str(), "uri": uri.to_string(), "headers": Value::Object(pairs.collect()) });
    ([("set-cookie", "a=b"), ("connection", "x-hop"), ("x-hop", "1"), ("etag", "\"1\"")], Json(asked))
}

/// An ExternalApi that allows everything, with these fields besides.
pub(super) fn api(name: &str, urls: &[String], more: Value) -> Value {
    let endpoints: Vec<_> = urls.iter().map(|url| json!({ "url": url })).collect();
    let mut spec = json!({
        "endpoints": endpoints, "healthCheck": { "type": "None" },
        "allow": [{ "methods": ["GET", "POST", "PUT", "DELETE"], "pathPrefix": "/" }],
    });
    let Value::Object(more) = more else { panic!("fields") };
    spec.as_object_mut().expect("fields").extend(more);
    json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": "ExternalApi", "metadata": { "name": name }, "spec": spec })
}

/// A gateway, an API behind it, and somebody who may call it.
pub(super) struct Scene {
    pub(super) namespace: Namespace,
    pub(super) gateway: Gateway,
    pub(super) token: String,
}

impl Scene {
    pub(super) async fn set(urls: &[String], more: Value) -> Self {
        Self::set_with(&[], urls, more).await
    }

    /// With these flags besides.
    pub(super) async fn set_with(flags: &[&str], urls: &[String], more: Value) -> Self {
        let namespace = Namespace::create().await;
        let gateway = Gateway::start(&namespace, &[&ALLOWED, flags].concat()).await;
        let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
        let scene = Self { namespace, gateway, token };
        scene.change(urls, more).await;
        scene
    }

    pub(super) async fn change(&self, urls: &[String], more: Value) {
        self.namespace.apply::<ExternalApi>(api("billing", urls, more)).await;
        self.namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    }

    pub(super) fn path(&self, path: &str) -> String {
        format!("/v1/apis/{}/billing{path}", self.namespace.name)
    }

    pub(super) async fn call(&self, method: Method, path: &str) -> crate::support::gateway::Answer {
        self.gateway.call(method, &self.path(path), &self.token, "").await
    }

    pub(super) async fn get(&self, path: &str) -> crate::support::gateway::Answer {
        self.call(Method::GET, path).await
    }
}

#[tokio::test]
async fn a_call_carries_the_apis_credential_and_nothing_of_the_callers() {
    let backend = Backend::start().await;
    let auth = json!({
        "type": "BearerAndApiKey",
        "bearer": { "tokenRef": { "name": "keys", "key": "token" } },
        "apiKey": { "header": "X-API-Key", "keyRef": { "name": "keys", "key": "key" } },
    });
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let keys = [("token", "api-token"), ("key", "api-key")];
    namespace.apply::<Secret>(secret("keys", "Opaque", &keys)).await;
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({ "auth": auth }))).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let bearer = format!("Bearer {token}");
    let sent = [
        ("authorization", bearer.as_str()),
        ("cookie", "session=1"),
        ("x-api-key", "mine"),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("accept", "application/json"),
        ("tracestate", "a=b"),
    ];
    let path = format!("/v1/apis/{}/billing/see/7?a=1&b=%2F", namespace.name);
    let answer = gateway.send(Method::GET, &path, &sent, "").await;
    let asked: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(asked["uri"], "/v2/see/7?a=1&b=%2F");
    let header = |name: &str| asked["headers"][name].as_str().map(str::to_owned);
    assert_eq!(header("authorization").as_deref(), Some("Bearer api-token"));
    assert_eq!(header("x-api-key").as_deref(), Some("api-key"));
    assert_eq!(header("host").as_deref(), Some(format!("127.0.0.1:{}", backend.port).as_str()));
    assert_eq!(header("x-request-id").as_deref(), answer.headers["x-request-id"].to_str().ok());
    assert_eq!(header("tracestate").as_deref(), Some("a=b"));
    assert_eq!([header("cookie"), header("x-mine")], [None, None]);
    let names: Vec<_> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
    assert!(names.contains(&"etag".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name == "set-cookie" || name == "x-hop"), "{names:?}");

    // A rotated Secret is used a moment later, without a restart.
    let keys = [("token", "api-token-2"), ("key", "api-key")];
    namespace.apply::<Secret>(secret("keys", "Opaque", &keys)).await;
    eventually(SOON, "the new token", async || {
        let answer = gateway.send(Method::GET, &path, &sent, "").await.text();
        if answer.contains("Bearer api-token-2") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn only_what_the_spec_allows_can_be_reached_however_it_is_written() {
    let backend = Backend::start().await;
    let allow = json!([{ "methods": ["GET"], "pathPrefix": "/invoices" }, { "methods": ["POST"], "pathPrefix": "/pay" }]);
    let scene = Scene::set(&[backend.url()], json!({ "allow": allow })).await;
    for path in ["/invoices", "/invoices/7", "/invoices?all=1"] {
        assert_eq!(scene.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(scene.call(Method::POST, "/pay").await.status, StatusCode::OK);
    for path in ["/", "/invoices2", "/admin", "/pay"] {
        assert_eq!(scene.get(path).await.problem(), (403, "call-not-allowed".to_owned()), "{path}");
    }
    assert_eq!(scene.call(Method::DELETE, "/invoices").await.problem(), (403, "call-not-allowed".to_owned()));
    for path in [
        "/invoices/../admin",
        "/invoices/%2e%2e/admin",
        "/invoices//admin",
        "/invoices/..;/admin",
        "/invoices/%2f..%2fadmin",
        "/invoices/%252e%252e/admin",
        "/invoices/%5c..%5cadmin",
        "/invoices/%00",
    ] {
        let refused = scene.get(path).await;
        assert!([400, 403].contains(&refused.problem().0), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_lets_exactly_its_number_pass_for_all_or_for_each_caller() {
    let backend = Backend::start().await;
    let limit = |scope: &str| json!({ "rateLimit": { "requests": 5, "per": "1h", "scope": scope } });
    let scene = Scene::set(&[backend.url()], limit("Gateway")).await;
    let other = scene.namespace.caller("other", &[("create", "externalapis/invoke", &[])]).await;
    let passed = async |token: &str| {
        let mut passed = 0;
        for _ in 0..8 {
            let answer = scene.gateway.get(&scene.path("/ok"), token).await;
            if answer.status == StatusCode::OK {
                passed += 1;
            } else {
                assert_eq!(answer.problem(), (429, "rate-limited".to_owned()));
                let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=720).contains(&wait), "{wait}");
            }
        }
        passed
    };
    assert_eq!((passed(&scene.token).await, passed(&other).await), (5, 0));
    let refused = scene.gateway.operator.metric("authlink_gateway_rate_limited_total", "name=\"billing\"");
    assert!((refused - 11.0).abs() < f64::EPSILON, "{refused}");
    scene.change(&[backend.url()], limit("Caller")).await;
    assert_eq!((passed(&scene.token).await, passed(&other).await), (5, 5));
}

#[tokio::test]
async fn a_call_ends_at_its_time_out_and_one_slow_api_holds_up_no_other() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({ "timeout": "2s" })).await;
    let other = api("other", &[backend.url()], json!({}));
    scene.namespace.apply::<ExternalApi>(other).await;
    scene.namespace.expect_of::<ExternalApi>("other", &[("Ready", "True", "Available")]).await;
    let quick = format!("/v1/apis/{}/other/ok", scene.namespace.name);
    let slow: Vec<_> = (0..200).map(|_| scene.get("/slow")).collect();
    let both = async {
        for _ in 0..50 {
            assert_eq!(scene.gateway.get(&quick, &scene.token).await.status, StatusCode::OK);
        }
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(slow), both);
    for answer in answers {
        assert_eq!(answer.problem(), (504, "upstream-timeout".to_owned()));
    }
}

#[tokio::test]
async fn what_is_suspended_or_lacks_its_secret_is_not_called() {
    let backend = Backend::start().await;
    let scene = Scene::set(&[backend.url()], json!({})).await;
    assert_eq!(scene.get("/ok").await.status, StatusCode::OK);
    let bearer =
        json!({ "auth": { "type": "Bearer", "bearer": { "tokenRef": { "name": "none", "key": "k" } } } });
    scene.namespace.apply::<ExternalApi>(api("billing", &[backend.url()], bearer)).await;
    scene.namespace.expect_of::<ExternalApi>("billing", &[("Ready", "False", "SecretNotFound")]).await;
    let answer = scene.get("/ok").await;
    assert_eq!(answer.problem(), (503, "not-ready".to_owned()));
    assert!(answer.text().contains("the Secret none does not exist"), "{}", answer.text());
    scene.namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({ "suspend": true }))).await;
    eventually(SOON, "suspended", async || match scene.get("/ok").await.text() {
        text if text.contains("spec.suspend") => Ok(()),
        text => Err(text),
    })
    .await;
}

#[tokio::test]
async fn a_changed_client_certificate_serves_callers_once_it_is_proven() {
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    namespace.apply::<Secret>(certificate_secret("pair", "client")).await;
    let more = json!({
        "auth": { "type": "Mtls" },
        "tls": { "caRef": { "name": "ca" }, "clientCertRef": { "name": "pair" } },
        "healthCheck": { "http": { "path": "/cert" }, "interval": "500ms", "timeout": "400ms" },
    });
    namespace
        .apply::<ExternalApi>(api("billing", &[nginx().1.replace("localhost", "127.0.0.1")], more))
        .await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let path = format!("/v1/apis/{}/billing/cert", namespace.name);
    assert_eq!(gateway.get(&path, &token).await.text(), "CN=certuser\n");

    // It may not be used by clients.
    namespace.apply::<Secret>(certificate_secret("pair", "server")).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    // The gateway knows of the Secret from the same watch as the operator.
    gateway.operator.more_probes(4).await;
    assert_eq!(gateway.get(&path, &token).await.text(), "CN=certuser\n");
}
