//! Of the store.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What was to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Of the store.
#[derive(Clone, Default)]
pub struct StoreMetrics {
    errors: Family<OperationLabels, Counter>,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Operations of the store that failed, each of which is tried again";
        registry.register("store_errors", help, metrics.errors.clone());
        metrics
    }

    /// An operation failed: `prepare`, `write`, `purge` or `read`.
    pub fn failed(&self, operation: &'static str) {
        self.errors.get_or_create(&OperationLabels { operation }).inc();
    }
}
