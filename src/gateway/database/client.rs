//! The client of a Database: its servers with their pools, and its declared queries.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    api::{
        status::EndpointStatus,
        v1alpha1::{
            Database,
            database::{Query, QueryLimits},
        },
    },
    backends::{
        database::{PoolHandle, ServerSettings},
        transport::endpoint,
    },
    cluster::references::References,
    gateway::{
        CallDeps,
        call_guard::CallCounters,
        client_cache::BuildClient,
        problem::{Problem, ProblemKind},
    },
    resolving::{self, Resolved},
};

/// The servers of a Database with their pools, and what it declares.
pub(super) struct DatabaseClient {
    pub(super) servers: Vec<Arc<PoolHandle>>,
    pub(super) engine: &'static str,
    pub(super) queries: HashMap<String, Arc<Query>>,
    pub(super) limits: QueryLimits,
    pub(super) call_counters: CallCounters,
    /// The server that runs statements: a primary whose probes pass, else any whose probes pass, else the first.
    chosen: AtomicUsize,
}

impl BuildClient for DatabaseClient {
    type Object = Database;
    type Settings = ServerSettings;

    async fn resolve(
        database: &Database,
        references: &dyn References,
    ) -> Result<Resolved<ServerSettings>, resolving::Unresolved> {
        resolving::database::resolve(database, references).await
    }

    fn key(settings: &ServerSettings) -> [u8; 32] {
        settings.key()
    }

    fn build(database: &Database, settings: Vec<ServerSettings>, deps: &CallDeps) -> Result<Self, Problem> {
        let servers = settings.into_iter().map(|it| deps.pools.handle(it)).collect::<Result<_, _>>();
        let spec = &database.spec;
        Ok(Self {
            servers: servers.map_err(|fault| Problem::new(ProblemKind::NotReady, fault.message()))?,
            engine: spec.engine.as_str(),
            queries: spec.queries.iter().map(|it| (it.name.clone(), Arc::new(it.clone()))).collect(),
            limits: spec.query.clone(),
            call_counters: deps.counters(database),
            chosen: 0.into(),
        })
    }

    fn observe_status(&self, database: &Database) {
        let endpoints = database.status.iter().flat_map(|status| &status.common.endpoints);
        let ready = || endpoints.clone().filter(|endpoint| endpoint.ready);
        let primary = |endpoint: &&EndpointStatus| endpoint.role.as_deref() == Some("Primary");
        // By address, since the status may be about earlier hosts.
        let server = |status: &EndpointStatus| {
            let address = endpoint(&status.address, status.port);
            self.servers.iter().position(|server| server.endpoint() == address)
        };
        let chosen = ready().filter(primary).find_map(server).or_else(|| ready().find_map(server));
        let chosen = chosen.unwrap_or_default();
        self.chosen.store(chosen, Relaxed);
    }
}

impl DatabaseClient {
    /// The server that runs statements.
    pub(super) fn server(&self) -> Option<&Arc<PoolHandle>> {
        self.servers.get(self.chosen.load(Relaxed)).or(self.servers.first())
    }
}
