//! The operator: an engine for each kind and each scope.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::conditions::{Conditions, HasConditions};
use crate::{
    api::v1alpha1::{Database, ExternalApi, ServiceRegistration},
    backends::{database::PoolRegistry, http::Egress},
    cluster::object_cache::ObjectCache,
    controllers::{
        ControllerDeps, Reconciler, SharedWatches, database::Databases, engine::Engine,
        external_api::ExternalApis, service_registration::ServiceRegistrations,
    },
};

/// The engines, whose watches the gateway reads from as well.
pub(super) struct Operator {
    engines: Vec<Arc<dyn Leads>>,
    pub(super) databases: ObjectCache<Database>,
    pub(super) external_apis: ObjectCache<ExternalApi>,
    pub(super) registrations: ObjectCache<ServiceRegistration>,
}

/// An engine of whatever kind.
trait Leads: HasConditions {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()>;
}

impl<R: Reconciler> Leads for Engine<R> {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()> {
        Engine::lead(self, halt).boxed()
    }
}

impl Operator {
    /// Starts the watches of every kind: a new kind is two more lines here.
    pub(super) fn start(
        deps: &ControllerDeps,
        shared_watches: &[Arc<SharedWatches>],
        servers: &Arc<PoolRegistry>,
        registry: &mut Registry,
    ) -> Self {
        let egress = Egress::guarded((*deps.egress).clone(), Arc::clone(&deps.resolver));
        let databases = Arc::new(Databases::new(Arc::clone(&deps.metrics), Arc::clone(servers)));
        let external_apis = Arc::new(ExternalApis::new(Arc::clone(&deps.metrics), egress));
        let egress = Egress::to_endpoints((*deps.egress).clone(), Arc::clone(&deps.resolver));
        let registrations = Arc::new(ServiceRegistrations::new(Arc::clone(&deps.metrics), egress));
        let mut start = Start { engines: Vec::new(), deps, shared_watches };
        let databases = start.kind(&databases);
        let external_apis = start.kind(&external_apis);
        let registrations = start.kind(&registrations);
        let engines = start.engines;
        let told = engines.iter().map(|engine| Arc::clone(engine) as Arc<dyn HasConditions>);
        registry.register_collector(Box::new(Conditions::new(told)));
        Self { engines, databases, external_apis, registrations }
    }

    /// Runs the passes of every kind, see [`Engine::lead`].
    pub(super) async fn lead(&self, halt: CancellationToken) {
        join_all(self.engines.iter().map(|engine| engine.lead(halt.clone()))).await;
    }
}

/// What every kind is started with.
struct Start<'a> {
    engines: Vec<Arc<dyn Leads>>,
    deps: &'a ControllerDeps,
    shared_watches: &'a [Arc<SharedWatches>],
}

impl Start<'_> {
    /// Starts an engine for each scope.
    fn kind<R: Reconciler>(&mut self, reconciler: &Arc<R>) -> ObjectCache<R::Object> {
        let (mut stores, mut changes) = (Vec::new(), Vec::new());
        for shared_watches in self.shared_watches {
            let engine = Arc::new(Engine::start(Arc::clone(reconciler), self.deps.clone(), shared_watches));
            stores.push(engine.store());
            changes.push(engine.changes());
            self.engines.push(engine);
        }
        ObjectCache::new(stores, changes)
    }
}
