//! One controller for each kind, and the engine that runs them all.

mod background;
mod coalescer;
pub mod database;
mod discovery;
pub mod engine;
pub mod error;
pub mod external_api;
pub mod ldap_directory;
mod object_index;
mod object_state;
mod owned;
mod predicate;
mod reconcile;
mod report;
pub mod service_registration;
pub mod targets;
mod triggers;
pub mod usage_reader;
pub mod webhook;

use std::{sync::Arc, time::Duration};

use kube::{Client, Resource, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

pub use background::{BackgroundJobs, Job, JobContext, JobState};
pub use error::Error;
pub use object_index::ObjectIndex;
pub use reconcile::FINALIZER;
pub use report::{EventRecord, Report};
pub use usage_reader::UsageReader;
pub use webhook::DeliveryReader;

use crate::{
    api::{Managed, shared::Reference},
    backends::{database::PoolRegistry, directory::DirectoryRegistry, http::Egress, resolver::Resolver},
    cluster::{
        events::Events,
        fence::Fence,
        references::{ClusterReferences, References},
        service_publisher::ServicePublisher,
    },
    domain::addresses,
    store::Store,
    telemetry::metrics::Metrics,
};

/// The status of a reconciler's kind.
pub type StatusOf<R> = <<R as Reconciler>::Object as kube::core::object::HasStatus>::Status;

/// Requeues one object, from anywhere.
pub type RequeueFn = Arc<dyn Fn() + Send + Sync>;

/// What it takes to be a kind. The engine does everything that is the same for all: watches, predicates, references, finalizer,
/// suspension, timeout, backoff, the status write, Events and metrics.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Object: Object;

    /// Its name in logs, metrics and Events.
    const NAME: &'static str;

    /// Whether one reconcile of any object that has this reference serves all that have it: then a change of it requeues one of
    /// them, and not each.
    #[must_use]
    fn coalesces(reference: &Reference) -> bool {
        let _ = reference;
        false
    }

    /// The objects of a scope, for kinds whose objects depend on each other; once for each scope, at the start.
    fn set_index(&self, objects: ObjectIndex<Self::Object>) {
        let _ = objects;
    }

    /// Resolves, connects and observes: everything but writing. `authlink check` does just this.
    ///
    /// # Errors
    /// What keeps the object from being observed.
    fn observe(
        &self,
        object: &Self::Object,
        cx: &ObserveContext<'_>,
    ) -> impl Future<Output = Result<Report<StatusOf<Self>>, Error>> + Send;

    /// Observes, decides and acts: makes the object true as far as possible, and reports what was found.
    ///
    /// # Errors
    /// What keeps the object from being reconciled.
    fn reconcile(
        &self,
        object: &Self::Object,
        cx: &ReconcileContext,
    ) -> impl Future<Output = Result<Report<StatusOf<Self>>, Error>> + Send;

    /// An object of this uid cannot be reconciled as it is, or cannot be read: what it has published must not serve any more as
    /// if somebody observed it.
    ///
    /// # Errors
    /// What kept that from being written.
    fn reject(
        &self,
        namespace: &str,
        uid: &str,
        cx: &ReconcileContext,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (namespace, uid, cx);
        std::future::ready(Ok(()))
    }

    /// Cleans up before the object goes; called only for objects with external state, until it is done.
    ///
    /// # Errors
    /// What kept it from being cleaned up.
    fn finalize(
        &self,
        object: &Self::Object,
        cx: &ReconcileContext,
    ) -> impl Future<Output = Result<Finalized, Error>> + Send {
        let _ = (object, cx);
        std::future::ready(Ok(Finalized::Done))
    }

    /// The object is gone or suspended: drop what is kept for this uid.
    fn forget(&self, uid: &str) {
        let _ = uid;
    }

    /// This process leads no more: end background work, and drop what is kept for every object. A standby has warm caches and
    /// no connections. The caller waits for a bounded time.
    fn on_leadership_lost(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// An object that the engine can run.
pub trait Object:
    Managed
    + Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<T> Object for T where
    T: Managed
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// How far an object is finalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalized {
    /// The object may go.
    Done,
    /// All is well, and there is more to do after this time: the object stays at least so long.
    RequeueAfter(Duration),
}

/// What an observation may use.
#[derive(Clone, Copy)]
pub struct ObserveContext<'a> {
    /// What specs name: of the cluster, or of the files of `authlink check`.
    pub references: &'a dyn References,
    /// Requeues the object.
    pub requeue: &'a RequeueFn,
}

/// What a reconcile may use.
pub struct ReconcileContext {
    /// The cluster.
    pub client: Client,
    /// What specs name.
    pub references: Arc<ClusterReferences>,
    /// Our Services and their slices.
    pub publisher: Arc<ServicePublisher>,
    /// Finds the addresses of host names.
    pub resolver: Arc<Resolver>,
    /// Which addresses may be reached.
    pub egress: Arc<addresses::Egress>,
    /// Whether this process may write.
    pub fence: Fence,
    /// Requeues the object.
    pub requeue: RequeueFn,
}

impl ReconcileContext {
    /// The same for an observation.
    #[must_use]
    pub fn observing(&self) -> ObserveContext<'_> {
        ObserveContext { references: self.references.as_ref(), requeue: &self.requeue }
    }
}

/// What the engines of the process share.
#[derive(Clone)]
pub struct ControllerDeps {
    /// The cluster.
    pub client: Client,
    /// Whether this process may write.
    pub fence: Fence,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Publishes Events.
    pub events: Arc<Events>,
    /// Finds the addresses of host names.
    pub resolver: Arc<Resolver>,
    /// Which addresses may be reached.
    pub egress: Arc<addresses::Egress>,
    /// How the engines work.
    pub config: engine::EngineConfig,
}

/// What the reconcilers of the process are made of, be they run by engines or by `authlink check`.
pub struct ReconcilerDeps {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What gateways count.
    pub usage: Arc<UsageReader>,
    /// What the delivery engine writes.
    pub deliveries: Arc<DeliveryReader>,
    /// The database pools of the process.
    pub pools: Arc<PoolRegistry>,
    /// The directories of the process.
    pub directories: Arc<DirectoryRegistry>,
    /// What outlives the process.
    pub store: Arc<Store>,
    /// The way to HTTP targets.
    pub egress: Egress,
    /// The way to registered instances.
    pub instance_egress: Egress,
    /// Whether observations include what syncs would do, which may take long.
    pub plan: bool,
}
