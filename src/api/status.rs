//! The part of `status` that every kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConditionType;

/// What the engine needs of a kind's status.
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

    /// The common part, to write to.
    fn common_mut(&mut self) -> &mut CommonStatus;

    /// Removes what only an observation of the outside system can tell.
    fn forget_observations(&mut self);

    /// Removes the numbers that move all the time: what is left is the meaning, and only its change is worth a write.
    fn forget_numbers(&mut self);
}

/// Fields that every kind's status has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommonStatus {
    /// The last generation of the spec whose outcome the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` sums up, the others say why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// What the probes see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,

    /// Each address that is probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,

    /// The Service that leads to the targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceStatus>,

    /// The Secret for applications (servicebinding.io duck type).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingStatus>,

    /// The credentials in use, by fingerprint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialStatus>,

    /// What gateways count, where they call the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeStatus>,

    /// The last failure seen; kept after recovery.
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
        // A closed circuit is nothing to tell of: an object that comes to be called, or whose gateways went, costs no write.
        let circuit = self.runtime.as_ref().and_then(|runtime| runtime.circuit);
        let circuit = circuit.filter(|circuit| *circuit != Circuit::Closed);
        self.runtime = circuit.map(|_| RuntimeStatus { circuit, ..RuntimeStatus::default() });
        if let Some(error) = &mut self.last_error {
            error.time = None;
        }
    }
}

/// What the probes see. Only `state` and `since` are kept up to date at once; the numbers ride along with other
/// changes, or at most every 30 minutes. The metrics have them live.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// The verdict over the last probes.
    pub state: HealthState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Probes that failed since the last one that passed.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// How long probes take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<LatencyMs>,
    /// The share of the last hour's probes that passed, such as `99.9%`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "uptime1h")]
    pub uptime_1h: Option<String>,
    /// When the last probe ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
}

/// The verdict over the last probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HealthState {
    /// Not probed yet, or fewer failures than the threshold since the start.
    #[default]
    Unknown,
    /// The probes pass.
    Healthy,
    /// The probes fail.
    Unhealthy,
}

/// Milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyMs {
    /// Of the last probe.
    pub last: u64,
    /// 95 % of the last 64 probes took at most this long.
    pub p95: u64,
}

/// One address that is probed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Host name or address, as declared.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Whether the probes pass.
    pub ready: bool,
    /// Why not, or `ProbeSucceeded`.
    pub reason: String,
    /// The role that the server had when it last answered, where its protocol tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// The Service that leads to the targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name, in the same namespace.
    pub name: String,
}

/// The Secret for applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    /// Its name, in the same namespace.
    pub name: String,
}

/// A credential in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The Secret that it was read from.
    pub secret: String,
    /// 16 bits of a salted SHA-256: enough to see a change, too little to guess from.
    pub fingerprint: String,
    /// When this value first logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
}

/// What gateways count, over about the last hour (55 to 60 minutes). Only `circuit` is kept up to date, within the interval at
/// which they write; the numbers are as old as those of `health`. Without `circuit` and with no `replicas` no gateway is known
/// to run. All of it is left out while the store cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStatus {
    /// What the circuit does with calls; none is known where no gateway runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// Calls by callers that have the right to, while the object could be called. Those that were refused by its rate limit or
    /// an open circuit are among them.
    #[serde(default, rename = "requests1h")]
    pub requests_1h: u64,
    /// Those that were answered by 500 or more in the end, after any retries; of queries also those that broke off later.
    #[serde(default, rename = "errors1h")]
    pub errors_1h: u64,
    /// 95 % of the calls that were sent took at most about so many milliseconds: until the answer began, and queries until
    /// their last row. It is never too low, and at most 19 % and 1 ms too high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<u64>,
    /// Calls that the rate limit refused; only where there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "rateLimited1h")]
    pub rate_limited_1h: Option<u64>,
    /// Gateways that run, by what they have written lately.
    #[serde(default)]
    pub replicas: u32,
}

/// What the circuit does with calls, the worst one of the endpoints in any gateway; only where the spec asks for circuit
/// breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Circuit {
    /// Lets them through.
    Closed,
    /// Refuses them.
    Open,
    /// Lets a few through, to see.
    HalfOpen,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Its class.
    pub reason: String,
    /// Its text.
    pub message: String,
}
