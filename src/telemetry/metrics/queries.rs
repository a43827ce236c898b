//! How long the declared queries take.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::buckets;

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
    durations: Family<QueryLabels, Histogram, fn() -> Histogram>,
    /// What there is, since a family does not tell.
    series: Arc<Mutex<HashSet<QueryLabels>>>,
}

impl QueryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(|| Histogram::new(buckets())),
            series: Arc::default(),
        };
        registry.register_with_unit(
            "db_query_duration",
            "How long a declared query takes, from asking for a connection to its last row",
            Unit::Seconds,
            metrics.durations.clone(),
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

    /// A Database is gone: so are its series.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|labels| {
            let keep = labels.namespace != namespace || labels.name != name;
            if !keep {
                self.durations.remove(labels);
            }
            keep
        });
    }

    fn observe(&self, labels: &QueryLabels, started: Instant) {
        let took = started.elapsed().as_secs_f64();
        if let Some(duration) = self.durations.get(labels) {
            return duration.observe(took);
        }
        // Under the lock, so that nothing is made that `forget` has not seen.
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.insert(labels.clone());
        self.durations.get_or_create(labels).observe(took);
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

        metrics.forget("team", "cache");
        let counted = text(&registry);
        assert!(!counted.contains("cache"), "{counted}");
        assert!(counted.contains(&line("other", "abandoned", 1)), "{counted}");
    }
}
