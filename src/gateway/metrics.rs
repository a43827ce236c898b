//! Metrics of the families that are read at each scrape: no series outlives its object.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::Gateway;

/// Reads what the families of a gateway have to show.
pub struct FamilyMetrics(Arc<Gateway>);

impl FamilyMetrics {
    /// Those of this gateway.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self(gateway)
    }
}

impl fmt::Debug for FamilyMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FamilyMetrics")
    }
}

impl Collector for FamilyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.families.all().try_for_each(|family| family.encode_metrics(&mut encoder))
    }
}
