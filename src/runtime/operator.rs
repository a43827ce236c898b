//! The operator: an engine for each kind and each scope.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::conditions::{ConditionMetrics, HasConditions};
use crate::{
    api::for_each_kind,
    cluster::object_cache::{Caches, ObjectCache},
    controllers::{self, ControllerDeps, Reconciler, ReconcilerDeps, engine::Engine},
};

/// The engines.
pub(super) struct Operator(Vec<Arc<dyn Leads>>);

/// An engine of whatever kind.
trait Leads: HasConditions {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()>;
    fn on_leadership_lost(&self) -> BoxFuture<'_, ()>;
}

impl<R: Reconciler> Leads for Engine<R> {
    fn lead(&self, halt: CancellationToken) -> BoxFuture<'_, ()> {
        Engine::lead(self, halt).boxed()
    }

    fn on_leadership_lost(&self) -> BoxFuture<'_, ()> {
        Engine::on_leadership_lost(self).boxed()
    }
}

macro_rules! start_engines {
    ($($Kind:ident => $module:ident,)+) => {
        /// One for each kind and each scope of its cache.
        fn start_engines(
            deps: &ControllerDeps,
            reconciler_deps: &ReconcilerDeps,
            caches: &Caches,
        ) -> Vec<Arc<dyn Leads>> {
            let mut engines = Vec::new();
            $(
                let reconciler = Arc::new(controllers::$module::Controller::new(reconciler_deps));
                engines.extend(start(&reconciler, deps, &caches.$module));
            )+
            engines
        }
    };
}

for_each_kind!(start_engines);

fn start<R: Reconciler>(
    reconciler: &Arc<R>,
    deps: &ControllerDeps,
    cache: &ObjectCache<R::Object>,
) -> impl Iterator<Item = Arc<dyn Leads>> {
    cache
        .scopes()
        .iter()
        .map(|scope| Arc::new(Engine::start(Arc::clone(reconciler), deps.clone(), scope)) as Arc<dyn Leads>)
}

impl Operator {
    /// Subscribes the engines of every kind to the caches.
    pub(super) fn start(
        deps: &ControllerDeps,
        reconciler_deps: &ReconcilerDeps,
        caches: &Caches,
        registry: &mut Registry,
    ) -> Self {
        let engines = start_engines(deps, reconciler_deps, caches);
        let sources = engines.iter().map(|engine| Arc::clone(engine) as Arc<dyn HasConditions>);
        registry.register_collector(Box::new(ConditionMetrics::new(sources)));
        Self(engines)
    }

    /// Reconciles the objects of every kind, see [`Engine::lead`].
    pub(super) async fn lead(&self, halt: CancellationToken) {
        join_all(self.0.iter().map(|engine| engine.lead(halt.clone()))).await;
    }

    /// This process leads no more, see [`Reconciler::on_leadership_lost`].
    pub(super) async fn on_leadership_lost(&self) {
        join_all(self.0.iter().map(|engine| engine.on_leadership_lost())).await;
    }
}
