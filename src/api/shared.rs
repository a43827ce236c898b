//! Blocks of `spec` that several kinds share.

use std::{fmt, time};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Kind;

/// A span of time as users write it: `500ms`, `30s`, `1h30m`. From 1 ms to 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(kube::core::Duration);

impl Duration {
    /// What the schema takes, before its rule looks at the bounds.
    pub(super) const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

    /// So many seconds.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds).into())
    }

    /// So many milliseconds.
    #[must_use]
    pub fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds).into())
    }

    /// As the standard library's type.
    #[must_use]
    pub fn get(self) -> time::Duration {
        self.0.into()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 16, "pattern": Self::PATTERN,
            "x-kubernetes-validations": [{
                "rule": "duration(self) >= duration('1ms') && duration(self) <= duration('24h')",
                "message": "must be a duration from 1ms to 24h, such as 500ms, 30s or 1h30m",
            }],
        })
    }
}

/// Something that a spec names, in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A Secret, by name.
    Secret(String),
    /// A ConfigMap, by name.
    ConfigMap(String),
    /// A Service that is registered for it, by name.
    Service(String),
    /// Another object of ours, by kind and name.
    Resource(Kind, String),
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "uri_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn uri_key() -> String {
    "uri".to_owned()
}

/// One key of a Secret in the same namespace, where no key goes without saying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretValueRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Certificates of the authorities to trust, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// Where the PEM text is.
    #[serde(default)]
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

impl CaRef {
    /// As a reference to watch.
    #[must_use]
    pub fn reference(&self) -> Reference {
        match self.kind {
            CaKind::ConfigMap => Reference::ConfigMap(self.name.clone()),
            CaKind::Secret => Reference::Secret(self.name.clone()),
        }
    }
}

/// Where a CA is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    /// In a ConfigMap.
    #[default]
    ConfigMap,
    /// In a Secret.
    Secret,
}

/// How the target is probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.timeout) < duration(self.interval)")
    .message("healthCheck.timeout must be shorter than healthCheck.interval"))]
#[x_kube(validation = Rule::new("duration(self.timeout) <= duration('30s')")
    .message("healthCheck.timeout must be at most 30s"))]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration('100ms')")
    .message("healthCheck.interval must be at least 100ms"))]
pub struct HealthCheck {
    /// Time from one probe's start to the next one's; at least 100ms.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// How long a probe may take, connecting included; at most 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// Each wait is shortened by up to this many percent, by chance, so that probes of many objects spread out.
    #[serde(default = "default_jitter")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: u8,
    /// Probes that must fail in a row before a healthy target is called unhealthy.
    #[serde(default = "default_unhealthy_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,
    /// Probes that must pass in a row before an unhealthy target is called healthy.
    #[serde(default = "default_healthy_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: u32,
}

fn default_interval() -> Duration {
    Duration::from_secs(30)
}
fn default_timeout() -> Duration {
    Duration::from_secs(5)
}
fn default_jitter() -> u8 {
    10
}
fn default_unhealthy_threshold() -> u32 {
    3
}
fn default_healthy_threshold() -> u32 {
    2
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: default_interval(),
            timeout: default_timeout(),
            jitter_percent: default_jitter(),
            unhealthy_threshold: default_unhealthy_threshold(),
            healthy_threshold: default_healthy_threshold(),
        }
    }
}

/// How Kubernetes finds the targets: a Service without a selector, whose EndpointSlices follow the probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.refreshInterval) >= duration('5s')")
    .message("discovery.refreshInterval must be at least 5s"))]
pub struct Discovery {
    /// Where the Service leads. It has an address of each family (IPv4, IPv6) that the cluster has.
    #[serde(default)]
    pub mode: DiscoveryMode,
    /// Name of the Service; by default the object's own name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63), regex(pattern = r"^([a-z]([a-z0-9-]*[a-z0-9])?)?$"))]
    pub service_name: String,
    /// Host names are resolved again when their TTL is over, and this often otherwise; at least 5s.
    #[serde(default = "default_refresh_interval")]
    pub refresh_interval: Duration,
    /// An address that leaves is drained for so many seconds: not ready and terminating, so that open connections can
    /// end.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: u32,
}

fn default_refresh_interval() -> Duration {
    Duration::from_secs(30)
}
fn default_drain_seconds() -> u32 {
    30
}

/// Where the Service of a discovery leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// To the addresses of the targets, in EndpointSlices: ready while the probes pass.
    #[default]
    Endpoints,
    /// To the host name of the one target, by CNAME; it has no readiness, whatever the probes say.
    ExternalName,
    /// Nowhere: there is no Service.
    None,
}

impl Discovery {
    /// The name of the Service for the object of this name; none without a Service.
    #[must_use]
    pub fn service(&self, object: &str) -> Option<String> {
        match self.mode {
            DiscoveryMode::None => None,
            _ if self.service_name.is_empty() => Some(object.to_owned()),
            _ => Some(self.service_name.clone()),
        }
    }
}
