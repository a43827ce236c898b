//! The connection pool settings of a `Database`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::Duration;

/// Connection pool settings, per server. Objects with the same server, credential and pool settings share a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("pool.min must be at most pool.max"))]
#[x_kube(validation = Rule::new("duration(self.monitorInterval) >= duration('5s')")
    .message("pool.monitorInterval must be at least 5s"))]
pub struct Pool {
    /// Maximum number of connections.
    #[serde(default = "pool_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// Minimum number of connections, which stay open when idle.
    #[serde(default = "pool_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,
    /// Maximum time that a caller waits for a connection.
    #[serde(default = "pool_acquire_timeout")]
    pub acquire_timeout: Duration,
    /// Idle time after which a connection is closed; `min` connections stay open.
    #[serde(default = "pool_idle_timeout")]
    pub idle_timeout: Duration,
    /// Maximum age of a connection, after which it is closed. On mongodb connections are kept, and only the probe
    /// logs in again.
    #[serde(default = "pool_max_lifetime")]
    pub max_lifetime: Duration,
    /// Interval at which pool usage is checked; at least 5s.
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
