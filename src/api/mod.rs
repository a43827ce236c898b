//! The API: custom resources, condition types and reasons.
//!
//! The lowest layer: plain types, no IO, no async. Everything here is part of the public contract.

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

/// The category of every kind: `kubectl get auth-integrations` lists all objects.
pub const CATEGORY: &str = "auth-integrations";

/// The field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "authlink";

/// The prefix of authlink's annotations. A change of one requeues the object.
pub const ANNOTATION_PREFIX: &str = "authlink.dev/";

/// What the engine and the CRD generator need from a kind.
pub trait Managed:
    kube::Resource<DynamicType = ()> + kube::core::object::HasStatus<Status: status::Status>
{
    /// The conditions that are always present, in the order in which they depend on each other.
    const CONDITIONS: &'static [ConditionType];

    /// The conditions that `Ready` summarizes, including optional ones. `Ready` takes the reason of the first that is
    /// false.
    const READY_WHEN: &'static [ConditionType];

    /// Whether objects of this kind can have state outside of the cluster, which a finalizer cleans up.
    const HAS_EXTERNAL_STATE: bool = false;

    /// `spec.suspend`: the object is not probed and nothing is written for it.
    fn suspended(&self) -> bool;

    /// The probe settings, which `authlink check` changes to probe once; none if the kind has no probes.
    fn health_check_mut(&mut self) -> Option<&mut shared::HealthCheck> {
        None
    }

    /// The objects in the same namespace that the spec references. A change of one requeues the object.
    fn references(&self) -> Vec<shared::Reference>;

    /// Whether this object needs the finalizer.
    fn has_external_state(&self) -> bool {
        Self::HAS_EXTERNAL_STATE
    }
}
