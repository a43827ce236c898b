//! Who a caller is and what it may do, by the API server's word: TokenReview and SubjectAccessReview, remembered for a
//! short while.

use std::sync::Arc;

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
use sha2::{Digest, Sha256};

use super::answers::Answers;
pub use super::answers::REMEMBERED;
use crate::api::GROUP;

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
    /// When its token ends; none if that cannot be read from it.
    expires: Option<Timestamp>,
}

/// What a caller wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Such as `create`.
    pub verb: &'static str,
    /// Such as `externalapis`.
    pub resource: &'static str,
    /// Such as `invoke`; none for the resource itself.
    pub subresource: Option<&'static str>,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// The API server has not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the API server does not answer")]
pub struct Unanswered;

/// Asks the API server, once for each question.
pub struct Reviewer {
    client: Client,
    callers: Answers<[u8; 32], Option<Arc<Caller>>>,
    decisions: Answers<([u8; 32], Right), bool>,
}

impl Reviewer {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, callers: Answers::new(), decisions: Answers::new() }
    }

    /// Whose token it is; none when the API server does not take it: forged, expired, for another audience, or of an
    /// account that is gone.
    ///
    /// # Errors
    /// The API server does not answer, and nothing is remembered.
    pub async fn caller(&self, token: &str) -> Result<Option<Arc<Caller>>, Unanswered> {
        // Only a digest is kept: what is in memory cannot be used in place of a token.
        let key = Sha256::digest(token).into();
        let ask = async { Ok(self.review(token).await?.map(Arc::new)) };
        let caller = self.callers.get(key, ask).await.ok_or(Unanswered)?;
        // What is remembered must not outlive the token.
        Ok(caller.filter(|caller| caller.expires.is_none_or(|end| Timestamp::now() < end)))
    }

    /// Whether the caller has the right.
    ///
    /// # Errors
    /// The API server does not answer, and nothing is remembered.
    pub async fn allows(&self, caller: &Caller, right: &Right) -> Result<bool, Unanswered> {
        let key = (caller.digest(), right.clone());
        self.decisions.get(key, self.ask(caller, right)).await.ok_or(Unanswered)
    }

    async fn review(&self, token: &str) -> kube::Result<Option<Caller>> {
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
        // An API server that knows no audiences would take any token (KEP-1205).
        let meant = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        Ok(status.user.filter(|_| meant).map(|user| Caller::of(user, token)))
    }

    async fn ask(&self, caller: &Caller, right: &Right) -> kube::Result<bool> {
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(caller.name.clone()),
                uid: Some(caller.uid.clone()),
                groups: Some(caller.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    verb: Some(right.verb.to_owned()),
                    resource: Some(right.resource.to_owned()),
                    subresource: right.subresource.map(str::to_owned),
                    namespace: Some(right.namespace.clone()),
                    name: Some(right.name.clone()),
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
    fn of(user: UserInfo, token: &str) -> Self {
        Self {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            expires: expiry(token),
        }
    }

    /// All that decides what it may do.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.name, &self.uid].into_iter().chain(&self.groups) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl Right {
    /// As a Role names it, such as `externalapis/invoke`.
    #[must_use]
    pub fn resource(&self) -> String {
        match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        }
    }
}

/// When a JSON Web Token says that it ends (RFC 7519 4.1.4). That it says the truth is the API server's word.
fn expiry(token: &str) -> Option<Timestamp> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_read_from_it_where_it_can_be() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&token(r#"{"exp": 1516239022}"#)), Timestamp::from_second(1_516_239_022).ok());
        assert_eq!([expiry(&token("{}")), expiry(&token("none")), expiry("opaque")], [None; 3]);
    }
}
