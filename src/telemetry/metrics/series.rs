//! Metric families whose series are removed with their object.

use std::{collections::HashSet, fmt::Debug, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{TypedMetric, family::Family},
    registry::{Registry, Unit},
};

/// A family that keeps a list of its series, which those of the library do not expose.
pub(super) struct Series<L, M> {
    family: Family<L, M, fn() -> M>,
    known: Arc<Mutex<HashSet<L>>>,
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Self {
        Self { family: self.family.clone(), known: Arc::clone(&self.known) }
    }
}

impl<L, M> Series<L, M>
where
    L: Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
    M: EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
{
    /// A family without series; `new` creates the metric of a series.
    pub(super) fn new(new: fn() -> M) -> Self {
        Self { family: Family::new_with_constructor(new), known: Arc::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>) {
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, self.family.clone()),
            None => registry.register(name, help, self.family.clone()),
        }
    }

    /// Calls `use_it` with the metric of these labels, which is created if necessary.
    pub(super) fn with(&self, labels: &L, use_it: impl FnOnce(&M)) {
        if let Some(metric) = self.family.get(labels) {
            return use_it(&metric);
        }
        // Under the lock, so that `retain` knows every series.
        let mut known = self.known.lock();
        known.insert(labels.clone());
        use_it(&self.family.get_or_create(labels));
    }

    /// Removes the series for which `keep` is false.
    pub(super) fn retain(&self, keep: impl Fn(&L) -> bool) {
        let mut known = self.known.lock();
        known.retain(|labels| {
            let keep = keep(labels);
            if !keep {
                self.family.remove(labels);
            }
            keep
        });
    }
}
