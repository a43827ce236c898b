//! Metrics of user syncs.

use jiff::SignedDuration;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::series::Series;

/// The labels of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    namespace: String,
    name: String,
    outcome: &'static str,
}

/// The labels of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectoryLabels {
    namespace: String,
    name: String,
}

/// The labels of users.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UserLabels {
    namespace: String,
    name: String,
    state: &'static str,
}

/// Metrics of user syncs.
#[derive(Clone)]
pub struct SyncMetrics {
    runs: Series<RunLabels, Counter>,
    durations: Series<DirectoryLabels, Histogram>,
    entries: Series<DirectoryLabels, Gauge>,
    held: Series<DirectoryLabels, Gauge>,
    users: Series<UserLabels, Gauge>,
}

/// Namespace and name.
type Object = (String, String);

impl SyncMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            runs: Series::new(Counter::default),
            durations: Series::new(|| Histogram::new(exponential_buckets(0.1, 3.0, 10))),
            entries: Series::new(Gauge::default),
            held: Series::new(Gauge::default),
            users: Series::new(Gauge::default),
        };
        metrics.runs.register(registry, "sync_runs", "User syncs that ended, by their outcome", None);
        let help = "Duration of user syncs";
        metrics.durations.register(registry, "sync_duration", help, Some(Unit::Seconds));
        let help = "Entries that the current or last user sync has read";
        metrics.entries.register(registry, "sync_entries", help, None);
        let help = "1 while the deletion guard holds losses back";
        metrics.held.register(registry, "sync_deletion_guard", help, None);
        metrics.users.register(registry, "sync_users", "Users in the store, by their state", None);
        metrics
    }

    /// A sync has read so many entries.
    pub fn progress(&self, object: &Object, seen: u64) {
        self.entries.with(&Self::directory(object), |entries| {
            entries.set(i64::try_from(seen).unwrap_or(i64::MAX));
        });
    }

    /// A sync has ended.
    pub fn ended(&self, object: &Object, outcome: &'static str, took: SignedDuration) {
        let (namespace, name) = object.clone();
        self.runs.with(&RunLabels { namespace, name, outcome }, |runs| {
            runs.inc();
        });
        self.durations.with(&Self::directory(object), |durations| durations.observe(took.as_secs_f64()));
    }

    /// Whether the deletion guard holds losses back.
    pub fn held(&self, object: &Object, held: bool) {
        self.held.with(&Self::directory(object), |gauge| {
            gauge.set(held.into());
        });
    }

    /// How many users there are.
    pub fn users(&self, object: &Object, active: u64, disabled: u64) {
        for (state, count) in [("active", active), ("disabled", disabled)] {
            let (namespace, name) = object.clone();
            let labels = UserLabels { namespace, name, state };
            self.users.with(&labels, |users| {
                users.set(i64::try_from(count).unwrap_or(i64::MAX));
            });
        }
    }

    /// Removes the series of an object that is gone.
    pub fn forget(&self, object: &Object) {
        let keep = |namespace: &str, name: &str| (namespace, name) != (&*object.0, &*object.1);
        self.runs.retain(|labels| keep(&labels.namespace, &labels.name));
        self.durations.retain(|labels| keep(&labels.namespace, &labels.name));
        self.entries.retain(|labels| keep(&labels.namespace, &labels.name));
        self.held.retain(|labels| keep(&labels.namespace, &labels.name));
        self.users.retain(|labels| keep(&labels.namespace, &labels.name));
    }

    fn directory(object: &Object) -> DirectoryLabels {
        let (namespace, name) = object.clone();
        DirectoryLabels { namespace, name }
    }
}
