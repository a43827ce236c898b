//! Parts of `spec` that several kinds share.

use std::{fmt, time};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Kind;

/// A duration such as `500ms`, `30s` or `1h30m`, from 1 ms to 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(kube::core::Duration);

impl Duration {
    /// The syntax. The bounds are checked by a CEL rule.
    pub(super) const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

    /// A duration in seconds.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds).into())
    }

    /// A duration in milliseconds.
    #[must_use]
    pub fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds).into())
    }

    /// Converts to the standard library's type.
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

/// A duration with its own bounds, in milliseconds, which may be longer than [`Duration`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoundedDuration<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> BoundedDuration<MIN, MAX> {
    /// A duration in seconds.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Converts to the standard library's type.
    #[must_use]
    pub fn get(self) -> time::Duration {
        self.0.get()
    }

    /// The CEL rule. It checks the syntax too, since the message of a pattern would not say what to write instead of days.
    #[must_use]
    pub fn rule() -> String {
        let (min, max) = (text(MIN), text(MAX));
        let pattern = Duration::PATTERN.replace('\\', "\\\\");
        format!(
            "self.matches('{pattern}') && duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"
        )
    }

    /// The message of the rule.
    #[must_use]
    pub fn message() -> String {
        let (min, max) = (text(MIN), text(MAX));
        format!(
            "must be a duration from {min} to {max}, such as 30s or 120h (days in hours: 120h instead of 5d)"
        )
    }
}

/// As users write it.
fn text(milliseconds: u64) -> String {
    match milliseconds {
        0 => "0s".to_owned(),
        _ if milliseconds.is_multiple_of(3_600_000) => format!("{}h", milliseconds / 3_600_000),
        _ if milliseconds.is_multiple_of(1000) => format!("{}s", milliseconds / 1000),
        _ => format!("{milliseconds}ms"),
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for BoundedDuration<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BoundedDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 16,
            "x-kubernetes-validations": [{ "rule": Self::rule(), "message": Self::message() }],
        })
    }
}

/// An object in the same namespace that a spec references.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A Secret, by name.
    Secret(String),
    /// A ConfigMap, by name.
    ConfigMap(String),
    /// The Service that authlink manages for the object, by name.
    Service(String),
    /// Another object of authlink, by kind and name.
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

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret.
    #[serde(default = "uri_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn uri_key() -> String {
    "uri".to_owned()
}

/// A key of a Secret in the same namespace, without a default key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretValueRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// CA certificates, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// Kind of the object with the certificates.
    #[serde(default)]
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the ConfigMap or Secret.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

impl CaRef {
    /// The object to watch.
    #[must_use]
    pub fn reference(&self) -> Reference {
        match self.kind {
            CaKind::ConfigMap => Reference::ConfigMap(self.name.clone()),
            CaKind::Secret => Reference::Secret(self.name.clone()),
        }
    }
}

/// The kind of object that holds a CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    #[default]
    ConfigMap,
    /// A Secret.
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
    /// Time between the starts of two probes; at least 100ms.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Timeout of a probe, including the connection; at most 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// Shortens each interval by a random amount of up to this many percent, so that probes do not run all at once.
    #[serde(default = "default_jitter")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: u8,
    /// Number of consecutive failed probes after which a healthy target becomes unhealthy.
    #[serde(default = "default_unhealthy_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,
    /// Number of consecutive successful probes after which an unhealthy target becomes healthy.
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

/// A Service without a selector, whose EndpointSlices list the targets and are updated by the probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.refreshInterval) >= duration('5s')")
    .message("discovery.refreshInterval must be at least 5s"))]
pub struct Discovery {
    /// `Endpoints`: the Service has EndpointSlices with the addresses of the targets, which are ready while their
    /// probes succeed. `ExternalName`: the Service is a CNAME to the host name of the only target; probes do not
    /// affect it. `None`: there is no Service.
    #[serde(default)]
    pub mode: DiscoveryMode,
    /// Name of the Service; defaults to the name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63), regex(pattern = r"^([a-z]([a-z0-9-]*[a-z0-9])?)?$"))]
    pub service_name: String,
    /// Maximum time between two DNS lookups of a host name, which a shorter TTL reduces; at least 5s.
    #[serde(default = "default_refresh_interval")]
    pub refresh_interval: Duration,
    /// Time in seconds for which a removed address stays in the EndpointSlice as not ready and terminating, so that
    /// open connections can finish.
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

/// The type of Service that is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// A Service with EndpointSlices.
    #[default]
    Endpoints,
    /// A Service of type `ExternalName`.
    ExternalName,
    /// No Service.
    None,
}

impl Discovery {
    /// The name of the Service for the object with this name; none in mode `None`.
    #[must_use]
    pub fn service(&self, object: &str) -> Option<String> {
        match self.mode {
            DiscoveryMode::None => None,
            _ if self.service_name.is_empty() => Some(object.to_owned()),
            _ => Some(self.service_name.clone()),
        }
    }
}
