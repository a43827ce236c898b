//! `ExternalApi` as the operator sees it: each endpoint probed, its credential tried, its addresses registered.

mod compatibility;

use authlink::api::v1alpha1::ExternalApi;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::support::{Namespace, Operator, SOON, Server, System, condition, free_port, secret};

/// The one address of the tests' network that may be registered, and the flag that lets the operator call it.
const ADDRESS: &str = "10.99.0.1";
const ALLOWED: [&str; 2] = ["--egress-allow-cidrs", "10.99.0.0/24"];

/// A server that answers `/healthz`, for those with the token where it wants one; gone with the value.
struct Api {
    port: u16,
    token: Arc<Mutex<Option<String>>>,
    task: AbortHandle,
}

impl Api {
    async fn start() -> Self {
        Self::start_on(0).await
    }

    async fn start_on(port: u16) -> Self {
        let token = Arc::<Mutex<Option<String>>>::default();
        let routes = Router::new().route("/v2/healthz", get(healthz)).with_state(Arc::clone(&token));
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
        Self { port, token, task }
    }

    fn wants(&self, token: &str) {
        *self.token.lock().expect("a lock") = Some(token.to_owned());
    }

    fn url(&self) -> String {
        format!("http://{ADDRESS}:{}/v2", self.port)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn healthz(State(token): State<Arc<Mutex<Option<String>>>>, headers: HeaderMap) -> StatusCode {
    let wanted = token.lock().expect("a lock").clone();
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
    match wanted {
        Some(wanted) if shown != Some(&format!("Bearer {wanted}")) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    }
}

fn manifest(name: &str, urls: &[String], more: Value) -> Value {
    let endpoints: Vec<_> = urls.iter().map(|url| json!({ "url": url })).collect();
    let mut spec = json!({
        "endpoints": endpoints,
        "healthCheck": {
            "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 2, "healthyThreshold": 1, "jitterPercent": 0,
            "http": { "path": "/healthz" },
        },
    });
    let Value::Object(more) = more else { panic!("fields") };
    spec.as_object_mut().expect("fields").extend(more);
    json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": "ExternalApi", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn an_endpoint_that_dies_is_told_of_and_leaves_the_slice_and_comes_back() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let (one, two) = (Api::start().await, Api::start().await);
    let both = manifest("billing", &[one.url(), two.url()], json!({ "discovery": {} }));
    namespace.apply::<ExternalApi>(both).await;
    let wanted = [
        ("Ready", "True", "Available"),
        ("Connected", "True", "Reachable"),
        ("Registered", "True", "Registered"),
    ];
    let api = namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    assert_eq!(api.status.expect("a status").endpoints_summary.as_deref(), Some("2/2"));
    let ready = async |ports: &[(u16, bool)]| {
        crate::discovery::until_ready(&namespace, "billing", ADDRESS, ports).await;
    };
    ready(&[(one.port, true), (two.port, true)]).await;

    let port = two.port;
    drop(two);
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "SomeEndpointsDown")];
    let api = namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    assert_eq!(api.status.expect("a status").endpoints_summary.as_deref(), Some("1/2"));
    ready(&[(one.port, true), (port, false)]).await;
    let _two = Api::start_on(port).await;
    ready(&[(one.port, true), (port, true)]).await;
}

#[tokio::test]
async fn a_token_is_proven_where_probes_carry_it_and_a_bad_one_leaves_the_old_one_in_use() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let api = Api::start().await;
    api.wants("first");
    namespace.apply::<Secret>(secret("token", "Opaque", &[("token", "first")])).await;
    let mut more = json!({ "auth": { "type": "Bearer", "bearer": { "tokenRef": { "name": "token", "key": "token" } } } });
    let mut carried = manifest("billing", &[api.url()], more.clone());
    carried["spec"]["healthCheck"]["authenticated"] = json!(true);
    namespace.apply::<ExternalApi>(carried).await;
    let before = namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let fingerprint =
        |api: &ExternalApi| api.status.as_ref().unwrap().common.credentials[0].fingerprint.clone();

    namespace.apply::<Secret>(secret("token", "Opaque", &[("token", "wrong")])).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    let refused = namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    assert_eq!(fingerprint(&before), fingerprint(&refused));
    api.wants("second");
    namespace.apply::<Secret>(secret("token", "Opaque", &[("token", "second")])).await;
    let changed = namespace.follow("billing", SOON, "the new token", |api: &ExternalApi| {
        condition(api, "Degraded").is_none() && fingerprint(api) != fingerprint(&before)
    });
    changed.await;

    // Without it the probe says nothing of the token: this one is refused.
    more["suspend"] = json!(false);
    namespace.apply::<ExternalApi>(manifest("plain", &[api.url()], more)).await;
    let wanted = [("Ready", "False", "UnexpectedStatus"), ("Healthy", "False", "ProbeFailed")];
    namespace.expect_of::<ExternalApi>("plain", &wanted).await;
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_never_connected_to() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let api = Api::start().await;
    for (name, host) in [("private", ADDRESS), ("loopback", "127.0.0.1"), ("metadata", "169.254.169.254")] {
        let url = format!("http://{host}:{}/v2", api.port);
        namespace.apply::<ExternalApi>(manifest(name, &[url], json!({}))).await;
        let refused = namespace.expect_of::<ExternalApi>(name, &[("Ready", "False", "AddressDenied")]).await;
        let message = &condition(&refused, "Connected").expect("Connected").message;
        assert!(message.contains(host) && message.contains(" allowed: "), "{message}");
    }
}

#[tokio::test]
async fn each_fault_of_a_reference_or_of_the_network_has_its_reason() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let api = Api::start().await;
    let bearer = |name: &str| json!({ "auth": { "type": "Bearer", "bearer": { "tokenRef": { "name": name, "key": "token" } } } });
    namespace.apply::<Secret>(secret("empty", "Opaque", &[("other", "x")])).await;
    let refused = format!("http://{ADDRESS}:{}", free_port());
    let plain = format!("https://{ADDRESS}:{}/v2", api.port);
    let rows = [
        ("no-secret", manifest("no-secret", &[api.url()], bearer("none")), "SecretNotFound"),
        ("no-key", manifest("no-key", &[api.url()], bearer("empty")), "SecretMissingKeys"),
        (
            "no-ca",
            manifest(
                "no-ca",
                std::slice::from_ref(&plain),
                json!({ "tls": { "caRef": { "name": "none" } } }),
            ),
            "RefNotFound",
        ),
        ("refused", manifest("refused", &[refused], json!({})), "ConnectionRefused"),
        ("no-tls", manifest("no-tls", &[plain], json!({})), "TlsFailed"),
    ];
    for (name, manifest, reason) in rows {
        namespace.apply::<ExternalApi>(manifest).await;
        namespace.expect_of::<ExternalApi>(name, &[("Ready", "False", reason)]).await;
    }
}

#[tokio::test]
async fn after_a_restart_a_certificate_that_expires_soon_is_known_of_while_its_server_keeps_silent() {
    let namespace = Namespace::create().await;
    // Something that can be frozen; no more is asked of it than a handshake.
    let server = Server::start_with(System::Redis, &[("BIND", "0.0.0.0"), ("CERT", "soon")]);
    let late = Server::start_with(System::Redis, &[("BIND", "0.0.0.0")]);
    let operator = Operator::start(&namespace, &ALLOWED).await;
    let urls = [&late, &server].map(|server| format!("https://{ADDRESS}:{}", server.port + 1));
    let check = json!({
        "type": "Tcp", "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 100, "jitterPercent": 0,
    });
    let more = json!({ "tls": { "caRef": { "name": "ca" } }, "healthCheck": check });
    namespace.apply::<ExternalApi>(manifest("billing", &urls, more)).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "CertificateExpiringSoon")];
    namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    operator.signal("KILL");
    drop(operator);
    server.freeze();
    let written = || namespace.writes().get("patch externalapis/status").copied().unwrap_or_default();
    let before = written();
    let operator = Operator::start(&namespace, &ALLOWED).await;
    operator.more_probes_with_late_ones(8, 2).await;
    assert_eq!(written(), before);
    namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    server.thaw();
}
