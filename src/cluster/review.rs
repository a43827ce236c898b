//! Who a caller is and what it may do, by TokenReview and SubjectAccessReview; the API server's answers are cached for a short
//! time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::review_cache::{CACHE_TTL, CAPACITY, ReviewCache};
use crate::api::{GROUP, Kind};

/// The audience that tokens must be for.
pub const AUDIENCE: &str = "authlink";

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Such as `system:serviceaccount:shop:orders`.
    pub name: String,
    /// Tells this one from an earlier one of the same name.
    uid: String,
    groups: Vec<String>,
    /// When its token expires; none if that cannot be read from it.
    expires: Option<Timestamp>,
}

/// What a Role grants and a route asks for: a verb on the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The kind.
    pub kind: Kind,
    /// Such as `invoke`; none for the resource itself.
    pub subresource: Option<&'static str>,
    /// Such as `create`.
    pub verb: &'static str,
}

/// What the API server says of a caller.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It has the permission.
    Allowed(Arc<Caller>),
    /// It lacks the permission.
    Forbidden(Arc<Caller>),
    /// The token is invalid: forged, expired, for another audience, or of a ServiceAccount that was deleted.
    Unauthenticated,
}

/// The API server did not answer, and no earlier answer is cached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the API server did not answer whether the caller has the permission")]
pub struct ReviewUnavailable;

/// Reviews callers: asks the API server, however many calls need the same answer, once.
pub struct Reviewer {
    client: Client,
    callers: ReviewCache<Digest, Option<Arc<Caller>>>,
    decisions: ReviewCache<Digest, bool>,
    /// Who was allowed what lately, by token, permission and object: most calls need this one look-up.
    allowed: RwLock<HashMap<Digest, Allowed>>,
}

/// SHA-256 of what was asked. Of a token only this is kept: what is in memory cannot be used instead of it.
type Digest = [u8; 32];

struct Allowed {
    caller: Arc<Caller>,
    until: Instant,
}

impl Reviewer {
    /// With empty caches.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let outage = Arc::default();
        let (callers, decisions) =
            (ReviewCache::new(&outage, Option::is_some), ReviewCache::new(&outage, |allowed| *allowed));
        Self { client, callers, decisions, allowed: RwLock::default() }
    }

    /// Whether the owner of the token has the permission for the object of this namespace and name.
    ///
    /// # Errors
    /// The API server does not answer, and no earlier answer is cached.
    pub async fn review(
        &self,
        token: &str,
        permission: &Permission,
        object: (&str, &str),
    ) -> Result<Decision, ReviewUnavailable> {
        let key = digest([token].into_iter().chain(parts(permission, object)));
        match self.was_allowed(&key) {
            Some(caller) => Ok(Decision::Allowed(caller)),
            // On the heap, because it is large, and rare.
            None => Box::pin(self.ask(token, permission, object, key)).await,
        }
    }

    fn was_allowed(&self, key: &Digest) -> Option<Arc<Caller>> {
        let known = self.allowed.read();
        let allowed = known.get(key).filter(|allowed| Instant::now() < allowed.until)?;
        Some(Arc::clone(&allowed.caller))
    }

    fn allow(&self, key: Digest, allowed: Allowed) {
        let mut known = self.allowed.write();
        if known.len() >= CAPACITY {
            known.retain(|_, allowed| Instant::now() < allowed.until);
        }
        if known.len() < CAPACITY {
            known.insert(key, allowed);
        }
    }

    async fn ask(
        &self,
        token: &str,
        permission: &Permission,
        object: (&str, &str),
        key: Digest,
    ) -> Result<Decision, ReviewUnavailable> {
        let ask = Box::pin(async { Ok(self.caller(token).await?.map(Arc::new)) });
        let (caller, mut until) = self.callers.get(digest([token]), ask).await.ok_or(ReviewUnavailable)?;
        // A cached answer must not outlive the token.
        let left = |caller: &Arc<Caller>| match caller.expires {
            Some(end) => Duration::try_from(end - Timestamp::now()).ok().filter(|left| !left.is_zero()),
            None => Some(CACHE_TTL),
        };
        let Some((caller, left)) = caller.and_then(|caller| left(&caller).map(|left| (caller, left))) else {
            return Ok(Decision::Unauthenticated);
        };
        until = until.min(Instant::now() + left);
        let question = digest(caller.parts().chain(parts(permission, object)));
        let (allowed, decided) = self
            .decisions
            .get(question, Box::pin(self.decide(&caller, permission, object)))
            .await
            .ok_or(ReviewUnavailable)?;
        if !allowed {
            return Ok(Decision::Forbidden(caller));
        }
        self.allow(key, Allowed { caller: Arc::clone(&caller), until: until.min(decided) });
        Ok(Decision::Allowed(caller))
    }

    async fn caller(&self, token: &str) -> kube::Result<Option<Caller>> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            status: None,
        };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let Some(status) = answer.status.filter(|status| status.authenticated == Some(true)) else {
            return Ok(None);
        };
        // An API server that knows no audiences would accept any token (KEP-1205).
        let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        Ok(status.user.filter(|_| for_us).map(|user| Caller::new(user, token)))
    }

    async fn decide(
        &self,
        caller: &Caller,
        permission: &Permission,
        (namespace, name): (&str, &str),
    ) -> kube::Result<bool> {
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(caller.name.clone()),
                uid: Some(caller.uid.clone()),
                groups: Some(caller.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    verb: Some(permission.verb.to_owned()),
                    resource: Some(permission.kind.plural()),
                    subresource: permission.subresource.map(str::to_owned),
                    namespace: Some(namespace.to_owned()),
                    name: Some(name.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

impl Caller {
    fn new(user: UserInfo, token: &str) -> Self {
        Self {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            expires: expiry(token),
        }
    }

    /// Everything that its permissions depend on.
    fn parts(&self) -> impl Iterator<Item = &str> {
        [&self.name, &self.uid].into_iter().chain(&self.groups).map(String::as_str)
    }
}

/// Of parts whose number and order say what each is.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn parts<'a>(
    permission: &Permission,
    (namespace, name): (&'a str, &'a str),
) -> impl Iterator<Item = &'a str> + use<'a> {
    let Permission { kind, subresource, verb } = permission;
    [*verb, kind.as_str(), subresource.unwrap_or_default(), namespace, name].into_iter()
}

impl Permission {
    /// As a Role names it, such as `externalapis/invoke`.
    #[must_use]
    pub fn resource(&self) -> String {
        match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.kind.plural()),
            None => self.kind.plural(),
        }
    }
}

/// The `exp` claim of a JSON Web Token (RFC 7519 4.1.4), unverified: the API server has verified the token.
fn expiry(token: &str) -> Option<Timestamp> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_token_is_read_where_it_has_one() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&token(r#"{"exp": 1516239022}"#)), Timestamp::from_second(1_516_239_022).ok());
        assert_eq!([expiry(&token("{}")), expiry(&token("none")), expiry("opaque")], [None; 3]);
    }
}
