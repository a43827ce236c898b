//! Metrics in the OpenMetrics text format. Names start with `authlink_`, durations are in seconds.

mod delivery;
mod gateway;
mod queries;
mod series;
mod store;
mod sync;

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::api::Reason;

pub use delivery::DeliveryMetrics;
pub use gateway::{Calls, GatewayMetrics};
pub use queries::{Observed, QueryLabels, QueryMetrics};
pub use store::StoreMetrics;
pub use sync::SyncMetrics;

/// Every metric of the process.
pub struct Metrics {
    /// Metrics of the engine.
    pub engine: EngineMetrics,
    /// Metrics of the probes.
    pub probes: ProbeMetrics,
    /// Metrics of the gateway.
    pub gateway: GatewayMetrics,
    /// Metrics of the declared queries.
    pub queries: QueryMetrics,
    /// Metrics of the store.
    pub store: StoreMetrics,
    /// Metrics of webhook delivery.
    pub delivery: DeliveryMetrics,
    /// Metrics of user syncs.
    pub sync: SyncMetrics,
    /// 1 while this process holds the Lease. Registered only in processes that take part in the election.
    pub leader: Gauge,
    rotations: Family<RotationLabels, Counter>,
}

impl Metrics {
    /// The metrics, and the registry that exposes them.
    #[must_use]
    pub fn registered() -> (Self, Registry) {
        let mut registry = Registry::with_prefix("authlink");
        registry.register(
            "build",
            "Version of the process",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let rotations = Family::default();
        registry.register("secret_rotation", "Changed credentials that were verified", rotations.clone());
        let metrics = Self {
            engine: EngineMetrics::register(&mut registry),
            probes: ProbeMetrics::register(&mut registry),
            gateway: GatewayMetrics::register(&mut registry),
            queries: QueryMetrics::register(&mut registry),
            store: StoreMetrics::register(&mut registry),
            delivery: DeliveryMetrics::register(&mut registry),
            sync: SyncMetrics::register(&mut registry),
            leader: Gauge::default(),
            rotations,
        };
        (metrics, registry)
    }

    /// Counts a changed credential that was verified: `rotated` or `refused`.
    pub fn rotation(&self, result: &'static str) {
        self.rotations.get_or_create(&RotationLabels { result }).inc();
    }
}

/// The labels of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RotationLabels {
    /// `rotated` or `refused`.
    pub result: &'static str,
}

/// The label of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// Such as `Database`.
    pub kind: &'static str,
}

/// The labels of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// `applied`, `unchanged`, `waiting`, `suspended`, `refused`, `cleaning`, `cleaned`, `failed`.
    pub outcome: &'static str,
}

/// The labels of a failed reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// The reason, as in conditions.
    pub reason: &'static str,
}

/// Metrics of the engine.
#[derive(Clone)]
pub struct EngineMetrics {
    reconciles: Family<OutcomeLabels, Counter>,
    durations: Family<KindLabels, Histogram>,
    errors: Family<ErrorLabels, Counter>,
    status_writes: Family<KindLabels, Counter>,
}

impl EngineMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(buckets())),
            errors: Family::default(),
            status_writes: Family::default(),
        };
        registry.register("reconcile", "Reconciles, by outcome", metrics.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a reconcile",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("reconcile_errors", "Failed reconciles, by reason", metrics.errors.clone());
        registry.register("status_writes", "Writes of object statuses", metrics.status_writes.clone());
        metrics
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&OutcomeLabels { kind, outcome }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(took.as_secs_f64());
    }

    /// Counts a failed reconcile.
    pub fn failed(&self, kind: &'static str, reason: Reason) {
        self.errors.get_or_create(&ErrorLabels { kind, reason: reason.as_str() }).inc();
    }

    /// Counts a write of a status.
    pub fn status_written(&self, kind: &'static str) {
        self.status_writes.get_or_create(&KindLabels { kind }).inc();
    }
}

/// The labels of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// `success` or `failure`.
    pub result: &'static str,
    /// The reason of the failure, or `ProbeSucceeded`.
    pub reason: &'static str,
}

/// Metrics of the probes.
#[derive(Clone)]
pub struct ProbeMetrics {
    probes: Family<ProbeLabels, Counter>,
    durations: Family<KindLabels, Histogram>,
}

impl ProbeMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            probes: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(buckets())),
        };
        registry.register("probe", "Probes of targets, by result", metrics.probes.clone());
        let durations = metrics.durations.clone();
        registry.register_with_unit("probe_duration", "Duration of a probe", Unit::Seconds, durations);
        metrics
    }

    /// Counts a probe.
    pub fn observe(&self, kind: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let (result, reason) = match outcome {
            Ok(()) => ("success", Reason::ProbeSucceeded),
            Err(reason) => ("failure", reason),
        };
        self.probes.get_or_create(&ProbeLabels { kind, result, reason: reason.as_str() }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(took.as_secs_f64());
    }
}

/// Histogram buckets from 1 ms to 16 s, by powers of two.
fn buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 15)
}
