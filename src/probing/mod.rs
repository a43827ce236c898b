//! Health probes, apart from reconciling: one monitor for each distinct target, shared by all objects that name it.
//!
//! A monitor is a task of its own, so that a dead target does not slow the probes of another. It requeues its objects only when
//! the verdict or the facts change.

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

/// How long a reconcile need wait for the first probe: one that takes longer requeues the objects when it has ended.
pub const FIRST_PROBE_WAIT: Duration = Duration::from_millis(250);

/// An outside system that can be probed.
pub trait Target: Send + Sync + 'static {
    /// What a probe finds out. A change requeues the objects, so it must not contain numbers that change all the time.
    type Facts: Clone + PartialEq + Send + Sync + 'static;

    /// Probes the target, connecting where needed.
    fn probe(&self) -> impl Future<Output = Result<Self::Facts, Fault>> + Send;
}

/// The state of a monitor after its last probe.
#[derive(Clone, Debug)]
pub struct Observation<F> {
    /// The verdict over the last probes.
    pub state: HealthState,
    /// Why it is unhealthy.
    pub reason: Option<Reason>,
    /// What the last successful probe has found out.
    pub facts: Option<F>,
    /// The fault that belongs to `reason`; none once it is healthy again.
    pub fault: Option<Fault>,
    /// The same as users read it.
    pub status: HealthStatus,
}

/// All monitors, by target.
pub struct Monitors<T: Target> {
    by_key: Mutex<HashMap<Key, Weak<Monitor<T>>>>,
    kind: &'static str,
    metrics: ProbeMetrics,
}

/// A digest of target and credential, and the schedule.
pub type Key = ([u8; 32], Schedule);

impl<T: Target> Monitors<T> {
    /// No monitors yet; `kind` is the metrics' label.
    #[must_use]
    pub fn new(kind: &'static str, metrics: ProbeMetrics) -> Self {
        Self { by_key: Mutex::default(), kind, metrics }
    }

    /// Joins the monitor of `key`. If there is none, it is started with the target of `connect` and the `initial` verdict.
    /// `requeue` is called at each change until the membership is dropped, and after a first probe that takes longer than
    /// [`FIRST_PROBE_WAIT`]; with the last membership the monitor ends and drops its target.
    ///
    /// # Errors
    /// That of `connect`.
    pub fn join(
        self: &Arc<Self>,
        key: Key,
        initial: HealthState,
        requeue: impl Fn() + Send + Sync + 'static,
        connect: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Membership<T>, Fault> {
        let mut by_key = self.by_key.lock();
        let monitor = if let Some(monitor) = by_key.get(&key).and_then(Weak::upgrade) {
            monitor
        } else {
            by_key.retain(|_, monitor| monitor.strong_count() > 0);
            let monitor = Monitor::start(connect()?, key.1, initial, self.kind, self.metrics.clone());
            by_key.insert(key, Arc::downgrade(&monitor));
            monitor
        };
        drop(by_key);
        Ok(Membership::new(monitor, Box::new(requeue)))
    }
}

struct Monitor<T: Target> {
    target: Arc<T>,
    observations: watch::Receiver<Option<Observation<T::Facts>>>,
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
        initial: HealthState,
        kind: &'static str,
        metrics: ProbeMetrics,
    ) -> Arc<Self> {
        let target = Arc::new(target);
        let members = Arc::<Members>::default();
        let (sender, observations) = watch::channel(None);
        let probes = Probes {
            target: Arc::clone(&target),
            started: Instant::now(),
            schedule,
            kind,
            metrics,
            health: Health::new(
                Thresholds { unhealthy: schedule.unhealthy_threshold, healthy: schedule.healthy_threshold },
                initial,
                Timestamp::now(),
            ),
            latencies: Latencies::default(),
            facts: None,
            fault: None,
        };
        let task = tokio::spawn(probes.run(sender, Arc::clone(&members)));
        Arc::new(Self { target, observations, members, task })
    }
}

impl<T: Target> Drop for Monitor<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a monitor.
struct Probes<T: Target> {
    target: Arc<T>,
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
    async fn run(mut self, sender: watch::Sender<Option<Observation<T::Facts>>>, members: Arc<Members>) {
        let Schedule { interval, jitter_percent, .. } = self.schedule;
        loop {
            let due = Instant::now() + next_probe(interval, jitter_percent, rand::random());
            let (changed, observation) = self.probe().await;
            let first = sender.send_replace(Some(observation)).is_none();
            // Reconciles that still wait for the first probe need no requeue.
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
        // A driver that panics must not end the monitor, which would leave its last verdict for ever.
        let probe = AssertUnwindSafe(self.target.probe()).catch_unwind();
        let result = match tokio::time::timeout(timeout, probe).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::new(Reason::Unavailable, "the probe failed with an internal error")),
            Err(_) => Err(Fault::new(Reason::Timeout, "the probe timed out (healthCheck.timeout)")),
        };
        let latency = started.elapsed();
        self.latencies.add(latency);
        let now = Timestamp::now();
        let outcome = result.as_ref().map(drop).map_err(|fault| fault.reason);
        self.metrics.observe(self.kind, outcome, latency);
        let turned = self.health.observe(outcome, now);
        let mut facts_changed = false;
        match result {
            Ok(facts) => {
                facts_changed = self.facts.as_ref() != Some(&facts);
                self.facts = Some(facts);
                // Until enough of them pass it stays unhealthy, for the same reason.
                if self.health.state() == HealthState::Healthy {
                    self.fault = None;
                }
            }
            // A restarting server gives several reasons in turn: keep the fault that belongs to the verdict.
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
        (turned || facts_changed, observation)
    }
}

/// An object's membership in a monitor.
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

    /// The state after the first probe, or after the last one.
    pub async fn observed(&self) -> Option<Observation<T::Facts>> {
        let mut observations = self.monitor.observations.clone();
        // The sender lives as long as the monitor, so this fails only while the process ends.
        observations.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The state after the last probe; none before the first one has ended.
    #[must_use]
    pub fn last(&self) -> Option<Observation<T::Facts>> {
        self.monitor.observations.borrow().clone()
    }

    /// The target.
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
