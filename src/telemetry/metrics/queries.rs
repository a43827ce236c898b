//! Metrics of the declared queries.

use std::time::Instant;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::histogram::Histogram,
    registry::{Registry, Unit},
};

use super::{buckets, series::Series};

/// The labels of a query. Their values come from objects and their specs, or from a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// Such as `postgresql`.
    pub engine: &'static str,
    /// Namespace of the Database.
    pub namespace: String,
    /// Name of the Database.
    pub name: String,
    /// Name of the query.
    pub query: String,
    /// `success`, `abandoned`, or the kind of the error.
    pub result: &'static str,
}

/// Metrics of the declared queries.
#[derive(Clone)]
pub struct QueryMetrics {
    durations: Series<QueryLabels, Histogram>,
}

impl QueryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { durations: Series::new(|| Histogram::new(buckets())) };
        metrics.durations.register(
            registry,
            "db_query_duration",
            "Duration of a declared query, from requesting a connection to the last row",
            Some(Unit::Seconds),
        );
        metrics
    }

    /// Starts to measure a query.
    pub fn start(&self, engine: &'static str, namespace: &str, name: &str, query: &str) -> Observed {
        let labels = QueryLabels {
            engine,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            query: query.to_owned(),
            result: "abandoned",
        };
        Observed { metrics: self.clone(), labels, started: Instant::now() }
    }

    /// Removes the series of Databases that do not exist, by namespace and name.
    pub fn retain(&self, exists: impl Fn(&str, &str) -> bool) {
        self.durations.retain(|labels| exists(&labels.namespace, &labels.name));
    }

    fn observe(&self, labels: &QueryLabels, started: Instant) {
        self.durations.with(labels, |duration| duration.observe(started.elapsed().as_secs_f64()));
    }
}

/// A running query. It is counted when it finishes, or as `abandoned` when this is dropped.
#[must_use = "dropping it counts the query as abandoned"]
pub struct Observed {
    metrics: QueryMetrics,
    labels: QueryLabels,
    started: Instant,
}

impl Observed {
    /// Counts the query with this result.
    pub fn finish(mut self, result: &'static str) {
        self.labels.result = result;
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.metrics.observe(&self.labels, self.started);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_query_is_counted_by_its_result_and_its_series_are_removed_with_the_object() {
        let mut registry = Registry::with_prefix("authlink");
        let metrics = QueryMetrics::register(&mut registry);
        metrics.start("redis", "team", "cache", "get").finish("success");
        metrics.start("redis", "team", "cache", "get").finish("success");
        drop(metrics.start("redis", "team", "other", "get"));
        let counted = text(&registry);
        let line = |name: &str, result: &str, count: u32| {
            format!(
                "authlink_db_query_duration_seconds_count{{engine=\"redis\",namespace=\"team\",\
                 name=\"{name}\",query=\"get\",result=\"{result}\"}} {count}"
            )
        };
        assert!(counted.contains(&line("cache", "success", 2)), "{counted}");
        assert!(counted.contains(&line("other", "abandoned", 1)), "{counted}");

        metrics.retain(|namespace, name| (namespace, name) != ("team", "cache"));
        let counted = text(&registry);
        assert!(!counted.contains("cache"), "{counted}");
        assert!(counted.contains(&line("other", "abandoned", 1)), "{counted}");
    }
}
