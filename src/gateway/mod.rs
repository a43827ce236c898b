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
    api::v1alpha1::{Database, ExternalApi, ServiceRegistration},
    backends::{database::PoolRegistry, http::Egress},
    cluster::{object_cache::ObjectCache, references::References, review::Reviewer},
    telemetry::metrics::Metrics,
};
use client_cache::{CallDeps, ClientCache};
use usage::Counters;

/// What the gateway needs of the process.
pub struct GatewayDeps {
    /// Asks who callers are.
    pub reviewer: Reviewer,
    /// The values of Secrets and ConfigMaps.
    pub references: Arc<dyn References>,
    /// The way out.
    pub egress: Egress,
    /// The databases of the process.
    pub servers: Arc<PoolRegistry>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The objects.
    pub external_apis: ObjectCache<ExternalApi>,
    /// The objects.
    pub databases: ObjectCache<Database>,
    /// The objects.
    pub registrations: ObjectCache<ServiceRegistration>,
    /// Where the gateway is: endpoints there are record first.
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
            servers: parts.servers,
            metrics: Arc::clone(&parts.metrics),
            counters: Arc::clone(&counters),
            zone: parts.zone,
            started: Instant::now(),
        });
        Self {
            apis: ClientCache::new(parts.external_apis, Arc::clone(&deps)),
            databases: ClientCache::new(parts.databases, deps),
            registrations: parts.registrations,
            stopping: parts.stopping,
            reviewer: parts.reviewer,
            metrics: parts.metrics,
            counters,
        }
    }
}
