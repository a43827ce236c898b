//! Metrics of the store.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The label of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Metrics of the store.
#[derive(Clone, Default)]
pub struct StoreMetrics {
    errors: Family<OperationLabels, Counter>,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Failed operations of the store, which are retried";
        registry.register("store_errors", help, metrics.errors.clone());
        metrics
    }

    /// Counts a failed operation: `prepare`, `write`, `purge` or `read`.
    pub fn failed(&self, operation: &'static str) {
        self.errors.get_or_create(&OperationLabels { operation }).inc();
    }
}
