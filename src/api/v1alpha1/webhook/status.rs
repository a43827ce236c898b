//! The status of a `Webhook`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// Observed state of a Webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// Fields of every kind.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// Identifier in the store and in logs: the uid of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<String>,
    /// The signing keys in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningStatus>,
    /// The last successful verification of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// Circuit breaker and disable state of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointState>,
    /// Deliveries since the object was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<DeliveryCounts>,
    /// The annotations that were handled: each change of a value is handled once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<HandledRequests>,
    /// The last successful attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<LastSuccess>,
    /// The last failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// The signing keys in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningStatus {
    /// The Secret with the keys, owned by this object; unset if it cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The keys, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SigningKeyStatus>,
    /// When the Secret with the generated key was deleted, and a new key was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_lost_time: Option<Time>,
}

/// A signing key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyStatus {
    /// 16 bits of a salted SHA-256: enough to see a change, too little to guess from.
    pub fingerprint: String,
    /// When it is no longer used; unset for the current key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// A successful verification of the endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// `HeadRequest` or `Challenge`.
    pub mode: String,
    /// The first 128 bits of a salted SHA-256 of the URL; another URL is verified again.
    pub url_digest: String,
    /// Time of the verification.
    pub time: Time,
}

/// Circuit breaker and disable state of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointState {
    /// State of the circuit breaker.
    #[serde(default)]
    pub breaker: BreakerStatus,
    /// When an open circuit breaker tries the endpoint again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_until: Option<Time>,
    /// Failed attempts since the last success.
    #[serde(default)]
    pub consecutive_failures: u64,
    /// Why the webhook is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
}

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BreakerStatus {
    /// Deliveries are attempted.
    #[default]
    Closed,
    /// Deliveries wait; attempts are not counted.
    Open,
    /// One delivery tries the endpoint.
    HalfOpen,
}

/// Deliveries since the object was created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// Successful deliveries.
    #[serde(default)]
    pub delivered: u64,
    /// Failed attempts.
    #[serde(default)]
    pub failed_attempts: u64,
    /// Pending deliveries.
    #[serde(default)]
    pub pending: u64,
    /// Pending deliveries that wait for a change of the object: it is suspended, or its filter or template fails.
    #[serde(default)]
    pub held: u64,
    /// Events that were skipped while the webhook was disabled.
    #[serde(default)]
    pub skipped: u64,
    /// Dead letters, which can be replayed.
    #[serde(default)]
    pub dead: u64,
}

/// Annotations that were handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandledRequests {
    /// The value of `authlink.dev/enable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable: Option<String>,
    /// The value of `authlink.dev/replay-since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_since: Option<String>,
}

/// A successful attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastSuccess {
    /// Time of the attempt.
    pub time: Time,
    /// Duration of the attempt, in milliseconds.
    pub latency_ms: u64,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Time of the attempt.
    pub time: Time,
    /// Status code of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Reason of the failure.
    pub reason: String,
    /// Beginning of the response, or the stage that failed.
    pub message: String,
    /// Identifier of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
}

impl Status for WebhookStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn forget_observations(&mut self) {
        self.common.forget_observations();
    }

    fn forget_numbers(&mut self) {
        // Those of deliveries are written: what reads them from the store bounds how often.
        self.common.forget_numbers();
    }
}
