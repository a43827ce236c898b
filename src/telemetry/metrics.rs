//! Metrics in the OpenMetrics text format. Names start with `authlink_`, times are seconds.

mod gateway;
mod queries;
mod series;
mod store;

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::api::Reason;

pub use gateway::{Calls, GatewayMetrics};
pub use queries::{Observed, QueryLabels, QueryMetrics};
pub use store::StoreMetrics;

/// Every metric of the process.
pub struct Metrics {
    /// Of the engine.
    pub engine: EngineMetrics,
    /// Of the probes.
    pub probes: ProbeMetrics,
    /// Of the gateway.
    pub gateway: GatewayMetrics,
    /// Of the declared queries.
    pub queries: QueryMetrics,
    /// Of the store.
    pub store: StoreMetrics,
    /// 1 while this process holds the lease; in the registry only of a process that may.
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
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let rotations = Family::default();
        registry.register("secret_rotation", "Changed credentials that were tried", rotations.clone());
        let metrics = Self {
            engine: EngineMetrics::register(&mut registry),
            probes: ProbeMetrics::register(&mut registry),
            gateway: GatewayMetrics::register(&mut registry),
            queries: QueryMetrics::register(&mut registry),
            store: StoreMetrics::register(&mut registry),
            leader: Gauge::default(),
            rotations,
        };
        (metrics, registry)
    }

    /// A changed credential was tried: `rotated` or `refused`.
    pub fn rotation(&self, result: &'static str) {
        self.rotations.get_or_create(&RotationLabels { result }).inc();
    }
}

/// The result of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RotationLabels {
    /// `rotated` or `refused`.
    pub result: &'static str,
}

/// A kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// Such as `Database`.
    pub kind: &'static str,
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// `applied`, `unchanged`, `waiting`, `suspended`, `refused`, `cleaning`, `cleaned`, `failed`.
    pub outcome: &'static str,
}

/// Why a pass failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// The word in the condition.
    pub reason: &'static str,
}

/// Of the engine.
#[derive(Clone)]
pub struct EngineMetrics {
    passes: Family<OutcomeLabels, Counter>,
    durations: Family<KindLabels, Histogram>,
    errors: Family<ErrorLabels, Counter>,
    status_writes: Family<KindLabels, Counter>,
}

impl EngineMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            passes: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(buckets())),
            errors: Family::default(),
            status_writes: Family::default(),
        };
        registry.register("reconcile", "Passes over an object", metrics.passes.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a pass takes",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("reconcile_errors", "Passes that failed", metrics.errors.clone());
        registry.register("status_writes", "Writes of a status", metrics.status_writes.clone());
        metrics
    }

    /// A reconcile is over.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.passes.get_or_create(&OutcomeLabels { kind, outcome }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(took.as_secs_f64());
    }

    /// A reconcile failed.
    pub fn failed(&self, kind: &'static str, reason: Reason) {
        self.errors.get_or_create(&ErrorLabels { kind, reason: reason.as_str() }).inc();
    }

    /// A status was written.
    pub fn status_written(&self, kind: &'static str) {
        self.status_writes.get_or_create(&KindLabels { kind }).inc();
    }
}

/// A probe's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    /// Such as `Database`.
    pub kind: &'static str,
    /// `success` or `failure`.
    pub result: &'static str,
    /// The fault's class, or `ProbeSucceeded`.
    pub reason: &'static str,
}

/// Of the probes.
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
        registry.register("probe", "Probes of outside systems", metrics.probes.clone());
        let durations = metrics.durations.clone();
        registry.register_with_unit("probe_duration", "How long a probe takes", Unit::Seconds, durations);
        metrics
    }

    /// A probe is over.
    pub fn observe(&self, kind: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let (result, reason) = match outcome {
            Ok(()) => ("success", Reason::ProbeSucceeded),
            Err(reason) => ("failure", reason),
        };
        self.probes.get_or_create(&ProbeLabels { kind, result, reason: reason.as_str() }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(took.as_secs_f64());
    }
}

/// From 1 ms to 16 s, doubling.
fn buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 15)
}
