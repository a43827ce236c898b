//! The pools' metrics, read at each scrape.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::backends::database::{PoolRegistry, PoolView};

/// Reads every pool that exists.
pub(super) struct PoolMetrics(Arc<PoolRegistry>);

impl PoolMetrics {
    pub(super) fn new(servers: Arc<PoolRegistry>) -> Self {
        Self(servers)
    }
}

impl std::fmt::Debug for PoolMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolMetrics")
    }
}

impl Collector for PoolMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Several pools may reach one endpoint with different credentials: what they have is added up.
        let mut pools = std::collections::BTreeMap::<_, PoolView>::new();
        for server in self.0.in_use() {
            let view = server.pool();
            let sum = pools.entry((server.engine(), server.endpoint().to_owned())).or_default();
            sum.size += view.size;
            sum.idle += view.idle;
            sum.waiting += view.waiting;
            sum.max += view.max;
            sum.acquire_p95 = sum.acquire_p95.max(view.acquire_p95);
        }
        let mut family = encoder.encode_descriptor(
            "db_pool_connections",
            "Connections of the pools, by state",
            None,
            MetricType::Gauge,
        )?;
        for ((engine, endpoint), view) in &pools {
            let in_use = view.size.saturating_sub(view.idle);
            let states = [
                ("size", view.size),
                ("idle", view.idle),
                ("in_use", in_use),
                ("waiting", view.waiting),
                ("max", view.max),
            ];
            for (state, count) in states {
                let labels = [("engine", *engine), ("endpoint", endpoint), ("state", state)];
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "db_pool_acquire_p95_seconds",
            "95 % of the last 64 callers got a connection within this time",
            None,
            MetricType::Gauge,
        )?;
        for ((engine, endpoint), view) in &pools {
            let labels = [("engine", *engine), ("endpoint", endpoint.as_str())];
            ConstGauge::new(view.acquire_p95.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
