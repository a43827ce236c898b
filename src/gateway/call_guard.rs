//! The guard of every call: it admits the caller, and sees to it that the call is counted and logged however it ends.

use std::{borrow::Cow, sync::Arc};

use axum::http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;

use super::{
    access_log::CallRecord,
    family::Route,
    problem::{Problem, ProblemKind},
    usage::UsageGuard,
};
use crate::{
    cluster::review::{AUDIENCE, Caller, Decision, Permission, Reviewer},
    domain::usage::Tally,
    telemetry::metrics::Calls,
};

/// What counts the calls of an object.
pub(super) struct CallCounters {
    /// Its metrics.
    pub(super) calls: Arc<Calls>,
    /// Its usage in the store; none where its status has none.
    pub(super) tally: Option<Arc<Mutex<Tally>>>,
}

/// A call in flight.
pub(super) struct CallGuard {
    caller: Arc<Caller>,
    record: CallRecord,
    usage: Option<UsageGuard>,
    attempts: u32,
}

impl CallGuard {
    /// Admits the caller to the object of this namespace and name. From here on the call leaves its line in the access log.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden`, `ReviewUnavailable`.
    pub(super) async fn admit(
        reviewer: &Reviewer,
        route: &Route,
        object: (&str, &str),
        headers: &HeaderMap,
        record: CallRecord,
    ) -> Result<Self, Problem> {
        record.begin();
        let caller = review(reviewer, headers, &route.permission, object).await?;
        record.admitted(Arc::clone(&caller));
        Ok(Self { caller, record, usage: None, attempts: 0 })
    }

    /// Counts the call for an object that exists. Callers must not be able to invent operations: each is a series.
    pub(super) fn count(&mut self, counters: &CallCounters, operation: impl Into<Cow<'static, str>>) {
        self.record.counted(Arc::clone(&counters.calls), operation.into());
        self.usage = counters.tally.as_ref().map(UsageGuard::start);
    }

    /// The name of the caller.
    pub(super) fn caller(&self) -> &str {
        &self.caller.name
    }

    /// An endpoint is called, for the first time or once more.
    pub(super) fn attempt(&mut self, endpoint: &Arc<str>, number: u32) {
        self.attempts = number;
        self.record.attempt(endpoint, number);
    }

    /// How many times an endpoint was called.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The target has answered or failed: the usage has the time until now.
    pub(super) fn served(&mut self) {
        if let Some(usage) = &mut self.usage {
            usage.served();
        }
    }

    /// The caller is answered by this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if let Some(usage) = &mut self.usage {
            usage.answered(status);
        }
    }

    /// A rate limit refused the call.
    pub(super) fn limited(&mut self) {
        if let Some(usage) = &mut self.usage {
            usage.limited();
        }
    }
}

/// The caller, if it has the permission for the object of this namespace and name.
///
/// # Errors
/// `Unauthenticated`, `Forbidden`, `ReviewUnavailable`.
pub(super) async fn review(
    reviewer: &Reviewer,
    headers: &HeaderMap,
    permission: &Permission,
    object: (&str, &str),
) -> Result<Arc<Caller>, Problem> {
    let Some(token) = bearer(headers) else {
        return Err(unauthenticated(
            "the header Authorization: Bearer with a ServiceAccount token is missing",
        ));
    };
    match reviewer.review(token, permission, object).await? {
        Decision::Allowed(caller) => Ok(caller),
        Decision::Forbidden(caller) => Err(Problem::forbidden(&caller.name, permission, object)),
        Decision::Unauthenticated => Err(unauthenticated("the API server does not accept the token")),
    }
}

fn unauthenticated(what: &str) -> Problem {
    let remedy = format!("mount a projected ServiceAccount token with the audience {AUDIENCE}");
    Problem::new(ProblemKind::Unauthenticated, format!("{what}: {remedy}"))
}

/// The token of RFC 6750 2.1; the scheme is case-insensitive (RFC 9110 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_found_whatever_the_case_of_its_scheme() {
        let token = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc").as_deref(), Some("abc"));
        assert_eq!([token("Basic abc"), token("Bearer"), token("Bearer  ")], [None, None, None]);
    }
}
