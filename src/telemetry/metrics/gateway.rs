//! Of the gateway.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::buckets;

/// A call that was let in. Its names are those of objects and of what their specs declare, so that callers cannot make
/// new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GatewayCall {
    /// Such as `ExternalApi`.
    pub kind: &'static str,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The method, or the query.
    pub operation: String,
    /// The status of the answer.
    pub code: u16,
}

/// An object of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

/// Of the gateway.
#[derive(Clone)]
pub struct GatewayMetrics {
    durations: Family<GatewayCall, Histogram>,
    limited: Family<ObjectLabels, Counter>,
}

impl GatewayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(|| Histogram::new(buckets())),
            limited: Family::default(),
        };
        registry.register_with_unit(
            "gateway_request_duration",
            "How long it takes until the answer of a call begins",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        let limited = metrics.limited.clone();
        registry.register("gateway_rate_limited", "Calls that a rate limit refused", limited);
        metrics
    }

    /// The answer of a call begins.
    pub fn observe(&self, call: &GatewayCall, took: Duration) {
        self.durations.get_or_create(call).observe(took.as_secs_f64());
    }

    /// A rate limit refused a call.
    pub fn limited(&self, namespace: &str, name: &str) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.limited.get_or_create(&labels).inc();
    }
}
