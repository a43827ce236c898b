//! The gateway: calls what the objects describe, for callers that have the right to. It watches the objects and never
//! writes them; what it has read last serves while the API server is away.

mod apis;
mod audit;
mod caller;
mod circuits;
mod counts;
mod discovery;
mod openapi;
pub mod problem;
mod queries;
mod ready;
mod routes;
mod server;
mod sweep;

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub use circuits::Circuits;
pub use routes::Routes;
pub use server::{Listen, Server};

use crate::{
    api::v1alpha1::{Database, ExternalApi, ServiceRegistration},
    backends::{database, http::Egress},
    cluster::{catalog::Catalog, references::References, review::Reviewer},
    telemetry::metrics::Metrics,
};
use counts::Counters;
use ready::{Ready, World};

/// What the gateway needs of the process.
pub struct Parts {
    /// Asks who callers are.
    pub reviewer: Reviewer,
    /// The values of Secrets and ConfigMaps.
    pub references: Arc<dyn References>,
    /// The way out.
    pub egress: Egress,
    /// The databases of the process.
    pub servers: Arc<database::Servers>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The objects.
    pub external_apis: Catalog<ExternalApi>,
    /// The objects.
    pub databases: Catalog<Database>,
    /// The objects.
    pub registrations: Catalog<ServiceRegistration>,
    /// Where the gateway is: endpoints there are called first.
    pub zone: Option<String>,
    /// Cancelled when the process is to end.
    pub stopping: CancellationToken,
}

/// What every route shares.
pub struct Gateway {
    reviewer: Reviewer,
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    apis: Ready<apis::Prepared>,
    databases: Ready<queries::Servers>,
    registrations: Catalog<ServiceRegistration>,
    stopping: CancellationToken,
}

type State = axum::extract::State<Arc<Gateway>>;

impl Gateway {
    /// Made of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let counters = Arc::<Counters>::default();
        let world = Arc::new(World {
            references: parts.references,
            egress: parts.egress,
            servers: parts.servers,
            metrics: Arc::clone(&parts.metrics),
            counters: Arc::clone(&counters),
            zone: parts.zone,
            started: Instant::now(),
        });
        Self {
            apis: Ready::new(parts.external_apis, Arc::clone(&world)),
            databases: Ready::new(parts.databases, world),
            registrations: parts.registrations,
            stopping: parts.stopping,
            reviewer: parts.reviewer,
            metrics: parts.metrics,
            counters,
        }
    }
}
