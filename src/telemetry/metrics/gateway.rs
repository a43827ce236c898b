//! Of the gateway.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{buckets, series::Series};

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
    durations: Series<GatewayCall, Histogram>,
    limited: Series<ObjectLabels, Counter>,
}

impl GatewayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Series::new(|| Histogram::new(buckets())),
            limited: Series::new(Counter::default),
        };
        metrics.durations.register(
            registry,
            "gateway_request_duration",
            "How long it takes until the answer of a call begins",
            Some(Unit::Seconds),
        );
        metrics.limited.register(registry, "gateway_rate_limited", "Calls that a rate limit refused", None);
        metrics
    }

    /// The answer of a call begins.
    pub fn observe(&self, call: &GatewayCall, took: Duration) {
        self.durations.with(call, |duration| duration.observe(took.as_secs_f64()));
    }

    /// A rate limit refused a call of an ExternalApi.
    pub fn limited(&self, namespace: &str, name: &str) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.limited.with(&labels, |limited| {
            limited.inc();
        });
    }

    /// Drops the series of objects that are not there, by kind, namespace and name.
    pub fn retain(&self, is_there: impl Fn(&str, &str, &str) -> bool) {
        self.durations.retain(|call| is_there(call.kind, &call.namespace, &call.name));
        self.limited.retain(|labels| is_there("ExternalApi", &labels.namespace, &labels.name));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_series_of_an_object_go_with_it_and_those_of_others_stay() {
        let mut registry = Registry::with_prefix("authlink");
        let metrics = GatewayMetrics::register(&mut registry);
        let call = |kind, name: &str| GatewayCall {
            kind,
            namespace: "team".to_owned(),
            name: name.to_owned(),
            operation: "GET".to_owned(),
            code: 200,
        };
        for name in ["gone", "kept"] {
            metrics.observe(&call("ExternalApi", name), Duration::from_millis(1));
            metrics.observe(&call("Database", name), Duration::from_millis(1));
            metrics.limited("team", name);
        }
        metrics.retain(|kind, namespace, name| (kind, namespace, name) != ("ExternalApi", "team", "gone"));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        let count = |text: &str| page.lines().filter(|line| line.contains(text)).count();
        assert_eq!(count("kind=\"ExternalApi\",namespace=\"team\",name=\"gone\""), 0, "{page}");
        assert_eq!(count("rate_limited_total{namespace=\"team\",name=\"gone\""), 0, "{page}");
        assert_eq!(count("rate_limited_total{namespace=\"team\",name=\"kept\""), 1, "{page}");
        assert!(count("kind=\"Database\",namespace=\"team\",name=\"gone\"") > 0, "{page}");
    }
}
