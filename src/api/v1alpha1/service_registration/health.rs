//! Probes of an instance, and the load that it reports.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    shared::HealthCheck,
    v1alpha1::external_api::{CheckType, HttpCheck},
};

/// How each address of an instance is probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'Http' || !has(self.http)")
    .message("healthCheck.http needs healthCheck.type Http"))]
pub struct InstanceHealthCheck {
    /// Interval, timeout and thresholds.
    #[serde(flatten)]
    pub schedule: HealthCheck,
    /// Type of the probe. `Http`: an HTTP request without TLS. `Tcp`: a TCP connection. `None`: no probe; the
    /// instance is assumed to be healthy.
    #[serde(rename = "type", default = "default_type")]
    pub check_type: CheckType,
    /// Request and expected response of type `Http`; defaults to `GET /` with a status from 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Name of the port to probe; defaults to the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub port_name: Option<String>,
}

/// Every service accepts connections; not every service speaks HTTP.
fn default_type() -> CheckType {
    CheckType::Tcp
}

impl Default for InstanceHealthCheck {
    fn default() -> Self {
        Self { schedule: HealthCheck::default(), check_type: default_type(), http: None, port_name: None }
    }
}

/// Where probes read the load of an instance: a number from 0 up, lower is better.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.fromHeader) != has(self.jsonPointer)")
    .message("set exactly one of load.fromHeader and load.jsonPointer"))]
pub struct Load {
    /// Response header with the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub from_header: Option<String>,
    /// JSON Pointer (RFC 6901) to the load in a JSON response body of at most 64 KiB, such as `/system/load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^(/([^~/]|~[01])*)*$"))]
    pub json_pointer: Option<String>,
}
