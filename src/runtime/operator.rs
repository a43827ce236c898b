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
    backends::{database::Servers, http::Egress},
    cluster::catalog::Catalog,
    controllers::{
        Plane, Reconciler, Sources, database::Databases, engine::Engine, external_api::ExternalApis,
        service_registration::ServiceRegistrations,
    },
};

/// The engines, whose watches the gateway reads from as well.
pub(super) struct Operator {
    engines: Vec<Arc<dyn Leads>>,
    pub(super) databases: Catalog<Database>,
    pub(super) external_apis: Catalog<ExternalApi>,
    pub(super) registrations: Catalog<ServiceRegistration>,
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
        plane: &Plane,
        sources: &[Arc<Sources>],
        servers: &Arc<Servers>,
        registry: &mut Registry,
    ) -> Self {
        let egress = Egress::guarded((*plane.egress).clone(), Arc::clone(&plane.resolver));
        let databases = Arc::new(Databases::new(Arc::clone(&plane.metrics), Arc::clone(servers)));
        let external_apis = Arc::new(ExternalApis::new(Arc::clone(&plane.metrics), egress));
        let egress = Egress::to_endpoints((*plane.egress).clone(), Arc::clone(&plane.resolver));
        let registrations = Arc::new(ServiceRegistrations::new(Arc::clone(&plane.metrics), egress));
        let mut start = Start { engines: Vec::new(), plane, sources };
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
    plane: &'a Plane,
    sources: &'a [Arc<Sources>],
}

impl Start<'_> {
    /// Starts an engine for each scope.
    fn kind<R: Reconciler>(&mut self, reconciler: &Arc<R>) -> Catalog<R::Object> {
        let (mut stores, mut changes) = (Vec::new(), Vec::new());
        for sources in self.sources {
            let engine = Arc::new(Engine::start(Arc::clone(reconciler), self.plane.clone(), sources));
            stores.push(engine.store());
            changes.push(engine.changes());
            self.engines.push(engine);
        }
        Catalog::new(stores, changes)
    }
}
