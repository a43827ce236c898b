//! What users write: the custom resources, their conditions and the reasons that explain them.
//!
//! The lowest floor: plain types, no IO, no async. Everything here is part of the public contract.

pub mod condition;
mod names;
pub mod reason;
pub mod shared;
pub mod status;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

pub use condition::ConditionType;
pub use reason::Reason;

/// The API group of every kind.
pub const GROUP: &str = "authlink.dev";

/// `kubectl get auth-integrations` lists the objects of every kind.
pub const CATEGORY: &str = "auth-integrations";

/// The one field manager of everything that authlink applies.
pub const FIELD_MANAGER: &str = "authlink";

/// Annotations under this prefix are read by authlink, and a change of one starts a pass.
pub const ANNOTATION_PREFIX: &str = "authlink.dev/";

/// The CRDs of every kind, as they are written to `crds/` and into the chart.
#[must_use]
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![with_pending_status::<v1alpha1::Database>(v1alpha1::Database::crd())]
}

/// What the engine and the CRDs need to know of a kind.
pub trait Managed: kube::Resource<DynamicType = ()> {
    /// The `status` of the kind.
    type Status: status::Status;

    /// Conditions that are always present, in the order in which they depend on each other; `Ready` sums them up.
    const CONDITIONS: &'static [ConditionType];

    /// `spec.suspend`: leave the object alone.
    fn suspended(&self) -> bool;

    /// The status as last read from the API server.
    fn status(&self) -> Option<&Self::Status>;

    /// Everything in the same namespace that the spec names: a change of one of these starts a pass.
    fn references(&self) -> Vec<shared::Reference>;

    /// Whether something outside of the cluster must be cleaned up before the object may go.
    fn has_outside_state(&self) -> bool {
        false
    }
}

/// Gives new objects their `Unknown/Pending` conditions at creation, by the schema's default: an object says that
/// nobody has looked at it yet even while no operator runs, and that costs no write. (The Gateway API does the same.)
fn with_pending_status<K: Managed>(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let pending: Vec<_> = std::iter::once(ConditionType::Ready)
        .chain(K::CONDITIONS.iter().copied())
        .map(|kind| {
            json!({
                "type": kind.as_str(), "status": "Unknown", "reason": Reason::Pending.as_str(),
                "message": "waiting for the operator's first pass", "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        })
        .collect();
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({ "conditions": pending })));
        }
    }
    crd
}
