//! The operator: an engine for each kind and each scope.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::{http::Conditions, pools::Pools};
use crate::{
    backends::http::Egress,
    controllers::{
        Plane, Reconciler, Sources, database::Databases, engine::Engine, external_api::ExternalApis,
        service_registration::ServiceRegistrations,
    },
};

/// The engines.
pub(super) struct Operator(Vec<Arc<dyn Leads>>);

/// An engine of whatever kind.
trait Leads: Send + Sync {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()>;
}

impl<R: Reconciler> Leads for Engine<R> {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()> {
        Engine::lead(self, halt).boxed()
    }
}

impl Operator {
    /// Starts the watches of every kind: a new kind is two more lines here.
    pub(super) fn start(plane: &Plane, sources: &[Arc<Sources>], registry: &mut Registry) -> Self {
        let egress = Egress::guarded((*plane.egress).clone(), Arc::clone(&plane.resolver));
        let databases = Arc::new(Databases::new(Arc::clone(&plane.metrics)));
        let external_apis = Arc::new(ExternalApis::new(Arc::clone(&plane.metrics), egress));
        let egress = Egress::to_endpoints((*plane.egress).clone(), Arc::clone(&plane.resolver));
        let registrations = Arc::new(ServiceRegistrations::new(Arc::clone(&plane.metrics), egress));
        registry.register_collector(Box::new(Pools::new(Arc::clone(&databases))));
        let mut operator = Self(Vec::new());
        operator.run(&databases, plane, sources, registry);
        operator.run(&external_apis, plane, sources, registry);
        operator.run(&registrations, plane, sources, registry);
        operator
    }

    fn run<R: Reconciler>(
        &mut self,
        reconciler: &Arc<R>,
        plane: &Plane,
        sources: &[Arc<Sources>],
        registry: &mut Registry,
    ) {
        for sources in sources {
            let engine = Arc::new(Engine::start(Arc::clone(reconciler), plane.clone(), sources));
            registry.register_collector(Box::new(Conditions::new(Arc::clone(&engine))));
            self.0.push(engine);
        }
    }

    /// Runs the passes of every kind, see [`Engine::lead`].
    pub(super) fn lead(&self, halt: CancellationToken) -> impl Future<Output = ()> {
        join_all(self.0.iter().map(move |engine| engine.lead(halt.clone()))).map(drop)
    }
}
