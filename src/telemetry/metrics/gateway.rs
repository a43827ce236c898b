//! Metrics of the gateway.

use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{buckets, series::Series};
use crate::api::Kind;

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// The labels of a call. Their values come from objects and their specs, so that callers cannot create new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    /// The object's kind.
    kind: Kind,
    /// The object's namespace.
    namespace: String,
    /// The object's name.
    name: String,
    /// The HTTP method, or the name of the query.
    operation: String,
    /// The response status.
    code: u16,
}

/// The call metrics of one object.
pub struct Calls {
    kind: Kind,
    namespace: String,
    name: String,
    durations: Series<CallLabels, Histogram>,
    /// A cache of histograms by operation and code, to look them up without allocating labels.
    used: RwLock<Vec<(String, u16, Histogram)>>,
}

impl Calls {
    /// Counts a call when the response headers are sent.
    pub fn observe(&self, operation: &str, code: u16, took: Duration) {
        let took = took.as_secs_f64();
        let used = self.used.read();
        if let Some((.., duration)) = used.iter().find(|used| used.1 == code && used.0 == operation) {
            return duration.observe(took);
        }
        drop(used);
        let labels = CallLabels {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            operation: operation.to_owned(),
            code,
        };
        self.durations.with(&labels, |duration| {
            duration.observe(took);
            let mut used = self.used.write();
            used.push((labels.operation.clone(), code, duration.clone()));
        });
    }
}

/// The labels of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

/// Metrics of the gateway.
#[derive(Clone)]
pub struct GatewayMetrics {
    durations: Series<CallLabels, Histogram>,
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
            "Time until the response headers of a call",
            Some(Unit::Seconds),
        );
        metrics.limited.register(registry, "gateway_rate_limited", "Calls rejected by the rate limit", None);
        metrics
    }

    /// The metrics of an object.
    #[must_use]
    pub fn calls(&self, kind: Kind, namespace: &str, name: &str) -> Calls {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Calls { kind, namespace, name, durations: self.durations.clone(), used: RwLock::default() }
    }

    /// Counts a call of an ExternalApi that its rate limit rejected.
    pub fn limited(&self, namespace: &str, name: &str) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.limited.with(&labels, |limited| {
            limited.inc();
        });
    }

    /// Removes the series of a kind's objects that do not exist, by namespace and name.
    pub fn retain(&self, kind: Kind, exists: impl Fn(&str, &str) -> bool) {
        self.durations.retain(|call| call.kind != kind || exists(&call.namespace, &call.name));
    }

    /// Removes the rate limit series of objects that do not exist, by namespace and name.
    pub fn retain_limited(&self, exists: impl Fn(&str, &str) -> bool) {
        self.limited.retain(|labels| exists(&labels.namespace, &labels.name));
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_series_of_an_object_are_removed_with_it_and_those_of_others_stay() {
        let mut registry = Registry::with_prefix("authlink");
        let metrics = GatewayMetrics::register(&mut registry);
        for name in ["gone", "kept"] {
            for kind in [Kind::ExternalApi, Kind::Database] {
                let calls = metrics.calls(kind, "team", name);
                calls.observe("GET", 200, Duration::from_millis(1));
                calls.observe("GET", 200, Duration::from_millis(1));
            }
            metrics.limited("team", name);
        }
        let exists = |namespace: &str, name: &str| (namespace, name) != ("team", "gone");
        metrics.retain(Kind::ExternalApi, exists);
        metrics.retain_limited(exists);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        let count = |text: &str| page.lines().filter(|line| line.contains(text)).count();
        assert_eq!(count("kind=\"ExternalApi\",namespace=\"team\",name=\"gone\""), 0, "{page}");
        assert_eq!(count("rate_limited_total{namespace=\"team\",name=\"gone\""), 0, "{page}");
        assert_eq!(count("rate_limited_total{namespace=\"team\",name=\"kept\""), 1, "{page}");
        let twice =
            "_count{kind=\"Database\",namespace=\"team\",name=\"gone\",operation=\"GET\",code=\"200\"} 2";
        assert_eq!(count(twice), 1, "{page}");
    }
}
