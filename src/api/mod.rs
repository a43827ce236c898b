//! What users write: the custom resources, their conditions and the reasons that explain them.
//!
//! The lowest floor: plain types, no IO, no async. Everything here is part of the public contract.

pub mod condition;
mod crd;
mod names;
pub mod reason;
pub mod shared;
pub mod status;
pub mod v1alpha1;

pub use condition::ConditionType;
pub use crd::{all_crds, to_yaml};
pub use reason::Reason;

/// The API group of every kind.
pub const GROUP: &str = "authlink.dev";

/// `kubectl get auth-integrations` lists the objects of every kind.
pub const CATEGORY: &str = "auth-integrations";

/// The one field manager of everything that authlink applies.
pub const FIELD_MANAGER: &str = "authlink";

/// Annotations under this prefix are read by authlink, and a change of one starts a pass.
pub const ANNOTATION_PREFIX: &str = "authlink.dev/";

/// What the engine and the CRDs need to know of a kind.
pub trait Managed:
    kube::Resource<DynamicType = ()> + kube::core::object::HasStatus<Status: status::Status>
{
    /// Conditions that are always present, in the order in which they depend on each other; `Ready` sums them up.
    const CONDITIONS: &'static [ConditionType];

    /// `spec.suspend`: leave the object alone.
    fn suspended(&self) -> bool;

    /// Everything in the same namespace that the spec names: a change of one of these starts a pass.
    fn references(&self) -> Vec<shared::Reference>;

    /// Whether something outside of the cluster must be cleaned up before the object may go.
    fn has_outside_state(&self) -> bool {
        false
    }
}
