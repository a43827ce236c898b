//! The circuits, as metrics and the store show them.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::client::ApiClient;
use crate::{domain::breaker::State, gateway::client_cache::NamedClient};

/// The worst circuit of each object that has one which is not closed, by uid.
pub(super) fn open(clients: &[NamedClient<ApiClient>]) -> impl Iterator<Item = (String, State)> {
    clients.iter().filter_map(|it| {
        let worst = it.client.circuits().map(|(_, state)| state).max()?;
        (worst != State::Closed).then(|| (it.uid.clone(), worst))
    })
}

/// Writes the circuit of every endpoint that has one.
///
/// # Errors
/// The page cannot be written.
pub(super) fn encode(clients: &[NamedClient<ApiClient>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // Endpoints may differ by their paths only: the worst one is shown.
    let mut circuits = BTreeMap::new();
    for it in clients {
        for (endpoint, state) in it.client.circuits() {
            let shown = circuits.entry((&it.namespace, &it.name, endpoint.to_owned())).or_insert(state);
            *shown = state.max(*shown);
        }
    }
    let mut family = encoder.encode_descriptor(
        "circuit_state",
        "The circuit of each endpoint that this gateway has called: 0 closed, 1 half-open, 2 open",
        None,
        MetricType::Gauge,
    )?;
    for ((namespace, name, endpoint), state) in &circuits {
        let labels =
            [("namespace", namespace.as_str()), ("name", name.as_str()), ("endpoint", endpoint.as_str())];
        ConstGauge::new(i64::from(state.number())).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
