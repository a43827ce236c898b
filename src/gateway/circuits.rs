//! The circuits as metrics and the store show them, read where they are: no series outlives its object.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::Gateway;
use crate::domain::breaker::State;

impl Gateway {
    /// The worst circuit of each object that has one which is not closed, by uid.
    pub(super) fn open_circuits(&self) -> Vec<(String, State)> {
        let worst = self.apis.all().into_iter().filter_map(|made| {
            let worst = made.prepared.circuits().map(|(_, state)| state).max()?;
            (worst != State::Closed).then_some((made.uid, worst))
        });
        worst.collect()
    }
}

/// Reads the circuit of every endpoint that may be record.
pub struct Circuits(Arc<Gateway>);

impl Circuits {
    /// Those of this gateway.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self(gateway)
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Circuits")
    }
}

impl Collector for Circuits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Two endpoints may differ by their paths only: the worse one is shown.
        let mut circuits = BTreeMap::new();
        for made in self.0.apis.all() {
            for (endpoint, state) in made.prepared.circuits() {
                let labels = (made.namespace.clone(), made.name.clone(), endpoint.to_owned());
                let shown = circuits.entry(labels).or_insert(state);
                *shown = state.max(*shown);
            }
        }
        let mut family = encoder.encode_descriptor(
            "circuit_state",
            "The circuit of each endpoint that this gateway has record: 0 closed, 1 half-open, 2 open",
            None,
            MetricType::Gauge,
        )?;
        for ((namespace, name, endpoint), state) in &circuits {
            let labels = [("namespace", namespace), ("name", name), ("endpoint", endpoint)];
            ConstGauge::new(i64::from(state.number())).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
