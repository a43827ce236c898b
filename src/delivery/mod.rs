//! Delivers events to webhooks, each at least once.
//!
//! What users can rely on:
//!
//! - **A1** An event is accepted once it and a delivery for each endpoint that matched at that moment are on the disk.
//! - **A2** A delivery ends in one of four ways: a 2xx was read, its attempts or its age are used up, its endpoint is gone or somebody
//!   has cancelled it, or it was not made because the endpoint was disabled. Each is counted.
//! - **A3** A receiver gets an event more than once only if it was asked again without our knowing what became of the first time: the
//!   process died or lost its lease, the connection broke, or the answer came too late. Id and body are the same then.
//! - **A4** There is no order, unless an endpoint asks for it by subject.
//! - **A5** An endpoint that is slow or dead does not hold up another one.

mod accept;
mod attempt;
mod clock;
mod flush;
mod leases;
mod load;
mod registry;
mod settings;
mod shards;
mod signing;
mod upkeep;
mod work;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use accept::{AcceptError, AcceptedId, Matched, MatchedState};
pub use settings::{
    EndpointSettings, EngineSettings, Filter, Observer, PayloadKind, Signing, SigningKey, Template,
};
pub use shards::lease_of;
pub use upkeep::{TestError, TestReport};

use crate::{
    backends::{
        Fault,
        http::Egress,
        transport::{Tls, TlsSettings},
    },
    domain::delivery::{
        event::Event,
        health::Snapshot,
        scheduler::{Scheduler, Uid},
    },
    store::{FileLock, Store, delivery::Origin},
    telemetry::metrics::DeliveryMetrics,
};
use accept::AcceptRequest;
use clock::Clock;
use flush::DeliveryResult;
use registry::Registry;
use shards::Shards;

/// Delivers events. A clone is the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    settings: EngineSettings,
    /// Who holds the leases of this process.
    owner: String,
    store: Arc<Store>,
    egress: Egress,
    usual_tls: Tls,
    clock: Clock,
    metrics: DeliveryMetrics,
    registry: Registry,
    scheduler: Mutex<Scheduler<Job>>,
    shards: Shards,
    accepts: mpsc::Sender<AcceptRequest>,
    results: mpsc::UnboundedSender<DeliveryResult>,
    /// What the tasks of the engine take, once.
    inbox: Mutex<Option<Inbox>>,
    /// Endpoints that are to be taken over.
    adoptable: Mutex<Vec<Uid>>,
    signals: Signals,
    /// Whether the store takes results: nothing is sent of which the result could not be kept.
    healthy: AtomicBool,
    stopping: AtomicBool,
}

struct Inbox {
    accepts: mpsc::Receiver<AcceptRequest>,
    results: mpsc::UnboundedReceiver<DeliveryResult>,
}

/// What wakes the tasks of the engine.
#[derive(Default)]
struct Signals {
    timer: Notify,
    load: Notify,
    wakeups: Notify,
    adopt: Notify,
    /// The time for which the timer is set.
    armed: Mutex<Option<Duration>>,
}

/// What is sent.
#[derive(Clone, Debug)]
struct Job {
    event: Arc<Event>,
    accepted: Duration,
    replay: u32,
    origin: Origin,
}

impl Engine {
    /// An engine that does nothing yet: see [`Self::run`].
    ///
    /// # Errors
    /// The public certificate authorities cannot be used.
    pub fn new(
        store: Arc<Store>,
        egress: Egress,
        settings: EngineSettings,
        metrics: DeliveryMetrics,
    ) -> Result<Self, Fault> {
        // As many as wait anyway: who waits for a place here waits no longer than for the answer.
        let (accepts, accepts_inbox) = mpsc::channel(1024);
        let (results, results_inbox) = mpsc::unbounded_channel();
        // Whoever has the file is alone, whatever it is called.
        let owner = if store.is_shared() { settings.owner.clone() } else { "alone".to_owned() };
        Ok(Self(Arc::new(Inner {
            owner,
            usual_tls: crate::backends::http::tls(&TlsSettings::default())?,
            clock: Clock::start(),
            registry: Registry::default(),
            scheduler: Mutex::new(Scheduler::new(settings.limits)),
            shards: Shards::default(),
            accepts,
            results,
            inbox: Mutex::new(Some(Inbox { accepts: accepts_inbox, results: results_inbox })),
            adoptable: Mutex::default(),
            signals: Signals::default(),
            healthy: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            settings,
            store,
            egress,
            metrics,
        })))
    }

    /// Works until `stop` is cancelled; then ends what is under way, within the grace, keeps what became of it, and gives its leases back.
    /// A second call does nothing.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(Inbox { accepts, results }) = self.0.inbox.lock().take() else { return };
        let inner = || Arc::clone(&self.0);
        let (flushed, lock) = (CancellationToken::new(), self.file_lock(&stop).await);
        if lock.is_none() {
            return;
        }
        let flushing = tokio::spawn(inner().flush(results, flushed.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(inner().accept_all(accepts));
        tasks.spawn(inner().keep_leases());
        tasks.spawn(inner().adopt());
        tasks.spawn(inner().listen());
        tasks.spawn(inner().keep_time());
        tasks.spawn(inner().sweep());
        tasks.spawn(inner().purge());
        for _ in 0..load::LOADERS {
            tasks.spawn(inner().load());
        }
        stop.cancelled().await;
        self.0.stopping.store(true, SeqCst);
        let idle = async {
            while self.0.scheduler.lock().unfinished() != (0, 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // What is not over by then is sent again by whoever comes next.
        let _ = tokio::time::timeout(self.0.settings.grace, idle).await;
        flushed.cancel();
        let _ = flushing.await;
        tasks.shutdown().await;
        let _ = self.0.store.leases().release(&self.0.owner, &self.0.shards.leases()).await;
    }

    /// The sole right to the store's file: another process that has it is about to end, as a rule.
    async fn file_lock(&self, stop: &CancellationToken) -> Option<FileLock> {
        let mut told = false;
        loop {
            match self.0.store.lock() {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) if !told => tracing::warn!(
                    store = self.0.store.place(),
                    "another process uses the store's file: webhooks wait until it ends"
                ),
                Err(error) if !told => {
                    tracing::warn!(store = self.0.store.place(), %error, "the store's folder cannot be written to");
                }
                Ok(None) | Err(_) => {}
            }
            told = true;
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// An endpoint is there, or has changed. What is pending follows the new settings.
    ///
    /// # Errors
    /// Certificates that cannot be used; the endpoint is as it was.
    pub fn set_endpoint(&self, settings: EndpointSettings) -> Result<(), Fault> {
        let uid = Arc::clone(&settings.uid);
        let endpoint = attempt::Endpoint::new(settings, self.0.egress.clone(), &self.0.usual_tls)?;
        let config = endpoint.config();
        let endpoint = self.0.registry.set(endpoint);
        let owned = {
            let mut scheduler = self.0.scheduler.lock();
            scheduler.configure(&uid, config);
            scheduler.owns(&uid)
        };
        if !owned {
            self.0.adoptable.lock().push(uid);
            self.0.signals.adopt.notify_one();
        } else if endpoint.settings.filter.is_some() {
            tokio::spawn(Arc::clone(&self.0).release_held(endpoint));
        }
        self.0.dispatch();
        Ok(())
    }

    /// An endpoint is not there any more. What is pending stays in the store: see [`Self::cancel`].
    pub fn remove_endpoint(&self, uid: &Uid) {
        self.0.registry.remove(uid);
        self.0.scheduler.lock().remove(uid);
    }

    /// What is known of an endpoint, and how many deliveries are pending, if this process sends to it.
    #[must_use]
    pub fn state(&self, uid: &str) -> Option<(Snapshot, u64)> {
        self.0.scheduler.lock().state(uid, self.0.clock.now())
    }

    /// Whether it has leases, so that what is accepted is sent, by this process or by others.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.0.healthy.load(SeqCst) && !self.0.shards.names().is_empty()
    }

    /// Whether most endpoints cannot be reached: it is our own way out that is missing.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.0.scheduler.lock().is_outage()
    }
}
