//! The status of a `Database`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// The observed state of a Database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Fields that every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// The server; with several hosts, the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// When certificates expire; only with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// The connection pool of the operator process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolStatus>,
    /// Declared queries that are invalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_queries: Vec<InvalidQuery>,
}

/// The server that responds to probes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Version of the server, such as `15.18`.
    pub version: String,
    /// `Primary`, or `Replica` for a server that refuses writes.
    pub role: String,
    /// `Cluster` for a node of a Redis Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Unique ID of the server: system identifier (PostgreSQL), `server_uuid` (MySQL), replica set ID (MongoDB) or
    /// run ID (Redis). Absent if the server has none. If several servers alternate at the address, the one that was
    /// first seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// When certificates expire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsStatus {
    /// When the server certificate expires; with several servers, the earliest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When the client certificate of `tls.clientCertRef` expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_not_after: Option<Time>,
}

/// The connection pool. The numbers are updated along with other changes; the metrics have current ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Open connections and the maximum, such as `1/10`.
    pub summary: String,
    /// Number of open connections.
    pub size: u32,
    /// Number of idle connections.
    pub idle: u32,
    /// Number of connections in use.
    pub in_use: u32,
    /// Number of callers waiting for a connection.
    pub waiting: u32,
    /// 95th percentile of the time to acquire a connection, in milliseconds.
    pub acquire_p95_ms: u64,
}

/// A declared query that is invalid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvalidQuery {
    /// Name of the query.
    pub name: String,
    /// The error message of the server.
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
        self.tls = None;
        self.pool = None;
        self.invalid_queries.clear();
    }

    fn forget_numbers(&mut self) {
        self.common.forget_numbers();
        self.pool = None;
    }
}
