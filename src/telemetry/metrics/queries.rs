//! How long the declared queries take.

use std::time::Instant;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::histogram::Histogram,
    registry::{Registry, Unit},
};

use super::{buckets, series::Series};

/// A query and how it ended. Each value is the name of something that is declared, or one of a few words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// Such as `postgresql`.
    pub engine: &'static str,
    /// Of the Database.
    pub namespace: String,
    /// Of the Database.
    pub name: String,
    /// Of the query.
    pub query: String,
    /// `success`, `abandoned`, or the kind of the fault.
    pub result: &'static str,
}

/// Of the declared queries.
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
            "How long a declared query takes, from asking for a connection to its last row",
            Some(Unit::Seconds),
        );
        metrics
    }

    /// A query of a Database is about to run.
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

    /// Drops the series of Databases that are not there, by namespace and name.
    pub fn retain(&self, is_there: impl Fn(&str, &str) -> bool) {
        self.durations.retain(|labels| is_there(&labels.namespace, &labels.name));
    }

    fn observe(&self, labels: &QueryLabels, started: Instant) {
        self.durations.with(labels, |duration| duration.observe(started.elapsed().as_secs_f64()));
    }
}

/// A run that is under way. It counts when it ends, as `abandoned` when it is dropped.
#[must_use = "dropping it says that the run was abandoned"]
pub struct Observed {
    metrics: QueryMetrics,
    labels: QueryLabels,
    started: Instant,
}

impl Observed {
    /// The run ended so.
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
    fn a_run_counts_by_how_it_ended_and_goes_with_its_object() {
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
