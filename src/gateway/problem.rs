//! What went wrong, as callers read it: problem documents (RFC 9457) with types that stay the same.

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
    pub kind: Kind,
    /// What happened here, and what to do about it; never a secret.
    pub detail: String,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
}

/// The kinds of problems: part of the contract, so none is ever renamed.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)+) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $name),+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word of its type.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// The status of the answer.
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
    /// No token, or one that the API server does not take.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "a valid token is needed";
    /// The caller lacks the permission.
    Forbidden = "forbidden", FORBIDDEN, "the caller lacks the permission";
    /// There is no such object.
    ServiceNotFound = "service-not-found", NOT_FOUND, "there is no such service";
    /// The Database declares no such query.
    QueryNotFound = "query-not-found", NOT_FOUND, "there is no such query";
    /// There is no such route.
    RouteNotFound = "route-not-found", NOT_FOUND, "there is no such route";
    /// The route has other methods.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "the route has other methods";
    /// The spec does not allow this method and path.
    CallNotAllowed = "call-not-allowed", FORBIDDEN, "the call is not allowed by the spec";
    /// The request cannot be understood.
    BadRequest = "bad-request", BAD_REQUEST, "the request cannot be understood";
    /// The body is larger than what is taken here.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "the body is too large";
    /// A parameter does not fit its declared type.
    ParameterInvalid = "parameter-invalid", UNPROCESSABLE_ENTITY, "a parameter is not valid";
    /// The database refuses the statement with these parameters.
    QueryRefused = "query-refused", CONFLICT, "the database refuses the query";
    /// The statement cannot run as it is declared.
    QueryInvalid = "query-invalid", INTERNAL_SERVER_ERROR, "the query is declared wrongly";
    /// The limit of the spec is reached.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "the rate limit is reached";
    /// Too many calls are in in_flight_guard, or no connection of the database's pool comes free.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "too many calls are in in_flight_guard";
    /// Every endpoint that could be record is left alone because it failed.
    CircuitOpen = "circuit-open", SERVICE_UNAVAILABLE, "the circuit is open";
    /// The object is suspended, not resolved, or has no endpoint.
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "the service cannot be used now";
    /// The API server does not answer who the caller is or what it may do.
    ReviewUnavailable = "review-unavailable", SERVICE_UNAVAILABLE, "the caller cannot be reviewed now";
    /// The outside system failed.
    Upstream = "upstream-failed", BAD_GATEWAY, "the outside system failed";
    /// The outside system did not answer in time.
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT, "the outside system did not answer in time";
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// The same, with a time after which another try makes sense.
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

    /// The caller lacks this permission.
    #[must_use]
    pub fn forbidden(caller: &str, permission: &Permission<'_>) -> Self {
        let Permission { verb, namespace, name, .. } = permission;
        let resource = permission.resource();
        let detail = format!(
            "{caller} may not {verb} {resource} {name} in the namespace {namespace}: grant it by a Role there with apiGroups \
             [authlink.dev], resources [{resource}] and verbs [{verb}]"
        );
        Self::new(Kind::Forbidden, detail)
    }
}

impl From<ReviewUnavailable> for Problem {
    fn from(unanswered: ReviewUnavailable) -> Self {
        Self::new(Kind::ReviewUnavailable, unanswered.to_string()).after(Duration::from_secs(1))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = (self.kind.status(), self.document().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: an earlier try would fail again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.kind == Kind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"authlink\""));
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}
