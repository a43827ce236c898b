//! An engine in the test's own process.

use std::{sync::Arc, time::Duration};

use authlink::{
    backends::{http::Egress, transport::TlsSettings},
    delivery::{AcceptedId, EndpointSettings, Engine, EngineSettings, PayloadKind, Signing, SigningKey},
    domain::delivery::{
        event::{Event, from_plain},
        event_type::Pattern,
        health::Change,
        keys::{Key, Scheme},
        payload::PayloadForm,
        retry::{RetryPolicy, Waits},
        scheduler::{EndpointConfig, Uid},
    },
    store::{
        Location, Store,
        delivery::{AttemptFilter, LoggedAttempt},
    },
    telemetry::metrics::Metrics,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::receiver::KEY;
use crate::support::{SOON, eventually};

pub(crate) const NAMESPACE: &str = "team";

/// An engine, its store, and what it has told of its endpoints; ended with the value, in no order.
pub(crate) struct Bed {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Store>,
    pub(crate) changes: Arc<Mutex<Vec<(Uid, Change)>>>,
    metrics: Metrics,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Bed {
    /// With a store in memory.
    pub(crate) async fn make() -> Self {
        Self::on("sqlite::memory:", EngineSettings::default()).await
    }

    pub(crate) async fn on(url: &str, settings: EngineSettings) -> Self {
        let bed = Self::before_start(url, settings);
        bed.start().await
    }

    /// With a store in memory, and this way out.
    pub(crate) async fn through(egress: Egress) -> Self {
        Self::of("sqlite::memory:", EngineSettings::default(), egress).start().await
    }

    /// One that has not started yet.
    pub(crate) fn before_start(url: &str, settings: EngineSettings) -> Self {
        Self::of(url, settings, Egress::unrestricted())
    }

    fn of(url: &str, settings: EngineSettings, egress: Egress) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (metrics, _) = Metrics::registered();
        let store = Arc::new(Store::new(Location::Url(url.into()), metrics.store.clone()).expect("a store"));
        let changes = Arc::<Mutex<Vec<(Uid, Change)>>>::default();
        let told = Arc::clone(&changes);
        let settings = EngineSettings {
            observer: Arc::new(move |uid, change| told.lock().push((Arc::clone(uid), change))),
            ..settings
        };
        let engine = Engine::new(Arc::clone(&store), egress, settings, metrics.delivery.clone());
        let engine = engine.expect("an engine");
        Self { engine, store, changes, metrics, stop: CancellationToken::new(), running: None }
    }

    pub(crate) async fn start(mut self) -> Self {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        self.running = Some(tokio::spawn(async move { engine.run(stop).await }));
        eventually(SOON, "a working engine", async || {
            if self.engine.is_working() { Ok(()) } else { Err("no leases") }
        })
        .await;
        self
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("no panic");
        }
    }

    pub(crate) fn set(&self, settings: EndpointSettings) -> Uid {
        let uid = Arc::clone(&settings.uid);
        self.engine.set_endpoint(settings).expect("an endpoint");
        uid
    }

    /// Has it accept an event with this data.
    pub(crate) async fn accept(&self, event_type: &str, data: Value) -> AcceptedId {
        self.accept_event(event(&json!({ "type": event_type, "data": data }).to_string())).await
    }

    pub(crate) async fn accept_event(&self, event: Event) -> AcceptedId {
        let mut accepted = self.engine.accept(NAMESPACE, vec![event]).await.expect("accepted");
        accepted.pop().expect("one")
    }

    pub(crate) async fn accept_many(&self, count: usize) -> Vec<String> {
        let events = (0..count).map(|n| event(&json!({ "type": "user.created", "data": n }).to_string()));
        let accepted = self.engine.accept(NAMESPACE, events.collect()).await.expect("accepted");
        accepted.into_iter().map(|accepted| accepted.id.expect("an id")).collect()
    }

    pub(crate) fn pending(&self, uid: &Uid) -> u64 {
        self.engine.state(uid).map_or(0, |(_, pending)| pending)
    }

    /// Waits until nothing is pending for the endpoint.
    pub(crate) async fn drained(&self, uid: &Uid) {
        eventually(SOON, "nothing pending", async || match self.engine.state(uid) {
            Some((_, 0)) => Ok(()),
            state => Err(format!("{state:?}")),
        })
        .await;
    }

    /// The log of its attempts, the first one first.
    pub(crate) async fn attempts(&self, uid: &Uid) -> Vec<LoggedAttempt> {
        let mut attempts =
            self.store.deliveries().attempts(uid, &AttemptFilter::default(), 10_000).await.expect("a log");
        attempts.reverse();
        attempts
    }

    /// Waits until its log has so many attempts.
    pub(crate) async fn attempts_until(&self, uid: &Uid, count: usize) -> Vec<LoggedAttempt> {
        eventually(SOON, "attempts", async || {
            let attempts = self.attempts(uid).await;
            if attempts.len() >= count { Ok(attempts) } else { Err(format!("{attempts:?}")) }
        })
        .await
    }

    pub(crate) fn fenced(&self) -> u64 {
        self.metrics.delivery.fenced.get()
    }

    pub(crate) fn changes_of(&self, uid: &Uid) -> Vec<Change> {
        self.changes.lock().iter().filter(|(of, _)| of == uid).map(|(_, change)| *change).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn event(text: &str) -> Event {
    from_plain(&text.to_owned().into(), "test", Timestamp::now()).expect("an event")
}

pub(crate) fn key(scheme: Scheme, value: &str) -> SigningKey {
    SigningKey { key: Key::parse(scheme, value.as_bytes()).expect("a key"), expires: None }
}

/// Waits of so many milliseconds.
pub(crate) fn waits(millis: &[u64]) -> Waits {
    Waits::List(millis.iter().copied().map(Duration::from_millis).collect())
}

pub(crate) fn retry(millis: &[u64], max_attempts: u32) -> RetryPolicy {
    RetryPolicy { waits: waits(millis), max_attempts, ..RetryPolicy::default() }
}

/// An endpoint for every event, signed by the key of the tests, that is tried again at once.
pub(crate) fn endpoint(name: &str, url: &str) -> EndpointSettings {
    EndpointSettings {
        uid: format!("uid-{name}").into(),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        url: url.parse().expect("a URL"),
        events: vec![Pattern::parse("*").expect("a pattern")],
        filter: None,
        headers: Vec::new(),
        signing: Signing { standard: vec![key(Scheme::StandardWebhooks, KEY)], ..Signing::default() },
        payload: PayloadKind::Form(PayloadForm::Standard),
        config: EndpointConfig { retry: retry(&[100], 8), ..EndpointConfig::default() },
        timeout: Duration::from_secs(15),
        tls: TlsSettings::default(),
        server_name: None,
        dead_letter: None,
        unusable: None,
    }
}

/// The same with another configuration.
pub(crate) fn configured(settings: EndpointSettings, config: EndpointConfig) -> EndpointSettings {
    EndpointSettings { config, ..settings }
}
