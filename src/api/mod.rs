//! What users write: the custom resources, their conditions and the reasons that explain them.
//!
//! The lowest floor: plain types, no IO, no async. Everything here is part of the public contract.

pub mod condition;
mod crd;
mod kinds;
mod names;
pub mod reason;
pub mod shared;
pub mod status;
pub mod v1alpha1;

pub use condition::ConditionType;
pub use crd::to_yaml;
pub(crate) use kinds::for_each_kind;
pub use kinds::{HasKind, Kind, all_crds};
pub use reason::Reason;

/// The API group of every kind.
pub const GROUP: &str = "authlink.dev";

/// `kubectl get auth-integrations` lists the objects of every kind.
pub const CATEGORY: &str = "auth-integrations";

/// The one field manager of everything that authlink applies.
pub const FIELD_MANAGER: &str = "authlink";

/// Annotations under this prefix are read by authlink, and a change of one requeues the object.
pub const ANNOTATION_PREFIX: &str = "authlink.dev/";

/// What the engine and the CRDs need to know of a kind.
pub trait Managed:
    kube::Resource<DynamicType = ()> + kube::core::object::HasStatus<Status: status::Status>
{
    /// Conditions that are always present, in the order in which they depend on each other.
    const CONDITIONS: &'static [ConditionType];

    /// The conditions that `Ready` sums up, those that only some objects have included: the first that is false gives it its
    /// reason.
    const READY_WHEN: &'static [ConditionType];

    /// Whether something outside of the cluster must be cleaned up before an object may go: then it has a finalizer.
    const HAS_EXTERNAL_STATE: bool = false;

    /// `spec.suspend`: leave the object alone.
    fn suspended(&self) -> bool;

    /// How its targets are probed, for whoever probes them once.
    fn health_check_mut(&mut self) -> Option<&mut shared::HealthCheck> {
        None
    }

    /// Everything in the same namespace that the spec names: a change of one of these requeues the object.
    fn references(&self) -> Vec<shared::Reference>;

    /// Whether this very object needs the finalizer.
    fn has_external_state(&self) -> bool {
        Self::HAS_EXTERNAL_STATE
    }
}
