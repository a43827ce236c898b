//! `Webhook` as the operator sees it: its url, its addresses, its keys, and whether its endpoint is there.

mod check;
mod delivery;
mod keys;
mod reachability;
mod references;
mod rotation;
mod secrecy;
mod secrets;
mod urls;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use authlink::api::v1alpha1::Webhook;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::support::{Namespace, Operator, condition, gateway::Gateway};

/// The one address of the tests' network that is not loopback, and the flag that lets the operator call it.
const ADDRESS: &str = "10.99.0.1";
pub(crate) const ALLOWED: [&str; 2] = ["--egress-allow-cidrs", "10.99.0.0/24"];

/// 24 bytes.
const KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";
const OTHER_KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAy";

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    method: Method,
    path: String,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Status and body of an answer; none for no answer at all.
type Answer = Option<(u16, String)>;
type Behaviour = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// An endpoint that takes events; gone with the value.
pub(crate) struct Receiver {
    port: u16,
    state: Arc<Record>,
    task: AbortHandle,
}

struct Record {
    all: Mutex<Vec<Received>>,
    behaviour: Mutex<Behaviour>,
}

impl Receiver {
    async fn start(behaviour: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let behaviour: Behaviour = Arc::new(behaviour);
        let state = Arc::new(Record { all: Mutex::default(), behaviour: Mutex::new(behaviour) });
        let routes = Router::new().fallback(serve).with_state(Arc::clone(&state));
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
        Self { port, state, task }
    }

    /// That answers every request by this status.
    pub(crate) async fn answering(status: u16) -> Self {
        Self::start(move |_| Some((status, String::new()))).await
    }

    fn behave(&self, behaviour: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.state.behaviour.lock().expect("a lock") = Arc::new(behaviour);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.all.lock().expect("a lock").clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{ADDRESS}:{}/h", self.port)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(state): State<Arc<Record>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let received = Received { method, path: uri.path().to_owned(), headers, body };
    state.all.lock().expect("a lock").push(received.clone());
    let behaviour = Arc::clone(&state.behaviour.lock().expect("a lock"));
    match behaviour(&received) {
        Some((status, body)) => Response::builder().status(status).body(Body::from(body)).expect("an answer"),
        None => std::future::pending().await,
    }
}

/// Counts the connections to a port of every address of this machine.
struct Tripwire {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Tripwire {
    async fn start() -> Self {
        let listener = TcpListener::bind("[::]:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Relaxed);
            }
        });
        Self { port, connections, task: task.abort_handle() }
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts an operator with a gateway: without one nothing is delivered, and no Webhook is ready.
async fn operate(namespace: &Namespace, flags: &[&str]) -> Operator {
    Gateway::start(namespace, flags).await.operator
}

/// With these fields besides, or instead: those of `verification` besides.
fn manifest(name: &str, url: &str, more: Value) -> Value {
    let mut spec = json!({
        "url": url, "events": ["*"], "verification": { "allowHttp": true },
        "healthCheck": {
            "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 2, "healthyThreshold": 1, "jitterPercent": 0,
        },
    });
    let Value::Object(more) = more else { panic!("fields") };
    for (field, value) in more {
        match (spec.get_mut(&field).and_then(Value::as_object_mut), value) {
            (Some(fields), Value::Object(value)) => fields.extend(value),
            (_, Value::Null) => drop(spec.as_object_mut().expect("fields").remove(&field)),
            (_, value) => spec[field] = value,
        }
    }
    json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": "Webhook", "metadata": { "name": name }, "spec": spec })
}

/// One that is asked nothing.
fn silent(name: &str, more: Value) -> Value {
    let mut hook = manifest(name, &format!("http://{ADDRESS}:1/h"), more);
    hook["spec"]["verification"]["mode"] = json!("None");
    hook
}

async fn apply(namespace: &Namespace, hook: Value) -> Webhook {
    namespace.apply::<Webhook>(hook).await
}

async fn expect(namespace: &Namespace, name: &str, wanted: &[(&str, &str, &str)]) -> Webhook {
    namespace.expect_of::<Webhook>(name, wanted).await
}

async fn ready(namespace: &Namespace, name: &str) -> Webhook {
    expect(namespace, name, &[("Ready", "True", "Available")]).await
}

fn message(hook: &Webhook, kind: &str) -> String {
    condition(hook, kind).unwrap_or_else(|| panic!("no {kind}")).message.clone()
}
