//! One controller for each kind, and the engine that runs them all.

mod coalescer;
pub mod database;
mod discovery;
pub mod engine;
pub mod error;
pub mod external_api;
mod object_index;
mod object_state;
mod reconcile;
pub mod service_registration;
mod shared_watches;
pub mod targets;
mod triggers;
pub mod usage_reader;

use std::sync::Arc;

use kube::{Client, Resource, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

pub use error::Error;
pub use object_index::ObjectIndex;
pub use reconcile::FINALIZER;
pub use shared_watches::SharedWatches;
pub use usage_reader::UsageReader;

use crate::{
    api::{Managed, Reason},
    backends::resolver::Resolver,
    cluster::{
        events::Events, fence::Fence, references::ClusterReferences, service_publisher::ServicePublisher,
    },
    domain::{addresses::Egress, conditions::ConditionUpdate},
    telemetry::metrics::Metrics,
};

/// The status of a reconciler's kind.
pub type StatusOf<R> = <<R as Reconciler>::Object as kube::core::object::HasStatus>::Status;

/// What it takes to be a kind. The engine does everything that is the same for all: watches, references, finalizer,
/// suspension, deadline, backoff, the status write, Events and metrics.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Object: Object;

    /// Its name in logs, metrics and Events.
    const NAME: &'static str;

    /// Whether any pass over one of the objects that share a Service sees to all of it: then a change of the Service or
    /// its slices starts one pass, and not one for each object that names it.
    const SHARES_SERVICES: bool = false;

    /// The objects of a scope, for kinds whose objects have to do with each other; once for each scope, at the start.
    fn watch(&self, objects: ObjectIndex<Self::Object>) {
        let _ = objects;
    }

    /// One pass: make the object true as far as possible, and report what was found.
    fn apply(
        &self,
        object: &Self::Object,
        cx: &Context,
    ) -> impl Future<Output = Result<Report<StatusOf<Self>>, Error>> + Send;

    /// Cleans up before the object goes; only called for kinds with outside state, until it is done.
    fn cleanup(
        &self,
        object: &Self::Object,
        cx: &Context,
    ) -> impl Future<Output = Result<Cleanup, Error>> + Send {
        let _ = (object, cx);
        std::future::ready(Ok(Cleanup::Done))
    }

    /// The object is gone or suspended: drop what is held for this uid.
    fn forget(&self, uid: &str) {
        let _ = uid;
    }

    /// This process backend no more: drop what is held for every object. A standby has warm caches and no connections.
    fn on_leadership_lost(&self) {}
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

/// How far the cleaning up of an object has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The object may go.
    Done,
    /// All is well, and the object stays at least so long: there is more to do then.
    Again(std::time::Duration),
}

/// What a pass found.
#[derive(Debug, Default)]
pub struct Report<S> {
    /// One for each condition that the pass got to, and those that are only present while true.
    pub verdicts: Vec<ConditionUpdate>,
    /// The rest of the status; the engine fills in the conditions and the observed generation.
    pub status: S,
    /// When to look again although nothing changed; by default after [`crate::domain::backoff::RESYNC`].
    pub again: Option<std::time::Duration>,
    /// Events besides those for transitions of conditions.
    pub notes: Vec<EventRecord>,
    /// A failure of the operator's own that kept a step from being done: the rest is told, and the pass tried again.
    pub unfinished: Option<Error>,
}

/// An Event that is not a transition of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// For the worse?
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// What a pass may use.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// The values of Secrets and ConfigMaps.
    pub references: Arc<ClusterReferences>,
    /// Our Services and their slices.
    pub registry: Arc<ServicePublisher>,
    /// Finds the addresses of host names.
    pub resolver: Arc<Resolver>,
    /// Which addresses may be reached.
    pub egress: Arc<Egress>,
    /// Whether this process may write.
    pub fence: Fence,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What gateways count.
    pub runtime: Arc<UsageReader>,
    /// Starts another pass of this object, from anywhere.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// What every controller of the process shares.
#[derive(Clone)]
pub struct ControllerDeps {
    /// The cluster.
    pub client: Client,
    /// Whether this process may write.
    pub fence: Fence,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What gateways count.
    pub runtime: Arc<UsageReader>,
    /// Publishes Events.
    pub events: Arc<Events>,
    /// Finds the addresses of host names.
    pub resolver: Arc<Resolver>,
    /// Which addresses may be reached.
    pub egress: Arc<Egress>,
    /// Settings of the engine.
    pub settings: engine::EngineConfig,
}
