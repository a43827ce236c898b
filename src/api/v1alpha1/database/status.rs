//! The status of a `Database`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// What is known of the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// What every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// The server that answers; of several, the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The connection pool of the operator's process, as last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolStatus>,
    /// Declared queries that cannot be prepared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_queries: Vec<InvalidQuery>,
}

/// The server that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Its version, such as `15.18`.
    pub version: String,
    /// `Primary` or `Replica`.
    pub role: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// What tells this server from another one at the same address: PostgreSQL's system identifier, MySQL's
    /// `server_uuid`, a replica set's id, Redis' run id. Absent where the server has none. Of several that take turns at
    /// the address, the one that was new last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// The connection pool: numbers ride along with other changes, the metrics have them live.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Open connections of the most allowed, such as `1/10`.
    pub summary: String,
    /// Open connections.
    pub size: u32,
    /// Open and free.
    pub idle: u32,
    /// Open and lent.
    pub in_use: u32,
    /// Callers that wait for one.
    pub waiting: u32,
    /// 95 % of the last callers got theirs within this many milliseconds.
    pub acquire_p95_ms: u64,
}

/// A declared query that cannot be prepared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvalidQuery {
    /// Its name.
    pub name: String,
    /// What the server says of it.
    pub message: String,
}

impl Status for DatabaseStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn forget_observations(&mut self) {
        self.common.forget_observations();
        self.server = None;
        self.pool = None;
        self.invalid_queries.clear();
    }

    fn forget_numbers(&mut self) {
        self.common.forget_numbers();
        self.pool = None;
    }
}
