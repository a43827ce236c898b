//! The status of a `ServiceRegistration`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// What is known of the instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRegistrationStatus {
    /// What every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// What the host names among its addresses lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".into()]))]
    pub resolved: Vec<ResolvedHost>,
    /// Since when it is drained by `spec.drain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Time>,
    /// How loaded it is, by its own word, such as `0.42`: the most of its addresses. None while no answer has it. It is
    /// as old as the numbers of `health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
}

/// What a host name leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedHost {
    /// The host name, as declared.
    pub host: String,
    /// Its addresses, without those that must not be registered.
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
