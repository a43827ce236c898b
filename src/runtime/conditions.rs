//! The conditions of every object as a metric, read from the caches at each scrape: no series outlives its object.

use std::{fmt, sync::Arc};

use kube::{ResourceExt, core::object::HasStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{
    api::status::Status,
    controllers::{Reconciler, engine::Engine},
};

/// An engine of whatever kind, whose objects have conditions.
pub(super) trait HasConditions: Send + Sync {
    /// Writes a sample for each of them.
    fn encode(&self, family: &mut MetricEncoder<'_>) -> fmt::Result;
}

impl<R: Reconciler> HasConditions for Engine<R> {
    fn encode(&self, family: &mut MetricEncoder<'_>) -> fmt::Result {
        for guard in self.cached() {
            let Ok(object) = &guard.0 else { continue };
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            for condition in object.status().into_iter().flat_map(|status| &status.common().conditions) {
                let labels = [
                    ("kind", R::NAME),
                    ("namespace", &namespace),
                    ("name", &name),
                    ("type", &condition.type_),
                    ("status", &condition.status),
                ];
                ConstGauge::new(1).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// All engines share the one metric, which a page may declare only once.
pub(super) struct ConditionMetrics(Vec<Arc<dyn HasConditions>>);

impl ConditionMetrics {
    pub(super) fn new(engines: impl IntoIterator<Item = Arc<dyn HasConditions>>) -> Self {
        Self(engines.into_iter().collect())
    }
}

impl fmt::Debug for ConditionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConditionMetrics")
    }
}

impl Collector for ConditionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "integration_condition",
            "1 for the status that each condition has",
            None,
            MetricType::Gauge,
        )?;
        self.0.iter().try_for_each(|engine| engine.encode(&mut family))
    }
}
