//! The gateway: calls what the objects describe, for callers that have the permission. It watches the objects and never writes
//! them; what it has read last serves while the API server is away.

mod access_log;
mod body;
mod call_guard;
mod client_cache;
mod database;
mod eviction;
mod external_api;
mod family;
mod ldap_directory;
mod metrics;
mod openapi;
pub mod problem;
mod routes;
mod server;
mod service_registration;
mod usage;
mod webhook;

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub use family::permissions;
pub use metrics::FamilyMetrics;
pub use routes::Routes;
pub use server::{Listen, Server};

use crate::{
    api::HasKind,
    backends::{database::PoolRegistry, directory::DirectoryRegistry, http::Egress},
    cluster::{object_cache::Caches, references::References, review::Reviewer},
    delivery::Engine,
    store::Store,
    telemetry::metrics::Metrics,
};
use call_guard::CallCounters;
use family::Families;
use usage::Counters;

/// What the gateway needs of the process.
pub struct GatewayDeps {
    /// Reviews callers.
    pub reviewer: Reviewer,
    /// What specs name.
    pub references: Arc<dyn References>,
    /// The way to HTTP targets.
    pub egress: Egress,
    /// The database pools of the process.
    pub pools: Arc<PoolRegistry>,
    /// The directories of the process.
    pub directories: Arc<DirectoryRegistry>,
    /// Delivers events to Webhooks.
    pub engine: Engine,
    /// What outlives the process.
    pub store: Arc<Store>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The objects.
    pub caches: Caches,
    /// The zone of the gateway: endpoints there are called first.
    pub zone: Option<String>,
    /// Cancelled when the process is to end.
    pub stopping: CancellationToken,
}

/// What every route shares.
pub struct Gateway {
    families: Families,
    caches: Caches,
    counters: Arc<Counters>,
}

impl Gateway {
    /// A gateway that serves no calls yet: see [`Routes`] and [`Server`].
    #[must_use]
    pub fn new(deps: GatewayDeps) -> Self {
        let GatewayDeps {
            reviewer,
            references,
            egress,
            pools,
            directories,
            engine,
            store,
            metrics,
            caches,
            zone,
            stopping,
        } = deps;
        let counters = Arc::<Counters>::default();
        let deps = CallDeps {
            reviewer,
            references,
            egress,
            pools,
            directories,
            engine,
            store,
            metrics,
            counters: Arc::clone(&counters),
            zone,
            stopping,
            started: Instant::now(),
        };
        Self { families: Families::new(&Arc::new(deps), &caches), caches, counters }
    }

    /// Keeps the delivery engine up to date until `stop` is cancelled.
    pub async fn follow_webhooks(&self, stop: CancellationToken) {
        self.families.webhook.follow(stop).await;
    }
}

/// What calls use, and the clients that they go by.
struct CallDeps {
    reviewer: Reviewer,
    /// The values of Secrets and ConfigMaps.
    references: Arc<dyn References>,
    egress: Egress,
    pools: Arc<PoolRegistry>,
    directories: Arc<DirectoryRegistry>,
    engine: Engine,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    zone: Option<String>,
    stopping: CancellationToken,
    /// When the gateway started.
    started: Instant,
}

impl CallDeps {
    /// What counts the calls of the object.
    fn counters<K: HasKind>(&self, object: &K) -> CallCounters {
        let meta = object.meta();
        let [namespace, name, uid] =
            [&meta.namespace, &meta.name, &meta.uid].map(|text| text.as_deref().unwrap_or_default());
        CallCounters {
            calls: self.metrics.gateway.calls(K::KIND, namespace, name).into(),
            tally: Some(self.counters.of(uid)),
        }
    }
}
