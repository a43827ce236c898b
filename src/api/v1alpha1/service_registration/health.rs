//! How an instance is probed, and how its load is read.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    shared::HealthCheck,
    v1alpha1::external_api::{CheckType, HttpCheck},
};

/// How each address of an instance is probed: when, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'Http' || !has(self.http)")
    .message("healthCheck.http needs healthCheck.type Http"))]
pub struct InstanceHealthCheck {
    /// When, and how patiently.
    #[serde(flatten)]
    pub schedule: HealthCheck,
    /// What is asked of an address.
    #[serde(rename = "type", default = "default_type")]
    pub check_type: CheckType,
    /// The request of type `Http`, and the answer that it must get; without it `GET /`, answered by 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// The port that is probed; by default the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub port_name: Option<String>,
}

/// Every service takes connections; not every one speaks HTTP.
fn default_type() -> CheckType {
    CheckType::Tcp
}

impl Default for InstanceHealthCheck {
    fn default() -> Self {
        Self { schedule: HealthCheck::default(), check_type: default_type(), http: None, port_name: None }
    }
}

/// Where the answer to a probe has the load: a number from 0 on, of which less is better.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.fromHeader) != has(self.jsonPointer)")
    .message("set exactly one of load.fromHeader and load.jsonPointer"))]
pub struct Load {
    /// A header with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub from_header: Option<String>,
    /// Where a JSON body of at most 64 KiB has it (RFC 6901), such as `/system/load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^(/([^~/]|~[01])*)*$"))]
    pub json_pointer: Option<String>,
}
