//! The gateway: calls what the objects describe, for callers that have the permission to. It watches the objects and never
//! writes them; what it has read last serves while the API server is away.

mod access_log;
mod caller;
mod circuits;
mod client_cache;
mod database;
mod eviction;
mod external_api;
mod openapi;
pub mod problem;
mod routes;
mod server;
mod service_registration;
mod usage;

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub use circuits::Circuits;
pub use routes::Routes;
pub use server::{Listen, Server};

use crate::{
    api::v1alpha1::ServiceRegistration,
    backends::{database::PoolRegistry, http::Egress},
    cluster::{
        object_cache::{Caches, ObjectCache},
        references::References,
        review::Reviewer,
    },
    telemetry::metrics::Metrics,
};
use client_cache::{CallDeps, ClientCache};
use usage::Counters;

/// What the gateway needs of the process.
pub struct GatewayDeps {
    /// Reviews callers.
    pub reviewer: Reviewer,
    /// What specs name.
    pub references: Arc<dyn References>,
    /// The way out.
    pub egress: Egress,
    /// The database pools of the process.
    pub pools: Arc<PoolRegistry>,
    /// Counters.
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
    reviewer: Reviewer,
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    apis: ClientCache<external_api::ApiClient>,
    databases: ClientCache<database::DatabaseClient>,
    registrations: ObjectCache<ServiceRegistration>,
    stopping: CancellationToken,
}

type State = axum::extract::State<Arc<Gateway>>;

impl Gateway {
    /// CachedClient of these parts.
    #[must_use]
    pub fn new(parts: GatewayDeps) -> Self {
        let counters = Arc::<Counters>::default();
        let deps = Arc::new(CallDeps {
            references: parts.references,
            egress: parts.egress,
            pools: parts.pools,
            metrics: Arc::clone(&parts.metrics),
            counters: Arc::clone(&counters),
            zone: parts.zone,
            started: Instant::now(),
        });
        Self {
            apis: ClientCache::new(parts.caches.external_api, Arc::clone(&deps)),
            databases: ClientCache::new(parts.caches.database, deps),
            registrations: parts.caches.service_registration,
            stopping: parts.stopping,
            reviewer: parts.reviewer,
            metrics: parts.metrics,
            counters,
        }
    }
}
