//! Who calls, and whether it may.

use std::sync::Arc;

use axum::http::{HeaderMap, header};

use super::{
    Gateway,
    problem::{Kind, Problem},
};
use crate::cluster::review::{AUDIENCE, Caller, Decision, Permission};

impl Gateway {
    /// Who calls, if it has the permission.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden`, or `ReviewUnavailable`.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        permission: &Permission<'_>,
    ) -> Result<Arc<Caller>, Problem> {
        let Some(token) = bearer(headers) else {
            return Err(unauthenticated(
                "the header Authorization: Bearer with a ServiceAccount token is missing",
            ));
        };
        match self.reviewer.review(token, permission).await? {
            Decision::Allowed(caller) => Ok(caller),
            Decision::Forbidden(caller) => Err(Problem::forbidden(&caller.name, permission)),
            Decision::Unknown => Err(unauthenticated("the API server does not take the token")),
        }
    }
}

fn unauthenticated(what: &str) -> Problem {
    let remedy = format!("mount a projected ServiceAccount token with the audience {AUDIENCE}");
    Problem::new(Kind::Unauthenticated, format!("{what}: {remedy}"))
}

/// The token of RFC 6750 2.1; the scheme's case does not matter (RFC 9110 11.1).
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
    fn a_token_is_found_in_any_case_of_its_scheme_and_nothing_else_is_one() {
        let token = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc").as_deref(), Some("abc"));
        assert_eq!([token("Basic abc"), token("Bearer"), token("Bearer  ")], [None, None, None]);
    }
}
