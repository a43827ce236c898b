//! Rate limit, circuit breaker, retries and allow list of an `ExternalApi`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::Duration;

/// A rate limit. Calls above it are rejected with status 429 and `Retry-After`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Number of calls per `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The period that `requests` refers to.
    #[serde(default = "default_per")]
    pub per: Duration,
    /// Maximum number of calls in a burst; defaults to `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// `Gateway`: one limit per gateway pod, shared by all callers. `Caller`: one limit per gateway pod and caller.
    /// With several gateway pods the total is a multiple of `requests`.
    #[serde(default)]
    pub scope: Scope,
}

fn default_per() -> Duration {
    Duration::from_secs(1)
}

/// The scope of a rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// One limit per gateway pod.
    #[default]
    Gateway,
    /// One limit per gateway pod and caller.
    Caller,
}

/// A circuit breaker per endpoint and gateway pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Percentage of failed calls in `window` at which the circuit opens.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,
    /// Minimum number of calls in `window` before the circuit can open.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_requests: u32,
    /// Sliding window over which calls are counted.
    #[serde(default = "default_window")]
    pub window: Duration,
    /// Time that the circuit stays open before it becomes half-open.
    #[serde(default = "default_open_for")]
    pub open_for: Duration,
    /// Number of trial calls in the half-open state. The circuit closes when all of them succeed, and opens again
    /// when one fails.
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

/// Retries of failed calls. Retried are calls with an idempotent method or an `Idempotency-Key`, and calls that were
/// not sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Maximum number of attempts, including the first one.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
    /// The failures to retry: `connect-failure`, `reset` (the connection is closed before the response headers),
    /// `timeout`, `5xx` and `429`; defaults to `connect-failure`, `5xx` and `429`. With `timeout`, the remaining time
    /// of `spec.timeout` is divided equally among the remaining attempts; otherwise each attempt can use all of it.
    #[serde(default = "default_on")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub on: Vec<RetryOn>,
    /// Delay between attempts.
    #[serde(default)]
    pub backoff: Backoff,
    /// Retry budget: maximum number of retries as a percentage of the calls, beyond 10 per second that are always
    /// allowed. It limits the additional load on a failing API.
    #[serde(default = "default_budget_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: u8,
    /// Whether a retry waits for the `Retry-After` of the response. If that exceeds the remaining time of
    /// `spec.timeout`, there is no retry.
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

/// A failure that can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// The connection failed: the call was not sent.
    #[serde(rename = "connect-failure")]
    ConnectFailure,
    /// The connection was closed before the response headers.
    #[serde(rename = "reset")]
    Reset,
    /// The attempt timed out.
    #[serde(rename = "timeout")]
    Timeout,
    /// The response has a status from 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
    /// The response has the status 429.
    #[serde(rename = "429")]
    TooManyRequests,
}

/// Exponential backoff with full jitter: the delay doubles from `initial` up to `max`, and a random part of it is
/// used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.initial) <= duration(self.max)")
    .message("retry.backoff.initial must be at most retry.backoff.max"))]
pub struct Backoff {
    /// Maximum delay before the first retry.
    #[serde(default = "default_initial")]
    pub initial: Duration,
    /// Maximum delay before any retry.
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

/// Methods and paths that can be called. Headers that override the method or the path, such as
/// `X-HTTP-Method-Override` and `X-Original-URL`, are removed from calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.webSocket || 'GET' in self.methods")
    .message("allow.webSocket needs GET in allow.methods"))]
pub struct Allow {
    /// The HTTP methods.
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// Path prefix, matched by whole segments: `/invoices` allows `/invoices` and `/invoices/7`, but not
    /// `/invoices-old`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[A-Za-z0-9._~!$&'()*+,=:@/-]*$"))]
    #[x_kube(validation = Rule::new("!self.contains('//') && !self.matches('/[.][.]?(/|$)')")
        .message("allow.pathPrefix must not contain //, /./ or /../"))]
    pub path_prefix: String,
    /// Whether paths can contain an encoded slash (`%2F`), as those of GitLab and RabbitMQ. It is forwarded unchanged. Do not set
    /// it for an API that decodes `%2F` to `/` before it checks permissions.
    #[serde(default)]
    pub encoded_slashes: bool,
    /// Whether a GET can open a WebSocket (RFC 6455), over HTTP/1.1.
    #[serde(default)]
    pub web_socket: bool,
}

/// An HTTP method.
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
    /// The name of the method in HTTP.
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
