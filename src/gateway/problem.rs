//! What callers read when a call fails: problem documents (RFC 9457) with types that stay the same.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde_json::json;

use crate::cluster::review::{Permission, ReviewUnavailable};

/// A problem document. Its type is `urn:authlink:` and the kind's word.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What kind of problem.
    pub kind: ProblemKind,
    /// What happened, and what to do about it; never a secret.
    pub detail: String,
    /// After which time a retry may succeed.
    pub retry_after: Option<Duration>,
}

/// The kinds of problems: part of the contract, so none is ever renamed.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)+) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind { $($(#[$doc])* $name),+ }

        impl ProblemKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The last part of its type.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// The status of the response.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }

            /// The same for every problem of the kind.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

kinds! {
    /// No token, or one that the API server does not accept.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "authentication required";
    /// The caller lacks the permission.
    Forbidden = "forbidden", FORBIDDEN, "permission denied";
    /// The object does not exist.
    ServiceNotFound = "service-not-found", NOT_FOUND, "service not found";
    /// The Database declares no such query.
    QueryNotFound = "query-not-found", NOT_FOUND, "query not found";
    /// There is no such route.
    RouteNotFound = "route-not-found", NOT_FOUND, "route not found";
    /// The route does not support the method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "method not allowed";
    /// No entry of `spec.allow` matches method and path.
    CallNotAllowed = "call-not-allowed", FORBIDDEN, "call not allowed by the spec";
    /// The request is malformed.
    BadRequest = "bad-request", BAD_REQUEST, "bad request";
    /// The body exceeds the limit of the gateway.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "request body too large";
    /// A parameter does not match its declared type.
    ParameterInvalid = "parameter-invalid", UNPROCESSABLE_ENTITY, "invalid parameter";
    /// The database rejects the statement with these parameters.
    QueryRefused = "query-refused", CONFLICT, "query rejected by the database";
    /// The statement cannot run as it is declared.
    QueryInvalid = "query-invalid", INTERNAL_SERVER_ERROR, "invalid query declaration";
    /// Another event of the same source has the same id.
    EventConflict = "event-conflict", CONFLICT, "event id already in use";
    /// As many deliveries are pending as may be.
    BacklogFull = "backlog-full", TOO_MANY_REQUESTS, "too many pending deliveries";
    /// The store does not take what the call asks for.
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE, "store unavailable";
    /// The rate limit of the spec is exceeded.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "rate limit exceeded";
    /// Too many calls are in flight, or the connection pool of the database is exhausted.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "too many calls in flight";
    /// The circuit of every endpoint is open.
    CircuitOpen = "circuit-open", SERVICE_UNAVAILABLE, "circuit open";
    /// The object is suspended, cannot be resolved, or has no endpoint.
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "service not ready";
    /// The user name or password of a login cannot be one.
    LoginInvalid = "login-invalid", BAD_REQUEST, "invalid login";
    /// The user name or the password is wrong, or the account may not be used.
    LoginRefused = "login-refused", UNAUTHORIZED, "login refused";
    /// There were too many failed logins.
    LoginThrottled = "login-throttled", TOO_MANY_REQUESTS, "too many failed logins";
    /// No server of the directory can tell.
    DirectoryUnavailable = "directory-unavailable", SERVICE_UNAVAILABLE, "directory unavailable";
    /// The API server does not answer who the caller is or what it may do.
    ReviewUnavailable = "review-unavailable", SERVICE_UNAVAILABLE, "caller review unavailable";
    /// The outside system failed.
    Upstream = "upstream-failed", BAD_GATEWAY, "upstream failed";
    /// The outside system did not respond in time.
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT, "upstream timed out";
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// The same, with a time after which a retry may succeed.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// As JSON.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        json!({
            "type": format!("urn:authlink:{}", self.kind.as_str()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "detail": self.detail,
        })
    }

    /// The caller lacks this permission for the object of this namespace and name.
    #[must_use]
    pub fn forbidden(caller: &str, permission: &Permission, (namespace, name): (&str, &str)) -> Self {
        let (verb, resource) = (permission.verb, permission.resource());
        let detail = format!(
            "{caller} may not {verb} {resource} {name} in the namespace {namespace}: grant it by a Role there with apiGroups \
             [authlink.dev], resources [{resource}] and verbs [{verb}]"
        );
        Self::new(ProblemKind::Forbidden, detail)
    }
}

impl From<ReviewUnavailable> for Problem {
    fn from(error: ReviewUnavailable) -> Self {
        Self::new(ProblemKind::ReviewUnavailable, error.to_string()).after(Duration::from_secs(1))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = (self.kind.status(), self.document().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: an earlier retry would fail again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.kind == ProblemKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"authlink\""));
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}
