//! The status of a `ServiceRegistration`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// The observed state of a ServiceRegistration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRegistrationStatus {
    /// Fields that every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// The host names of `spec.addresses` with their IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".into()]))]
    pub resolved: Vec<ResolvedHost>,
    /// Time since which the instance is drained by `spec.drain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Time>,
    /// The load that the instance reports, such as `0.42`; the highest of its addresses. Absent while no response has
    /// it. Updated as the numbers of `health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
}

/// A resolved host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedHost {
    /// Host name, as in the spec.
    pub host: String,
    /// IP addresses, without those that are not allowed in an EndpointSlice.
    pub addresses: Vec<String>,
}

impl Status for ServiceRegistrationStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn forget_observations(&mut self) {
        self.common.forget_observations();
        self.common.service_ref = None;
        self.resolved.clear();
        self.draining_since = None;
        self.load = None;
    }

    fn forget_numbers(&mut self) {
        self.common.forget_numbers();
        self.load = None;
    }
}
