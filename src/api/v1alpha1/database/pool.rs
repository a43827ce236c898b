//! The bounds of a `Database`'s connection pool.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::Duration;

/// The connections that authlink keeps, for each server. Objects with the same target, credential and pool share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("pool.min must be at most pool.max"))]
#[x_kube(validation = Rule::new("duration(self.monitorInterval) >= duration('5s')")
    .message("pool.monitorInterval must be at least 5s"))]
pub struct Pool {
    /// Connections at the most.
    #[serde(default = "pool_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// Connections that are kept open when nobody needs them.
    #[serde(default = "pool_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,
    /// How long a caller waits for a connection.
    #[serde(default = "pool_acquire_timeout")]
    pub acquire_timeout: Duration,
    /// A connection that nobody used for so long is closed, down to `min`.
    #[serde(default = "pool_idle_timeout")]
    pub idle_timeout: Duration,
    /// A connection older than this is closed; on mongodb it stays, and only a probe logs in anew.
    #[serde(default = "pool_max_lifetime")]
    pub max_lifetime: Duration,
    /// How often the pool is looked at; at least 5s.
    #[serde(default = "pool_monitor_interval")]
    pub monitor_interval: Duration,
}

fn pool_max() -> u32 {
    10
}
fn pool_min() -> u32 {
    1
}
fn pool_acquire_timeout() -> Duration {
    Duration::from_secs(5)
}
fn pool_idle_timeout() -> Duration {
    Duration::from_secs(600)
}
fn pool_max_lifetime() -> Duration {
    Duration::from_secs(1800)
}
fn pool_monitor_interval() -> Duration {
    Duration::from_secs(30)
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max: pool_max(),
            min: pool_min(),
            acquire_timeout: pool_acquire_timeout(),
            idle_timeout: pool_idle_timeout(),
            max_lifetime: pool_max_lifetime(),
            monitor_interval: pool_monitor_interval(),
        }
    }
}
