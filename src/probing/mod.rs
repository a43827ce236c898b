//! Probing, apart from reconciling: one monitor for each distinct target, shared by every object that names it.
//!
//! A monitor is a task of its own, so that a dead target never slows the probes of another. It requeues the objects only
//! when its verdict or the facts change; between two changes nobody is bothered.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    api::{
        Reason,
        status::{HealthState, HealthStatus, LatencyMs},
    },
    backends::Fault,
    domain::{
        health::{Health, Thresholds},
        latency::{Latencies, millis},
        schedule::{Schedule, next_probe},
    },
    telemetry::metrics::ProbeMetrics,
};

/// Nobody who has joined need wait for longer than this for the first probe: the end of one that took longer requeues them.
pub const FIRST_PROBE_WAIT: Duration = Duration::from_millis(250);

/// Something outside that can be probed.
pub trait Target: Send + Sync + 'static {
    /// What a probe learns. A change of it requeues the objects, so it must hold no number that moves all the time.
    type Facts: Clone + PartialEq + Send + Sync + 'static;

    /// Asks the target, connecting where needed.
    fn probe(&self) -> impl Future<Output = Result<Self::Facts, Fault>> + Send;
}

/// What a monitor has seen so far.
#[derive(Clone, Debug)]
pub struct Observation<F> {
    /// The verdict over the last probes.
    pub state: HealthState,
    /// Why it is unhealthy.
    pub reason: Option<Reason>,
    /// What the last probe that passed has learned.
    pub facts: Option<F>,
    /// What failed probes have met, in the words of the verdict's reason; none once it is healthy again.
    pub fault: Option<Fault>,
    /// The same as users read it.
    pub status: HealthStatus,
}

/// The monitors that exist, by target.
pub struct Monitors<T: Target> {
    by_key: Mutex<HashMap<Key, Weak<Monitor<T>>>>,
    kind: &'static str,
    metrics: ProbeMetrics,
}

/// Tells targets, credentials and schedules apart.
pub type Key = ([u8; 32], Schedule);

impl<T: Target> Monitors<T> {
    /// No monitors yet; `kind` is the metrics' label.
    #[must_use]
    pub fn new(kind: &'static str, metrics: ProbeMetrics) -> Self {
        Self { by_key: Mutex::default(), kind, metrics }
    }

    /// Joins the monitor of `key`, started with `make`'s target and the verdict that is `known` of it when nobody
    /// watches it yet. `requeue` is called at every change until the membership is dropped, and at the end of a first probe
    /// that takes longer than [`FIRST_PROBE_WAIT`]; with the last membership the monitor ends and lets go of its target.
    ///
    /// # Errors
    /// What `make` says.
    pub fn join(
        self: &Arc<Self>,
        key: Key,
        known: HealthState,
        requeue: impl Fn() + Send + Sync + 'static,
        make: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Membership<T>, Fault> {
        let mut by_key = self.by_key.lock();
        let monitor = if let Some(monitor) = by_key.get(&key).and_then(Weak::upgrade) {
            monitor
        } else {
            by_key.retain(|_, monitor| monitor.strong_count() > 0);
            let monitor = Monitor::start(make()?, key.1, known, self.kind, self.metrics.clone());
            by_key.insert(key, Arc::downgrade(&monitor));
            monitor
        };
        drop(by_key);
        Ok(Membership::new(monitor, Box::new(requeue)))
    }
}

struct Monitor<T: Target> {
    target: Arc<T>,
    seen: watch::Receiver<Option<Observation<T::Facts>>>,
    members: Arc<Members>,
    task: JoinHandle<()>,
}

type RequeueFn = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Members {
    next: AtomicU64,
    requeues: Mutex<HashMap<u64, RequeueFn>>,
}

impl<T: Target> Monitor<T> {
    fn start(
        target: T,
        schedule: Schedule,
        known: HealthState,
        kind: &'static str,
        metrics: ProbeMetrics,
    ) -> Arc<Self> {
        let target = Arc::new(target);
        let members = Arc::<Members>::default();
        let (tell, seen) = watch::channel(None);
        let probes = Probes {
            target: Arc::clone(&target),
            started: Instant::now(),
            schedule,
            kind,
            metrics,
            health: Health::new(
                Thresholds { unhealthy: schedule.unhealthy_threshold, healthy: schedule.healthy_threshold },
                known,
                Timestamp::now(),
            ),
            latencies: Latencies::default(),
            facts: None,
            fault: None,
        };
        let task = tokio::spawn(probes.run(tell, Arc::clone(&members)));
        Arc::new(Self { target, seen, members, task })
    }
}

impl<T: Target> Drop for Monitor<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The part of a monitor that runs.
struct Probes<T: Target> {
    target: Arc<T>,
    /// Before anybody could join.
    started: Instant,
    schedule: Schedule,
    kind: &'static str,
    metrics: ProbeMetrics,
    health: Health,
    latencies: Latencies,
    facts: Option<T::Facts>,
    fault: Option<Fault>,
}

impl<T: Target> Probes<T> {
    async fn run(mut self, tell: watch::Sender<Option<Observation<T::Facts>>>, members: Arc<Members>) {
        let Schedule { interval, jitter_percent, .. } = self.schedule;
        loop {
            let due = Instant::now() + next_probe(interval, jitter_percent, rand::random());
            let (changed, observation) = self.probe().await;
            let first = tell.send_replace(Some(observation)).is_none();
            // Who still waits for the first probe needs no waking.
            let requeues = if first { self.started.elapsed() >= FIRST_PROBE_WAIT } else { changed };
            if requeues {
                members.requeues.lock().values().for_each(|requeue| requeue());
            }
            tokio::time::sleep_until(due).await;
        }
    }

    async fn probe(&mut self) -> (bool, Observation<T::Facts>) {
        let Schedule { timeout, .. } = self.schedule;
        let started = Instant::now();
        // A driver that panics must not leave its last verdict standing for ever.
        let probe = AssertUnwindSafe(self.target.probe()).catch_unwind();
        let answer = match tokio::time::timeout(timeout, probe).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Fault::new(Reason::Unavailable, "the probe failed by a fault of its own")),
            Err(_) => {
                Err(Fault::new(Reason::Timeout, "the server did not answer within healthCheck.timeout"))
            }
        };
        let latency = started.elapsed();
        self.latencies.add(latency);
        let now = Timestamp::now();
        let outcome = answer.as_ref().map(drop).map_err(|fault| fault.reason);
        self.metrics.observe(self.kind, outcome, latency);
        let turned = self.health.observe(outcome, now);
        let mut learned = false;
        match answer {
            Ok(facts) => {
                learned = self.facts.as_ref() != Some(&facts);
                self.facts = Some(facts);
                // Still unhealthy until enough of them pass, and then it is still true why.
                if self.health.state() == HealthState::Healthy {
                    self.fault = None;
                }
            }
            // A restarting server gives several reasons in turn: keep the words that belong to the verdict.
            Err(fault) if self.health.reason().is_none_or(|reason| reason == fault.reason) => {
                self.fault = Some(fault);
            }
            Err(_) => {}
        }
        let health = &self.health;
        let observation = Observation {
            state: health.state(),
            reason: health.reason(),
            facts: self.facts.clone(),
            fault: self.fault.clone(),
            status: HealthStatus {
                state: health.state(),
                since: Some(health.since().into()),
                consecutive_failures: health.consecutive_failures(),
                latency_ms: Some(LatencyMs {
                    last: millis(latency),
                    p95: self.latencies.p95().map_or(0, millis),
                }),
                uptime_1h: health.uptime_1h(),
                last_probe_time: Some(now.into()),
            },
        };
        (turned || learned, observation)
    }
}

/// An object's share in a monitor.
pub struct Membership<T: Target> {
    monitor: Arc<Monitor<T>>,
    id: u64,
}

impl<T: Target> Membership<T> {
    fn new(monitor: Arc<Monitor<T>>, requeue: RequeueFn) -> Self {
        let id = monitor.members.next.fetch_add(1, Ordering::Relaxed);
        monitor.members.requeues.lock().insert(id, requeue);
        Self { monitor, id }
    }

    /// What was seen, once the first probe is over.
    pub async fn observed(&self) -> Option<Observation<T::Facts>> {
        let mut seen = self.monitor.seen.clone();
        // The sender lives as long as the monitor, so this fails only while the process ends.
        seen.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// What was seen last; none before the end of the first probe.
    #[must_use]
    pub fn last(&self) -> Option<Observation<T::Facts>> {
        self.monitor.seen.borrow().clone()
    }

    /// What is watched.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.monitor.target
    }

    /// How many objects share the monitor, this one included.
    #[must_use]
    pub fn members(&self) -> usize {
        self.monitor.members.requeues.lock().len()
    }
}

impl<T: Target> Drop for Membership<T> {
    fn drop(&mut self) {
        self.monitor.members.requeues.lock().remove(&self.id);
    }
}
