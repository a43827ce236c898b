//! What the gateway does with calls of an `ExternalApi`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::Duration;

/// How many calls are let through. The others are answered by 429 with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Calls in each `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The span of time that `requests` is for.
    #[serde(default = "default_per")]
    pub per: Duration,
    /// Calls that may come at once after a quiet time; by default `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Who shares it: `Gateway`: all callers of one pod of the gateway, so that several pods let as many times more through; `Caller`:
    /// nobody, each caller has it for itself.
    #[serde(default)]
    pub scope: Scope,
}

fn default_per() -> Duration {
    Duration::from_secs(1)
}

/// Who shares a rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// All callers of one replica of the gateway.
    #[default]
    Gateway,
    /// Nobody: each caller has it for itself.
    Caller,
}

/// When an endpoint that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Percent of the calls in `window` that must fail.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,
    /// Calls that there must be in `window` before the percentage counts.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_requests: u32,
    /// The span of time that is looked back.
    #[serde(default = "default_window")]
    pub window: Duration,
    /// How long no call is sent to the endpoint.
    #[serde(default = "default_open_for")]
    pub open_for: Duration,
    /// Calls that then try it, and must all succeed.
    #[serde(default = "default_half_open_requests")]
    #[schemars(range(min = 1, max = 100))]
    pub half_open_requests: u32,
}

fn default_failure_threshold() -> u8 {
    50
}
fn default_min_requests() -> u32 {
    20
}
fn default_window() -> Duration {
    Duration::from_secs(30)
}
fn default_open_for() -> Duration {
    Duration::from_secs(15)
}
fn default_half_open_requests() -> u32 {
    3
}

/// Which failed calls are tried again. Only those with an idempotent method or an `Idempotency-Key` ever are, and those that were
/// never sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts at the most, the first one included.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
    /// The failures that are worth another attempt; by default `connect-failure`, `5xx` and `429`. Where `timeout` is one, each
    /// attempt has an equal share of what is left of `spec.timeout`, and else all of it.
    #[serde(default = "default_on")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub on: Vec<RetryOn>,
    /// The time between attempts.
    #[serde(default)]
    pub backoff: Backoff,
    /// Retries at the most, in percent of the calls: a system that is down is not hit harder for it.
    #[serde(default = "default_budget_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: u8,
    /// Whether the answer's `Retry-After` is waited for, where `spec.timeout` leaves the time.
    #[serde(default = "default_respect_retry_after")]
    pub respect_retry_after: bool,
}

fn default_attempts() -> u8 {
    3
}
fn default_on() -> Vec<RetryOn> {
    vec![RetryOn::ConnectFailure, RetryOn::ServerError, RetryOn::TooManyRequests]
}
fn default_budget_percent() -> u8 {
    20
}
fn default_respect_retry_after() -> bool {
    true
}

/// A failure that is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// There was no connection: the endpoint has not seen the call.
    #[serde(rename = "connect-failure")]
    ConnectFailure,
    /// The connection broke before the answer began.
    #[serde(rename = "reset")]
    Reset,
    /// No answer in time.
    #[serde(rename = "timeout")]
    Timeout,
    /// A status from 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
    /// The status 429.
    #[serde(rename = "429")]
    TooManyRequests,
}

/// The time between attempts: it doubles from `initial` to `max`, and each wait is shortened by chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.initial) <= duration(self.max)")
    .message("retry.backoff.initial must be at most retry.backoff.max"))]
pub struct Backoff {
    /// Before the second attempt.
    #[serde(default = "default_initial")]
    pub initial: Duration,
    /// At the most.
    #[serde(default = "default_max")]
    pub max: Duration,
}

fn default_initial() -> Duration {
    Duration::from_millis(100)
}
fn default_max() -> Duration {
    Duration::from_secs(5)
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: default_initial(), max: default_max() }
    }
}

/// Something that may be called. Headers by which a caller asks for another method or path, such as `X-HTTP-Method-Override`
/// and `X-Original-URL`, do not reach the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// By these methods.
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// This path and those below it: `/invoices` allows `/invoices/7`, and not `/invoices-old`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[A-Za-z0-9._~!$&'()*+,=:@/-]*$"))]
    #[x_kube(validation = Rule::new("!self.contains('//') && !self.matches('/[.][.]?(/|$)')")
        .message("allow.pathPrefix must be written without //, /./ and /../, since paths are compared after those are resolved"))]
    pub path_prefix: String,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// As HTTP writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}
