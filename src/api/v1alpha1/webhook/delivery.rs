//! Delivery settings of a `Webhook`.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::api::shared::{BoundedDuration, Duration};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Retries, timeout, concurrency and rate of deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.schedule) && has(self.backoff))")
    .message("at most one of delivery.schedule and delivery.backoff can be set"))]
pub struct Delivery {
    /// Delays before the second attempt, the third, and so on, each from 100ms to 168h; the last one is repeated. Each has a jitter of
    /// 20 %. If neither this nor `backoff` is set: 5s, 5m, 30m, 2h, 5h, 10h, 10h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub schedule: Option<Vec<BoundedDuration<100, { 168 * HOUR }>>>,
    /// Exponential backoff, instead of `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Maximum number of attempts, including the first one. Responses that ask to retry later (429, and 503 with `Retry-After`) and
    /// failures on the side of authlink (DNS, Secrets, rate limit) do not count.
    #[serde(default = "default_max_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Maximum age of an event, after which it becomes a dead letter whatever its attempts; at least 1s, at most 720h.
    #[serde(default = "default_max_age")]
    pub max_age: BoundedDuration<SECOND, { 720 * HOUR }>,
    /// Timeout of an attempt, including the connection; at least 1s, at most 60s.
    #[serde(default = "default_timeout")]
    pub timeout: BoundedDuration<SECOND, { 60 * SECOND }>,
    /// Maximum number of concurrent attempts.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u32,
    /// Limits the rate of attempts; unlimited if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Order of deliveries.
    #[serde(default)]
    pub ordering: Ordering,
    /// Disables the webhook if every attempt fails for this time, and 20 or more attempts failed. The annotation authlink.dev/enable
    /// enables it again. From 1s to 8760h, or `Never`.
    #[serde(default)]
    pub disable_after: DisableAfter,
    /// Maximum of the `Retry-After` of a response that is respected; at least 1s, at most 24h.
    #[serde(default = "default_max_retry_after")]
    pub max_retry_after: BoundedDuration<SECOND, { 24 * HOUR }>,
}

fn default_max_attempts() -> u32 {
    8
}
fn default_max_age() -> BoundedDuration<SECOND, { 720 * HOUR }> {
    BoundedDuration::from_secs(75 * 3600)
}
fn default_timeout() -> BoundedDuration<SECOND, { 60 * SECOND }> {
    BoundedDuration::from_secs(15)
}
fn default_concurrency() -> u32 {
    8
}
fn default_max_retry_after() -> BoundedDuration<SECOND, { 24 * HOUR }> {
    BoundedDuration::from_secs(3600)
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            schedule: None,
            backoff: None,
            max_attempts: default_max_attempts(),
            max_age: default_max_age(),
            timeout: default_timeout(),
            concurrency: default_concurrency(),
            rate_limit: None,
            ordering: Ordering::default(),
            disable_after: DisableAfter::default(),
            max_retry_after: default_max_retry_after(),
        }
    }
}

/// Exponential backoff: `initial`, then `factor` times the previous delay, up to `max`. Each delay has a jitter of 20 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.initial) <= duration(self.max)")
    .message("delivery.backoff.initial must be at most delivery.backoff.max"))]
pub struct Backoff {
    /// Delay before the second attempt; at least 100ms, at most 168h.
    #[serde(default = "default_initial")]
    pub initial: BoundedDuration<100, { 168 * HOUR }>,
    /// Factor by which the delay grows.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// Maximum delay; at least 100ms, at most 168h.
    #[serde(default = "default_max")]
    pub max: BoundedDuration<100, { 168 * HOUR }>,
}

fn default_initial() -> BoundedDuration<100, { 168 * HOUR }> {
    BoundedDuration::from_secs(5)
}
fn default_factor() -> u32 {
    2
}
fn default_max() -> BoundedDuration<100, { 168 * HOUR }> {
    BoundedDuration::from_secs(3600)
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Number of attempts in each `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The time unit of `requests`.
    #[serde(default = "default_per")]
    pub per: Duration,
}

fn default_per() -> Duration {
    Duration::from_secs(1)
}

/// Order of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ordering {
    /// Events may arrive in any order.
    #[default]
    None,
    /// An event is delivered once the previous event with the same subject is delivered, dead or cancelled.
    PerSubject,
}

/// When a failing webhook is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DisableAfter {
    /// Never.
    Never(Never),
    /// After this time without a success.
    After(DisableTime),
}

/// From 1s to 8760h.
pub type DisableTime = BoundedDuration<SECOND, { 8760 * HOUR }>;

/// The word `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {
    /// `Never`.
    Never,
}

impl Default for DisableAfter {
    fn default() -> Self {
        Self::After(BoundedDuration::from_secs(120 * 3600))
    }
}

impl JsonSchema for DisableAfter {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DisableAfter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": format!("self == 'Never' || ({})", DisableTime::rule()),
                "message": format!("{}, or Never", DisableTime::message()),
            }],
        })
    }
}
