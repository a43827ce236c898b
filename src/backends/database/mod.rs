//! Database servers behind one trait; [`connect`] selects the implementation of the engine.

mod deadline;
mod last_login;
mod mongodb;
mod mysql;
mod pool;
mod postgresql;
mod query;
mod redis;
mod registry;
mod relay;
pub mod settings;
mod sql;
mod tls;
pub mod uri;

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{Fault, http::Egress};
use crate::{
    api::v1alpha1::database::{Engine, Query},
    telemetry::metrics::Observed,
};

pub use pool::PoolView;
pub use query::{BoundQuery, Item, QueryFault, RowStream};
pub use registry::{PoolHandle, PoolRegistry};
pub use settings::{Credential, PoolSettings, ServerSettings};

/// What a server reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its version; empty if the account may not read it.
    pub version: String,
    /// Its replication role.
    pub role: Role,
    /// Distinguishes it from another server at the same address.
    pub identity: Option<String>,
    /// Whether it is a node of a cluster that shards its data.
    pub clustered: bool,
    /// When its certificate expires.
    pub not_after: Option<Timestamp>,
}

/// A server's replication role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Accepts writes.
    #[default]
    Primary,
    /// Refuses writes: it follows a primary, or is set to be read-only.
    Replica,
}

impl Role {
    /// As written to the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Replica => "Replica",
        }
    }
}

/// One server with one credential, and its connection pool.
pub trait Database: Send + Sync + 'static {
    /// Probes the server over a pooled connection. If a reused connection fails, or does not respond for half of the probe's timeout, a
    /// new one is tried. If the last login is older than five minutes (or `pool.maxLifetime`, if that is shorter), the probe logs in
    /// over a new connection, so that a revoked credential is noticed; likewise if callers have exhausted the pool.
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>>;

    /// Checks a declared query without running it, as far as the engine can.
    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>>;

    /// Runs a declared query on a pooled connection while its stream is polled. `observed` records the outcome.
    fn run(self: Arc<Self>, query: BoundQuery, observed: Observed) -> RowStream;

    /// Closes connections that exceed `pool.idleTimeout` or `pool.maxLifetime`, and opens up to `pool.min`.
    fn maintain(&self) -> BoxFuture<'_, ()>;

    /// A snapshot of the pool.
    fn pool(&self) -> PoolView;

    /// Closes every connection; those in use close when they are released.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Prepares the pool, which connects on first use, through `egress`.
///
/// # Errors
/// A setting that the driver rejects.
pub fn connect(settings: ServerSettings, egress: Egress) -> Result<Arc<dyn Database>, Fault> {
    // Sooner than whoever waits for a probe gives up: so it is told that it was the name.
    let patience = settings.timeout * 9 / 10;
    let egress = egress.with_lookup_timeout(patience);
    Ok(match settings.engine {
        Engine::Postgresql => {
            Arc::new(pool::DatabasePool::new(postgresql::Postgresql::new(&settings, egress), settings)?)
        }
        Engine::Mysql => Arc::new(pool::DatabasePool::new(mysql::Mysql::new(&settings, egress)?, settings)?),
        Engine::Redis => Arc::new(pool::DatabasePool::new(redis::Redis::new(&settings, egress), settings)?),
        Engine::Mongodb => Arc::new(mongodb::Mongodb::new(settings, egress)?),
    })
}
