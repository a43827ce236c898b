//! Metrics by object, which go when their object goes.

use std::{collections::HashSet, fmt::Debug, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{TypedMetric, family::Family},
    registry::{Registry, Unit},
};

/// A family that knows which series it has: one of the library's does not tell.
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
    /// No series yet; `new` makes the metric of one.
    pub(super) fn new(new: fn() -> M) -> Self {
        Self { family: Family::new_with_constructor(new), known: Arc::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>) {
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, self.family.clone()),
            None => registry.register(name, help, self.family.clone()),
        }
    }

    /// Uses the metric of these labels, a new one if there is none.
    pub(super) fn with(&self, labels: &L, use_it: impl FnOnce(&M)) {
        if let Some(metric) = self.family.get(labels) {
            return use_it(&metric);
        }
        // Under the lock, so that nothing is made that `retain` has not seen.
        let mut known = self.known.lock();
        known.insert(labels.clone());
        use_it(&self.family.get_or_create(labels));
    }

    /// Drops the series that are not to be kept.
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
