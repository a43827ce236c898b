//! An instance of a service: a real server, run by the test.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use tokio::{net::TcpListener, task::AbortHandle};

/// Listens on every address, and answers `/healthz` with what was last set; ended with the value.
pub(super) struct Instance {
    pub(super) port: u16,
    says: Arc<Says>,
    task: Option<AbortHandle>,
}

struct Says {
    answer: Mutex<(StatusCode, HeaderMap, String)>,
    asked: AtomicU64,
}

impl Instance {
    /// Answers that all is well.
    pub(super) async fn start() -> Self {
        let answer = Mutex::new((StatusCode::OK, HeaderMap::new(), String::new()));
        let mut instance =
            Self { port: 0, says: Arc::new(Says { answer, asked: AtomicU64::new(0) }), task: None };
        instance.resume().await;
        instance
    }

    /// From now on nobody listens there.
    pub(super) async fn kill(&mut self) {
        self.task.take().expect("it runs").abort();
        crate::support::eventually(crate::support::SOON, "the port is free", async || {
            TcpListener::bind(("0.0.0.0", self.port)).await.map(drop)
        })
        .await;
    }

    /// Listens again.
    pub(super) async fn resume(&mut self) {
        let routes = Router::new().route("/healthz", get(healthz)).with_state(Arc::clone(&self.says));
        let listener = TcpListener::bind(("0.0.0.0", self.port)).await.expect("a port");
        self.port = listener.local_addr().expect("an address").port();
        let serve = async move { axum::serve(listener, routes).await };
        self.task = Some(tokio::spawn(serve).abort_handle());
    }

    /// From now on it answers this.
    pub(super) fn says(&self, status: u16, load: Option<&str>, body: &str) {
        let load = load.map(|load| ("x-load".parse().expect("a name"), load.parse().expect("a value")));
        let status = StatusCode::from_u16(status).expect("a status");
        *self.says.answer.lock().expect("a lock") = (status, load.into_iter().collect(), body.to_owned());
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> u64 {
        self.says.asked.load(SeqCst)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn healthz(State(says): State<Arc<Says>>) -> (StatusCode, HeaderMap, String) {
    says.asked.fetch_add(1, SeqCst);
    says.answer.lock().expect("a lock").clone()
}
