//! Database servers behind one trait: [`connect`] chooses the product.

mod logins;
mod mongodb;
mod mysql;
mod pool;
mod postgresql;
mod query;
mod redis;
mod registry;
pub mod settings;
mod sql;
pub mod uri;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Fault, http::Egress};
use crate::{
    api::v1alpha1::database::{Engine, Query},
    telemetry::metrics::Observed,
};

pub use pool::PoolView;
pub use query::{Answer, Item, QueryFault, Run};
pub use registry::{PoolHandle, PoolRegistry};
pub use settings::{Credential, PoolSettings, ServerSettings};

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its version; empty where the account may not ask.
    pub version: String,
    /// What it does.
    pub role: Role,
    /// What tells it from another server at the same address.
    pub identity: Option<String>,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    #[default]
    Primary,
    /// Follows another one.
    Replica,
}

impl Role {
    /// As users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Replica => "Replica",
        }
    }
}

/// One server with one credential: its pool, and what can be asked of it.
pub trait Database: Send + Sync + 'static {
    /// Asks the server who it is, over a pooled connection. One that was open before and fails, or says nothing for half of
    /// the time of a probe, is not the verdict: a new one is tried. Where nobody has logged in for five minutes (or
    /// `pool.maxLifetime`, if that is shorter), it logs in anew over a connection of its own, so that a revoked credential
    /// shows; likewise where callers have lent the whole pool.
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>>;

    /// Checks a declared query without running it, as far as the engine can: what passes can be run.
    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>>;

    /// Runs a declared query on a pooled connection, while its answer is read. `observed` counts how it ends.
    fn run(self: Arc<Self>, run: Run, observed: Observed) -> Answer;

    /// Closes connections that are idle for too long or too old, and opens up to `pool.min`.
    fn tend(&self) -> BoxFuture<'_, ()>;

    /// The pool as it is now.
    fn pool(&self) -> PoolView;

    /// Closes every connection; those that are lent close when they come back.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Prepares everything, and connects at the first probe: by `egress`, save where the driver finds the host by itself, which
/// those of mysql and mongodb do.
///
/// # Errors
/// A setting that the driver cannot use.
pub fn connect(settings: ServerSettings, egress: Egress) -> Result<Arc<dyn Database>, Fault> {
    // Sooner than whoever waits for a probe gives up: so it is told that it was the name.
    let patience = settings.timeout * 9 / 10;
    let system = Egress::unrestricted().with_lookup_timeout(patience);
    let egress = egress.with_lookup_timeout(patience);
    Ok(match settings.engine {
        Engine::Postgresql => {
            Arc::new(pool::Pooled::new(postgresql::Postgresql::new(&settings, egress), settings)?)
        }
        Engine::Mysql => Arc::new(pool::Pooled::new(mysql::Mysql::new(&settings, system), settings)?),
        Engine::Redis => Arc::new(pool::Pooled::new(redis::Redis::new(&settings, egress), settings)?),
        Engine::Mongodb => Arc::new(mongodb::Mongodb::new(settings, system)?),
    })
}
