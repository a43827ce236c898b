//! The part of `status` that every kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConditionType;

/// What the engine needs from a kind's status.
pub trait Status:
    Clone
    + Default
    + PartialEq
    + Serialize
    + serde::de::DeserializeOwned
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// The common part.
    fn common(&self) -> &CommonStatus;

    /// The common part, mutable.
    fn common_mut(&mut self) -> &mut CommonStatus;

    /// Removes the fields that come from probing the target.
    fn forget_observations(&mut self);

    /// Removes the numbers that change constantly. The status is written when the rest has changed.
    fn forget_numbers(&mut self);
}

/// Fields that every kind's status has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommonStatus {
    /// The generation of the spec that the conditions refer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The conditions: `Ready` is the summary, the others give the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The result of the probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,

    /// The endpoints that are probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,

    /// The Service that is managed for the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceStatus>,

    /// The binding Secret (servicebinding.io duck type).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingStatus>,

    /// The credentials in use, by fingerprint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialStatus>,

    /// Usage statistics of the gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeStatus>,

    /// The last failure; kept after recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

impl CommonStatus {
    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind.as_str())
    }

    /// See [`Status::forget_observations`].
    pub fn forget_observations(&mut self) {
        self.health = None;
        self.endpoints.clear();
        self.runtime = None;
    }

    /// See [`Status::forget_numbers`].
    pub fn forget_numbers(&mut self) {
        if let Some(health) = &mut self.health {
            *health = HealthStatus { state: health.state, ..HealthStatus::default() };
        }
        // A closed circuit does not cause a write: not when an object is called for the first time, nor when its
        // gateways stop.
        let circuit = self.runtime.as_ref().and_then(|runtime| runtime.circuit);
        let circuit = circuit.filter(|circuit| *circuit != Circuit::Closed);
        self.runtime = circuit.map(|_| RuntimeStatus { circuit, ..RuntimeStatus::default() });
        if let Some(error) = &mut self.last_error {
            error.time = None;
        }
    }
}

/// The result of the probes. Changes of `state` and `since` are written immediately; the numbers are updated along
/// with other changes, and at least every 30 minutes. The metrics have current numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// The health state.
    pub state: HealthState,
    /// Time of the last change of `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Number of failed probes since the last successful one.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// Duration of the probes, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<LatencyMs>,
    /// Percentage of successful probes in the last hour, such as `99.9%`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "uptime1h")]
    pub uptime_1h: Option<String>,
    /// End of the last probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
}

/// The health state of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HealthState {
    /// Not probed yet, or fewer failures than the threshold since the start.
    #[default]
    Unknown,
    /// The probes succeed.
    Healthy,
    /// The probes fail.
    Unhealthy,
}

/// Latencies in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyMs {
    /// Duration of the last probe.
    pub last: u64,
    /// 95th percentile of the last 64 probes.
    pub p95: u64,
}

/// An endpoint that is probed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Host name or IP address, as in the spec.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Whether the endpoint is healthy.
    pub ready: bool,
    /// The reason of the failure, or `ProbeSucceeded`.
    pub reason: String,
    /// The role that the server last reported, if its protocol has roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// The Service that is managed for the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Name of the Service, in the same namespace.
    pub name: String,
}

/// The binding Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    /// Name of the Secret, in the same namespace.
    pub name: String,
}

/// A credential in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Name of the Secret.
    pub secret: String,
    /// The first 16 bits of a salted SHA-256 of the credential: shows a change, and is too short to guess the
    /// credential from.
    pub fingerprint: String,
    /// Time of the first successful login with this credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
}

/// Usage statistics of the gateways over the last hour (55 to 60 minutes). A change of `circuit` is written within
/// the interval at which gateways write to the store (`--store-interval`); the numbers are updated as those of
/// `health`. Absent while the store is unavailable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStatus {
    /// The state of the circuit breakers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// Number of authorized calls, including those rejected by the rate limit or an open circuit.
    #[serde(default, rename = "requests1h")]
    pub requests_1h: u64,
    /// Number of calls with a response status of 500 or higher, after retries, and of queries that failed while rows
    /// were sent.
    #[serde(default, rename = "errors1h")]
    pub errors_1h: u64,
    /// 95th percentile of the latency of the calls that were sent, in milliseconds: until the response headers, or
    /// for queries until the last row. At most 19 % plus 1 ms above the exact value, and never below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<u64>,
    /// Number of calls rejected by the rate limit. Only for kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "rateLimited1h")]
    pub rate_limited_1h: Option<u64>,
    /// Number of running gateways.
    #[serde(default)]
    pub replicas: u32,
}

/// The worst state of any circuit breaker of the object, over all endpoints and gateways. Absent without
/// `spec.circuitBreaker`, and while no gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Circuit {
    /// Calls are sent.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few trial calls are sent.
    HalfOpen,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// Time of its first occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}
