//! Who a caller is and what it may do, by the API server's word: TokenReview and SubjectAccessReview, remembered for a
//! short while.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::api::GROUP;

/// The audience that tokens must be for.
pub const AUDIENCE: &str = "authlink";

/// How long an answer is believed: a right that is taken away ends within it.
pub const REMEMBERED: Duration = Duration::from_secs(30);

/// Answers that are remembered at the most, of each kind.
const CAPACITY: u64 = 10_000;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Such as `system:serviceaccount:shop:orders`.
    pub name: String,
    /// Tells this one from an earlier one of the same name.
    uid: String,
    groups: Vec<String>,
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
    callers: Cache<[u8; 32], Option<Arc<Caller>>>,
    decisions: Cache<([u8; 32], Right), bool>,
}

impl Reviewer {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            callers: Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build(),
            decisions: Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build(),
        }
    }

    /// Whose token it is; none when the API server does not take it: forged, expired, for another audience, or of an
    /// account that is gone.
    ///
    /// # Errors
    /// The API server does not answer, and nothing is remembered.
    pub async fn caller(&self, token: &str) -> Result<Option<Arc<Caller>>, Unanswered> {
        // Only a digest is kept: what is in memory cannot be used in place of a token.
        let key = Sha256::digest(token).into();
        let asked = self.callers.try_get_with(key, async {
            let caller = within(self.review(token)).await?;
            Ok::<_, Unanswered>(caller.map(Arc::new))
        });
        asked.await.map_err(|_| Unanswered)
    }

    /// Whether the caller has the right.
    ///
    /// # Errors
    /// The API server does not answer, and nothing is remembered.
    pub async fn allows(&self, caller: &Caller, right: &Right) -> Result<bool, Unanswered> {
        let key = (caller.digest(), right.clone());
        let asked = self.decisions.try_get_with(key, async { within(self.ask(caller, right)).await });
        asked.await.map_err(|_| Unanswered)
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
        Ok(status.user.filter(|_| meant).map(Caller::from))
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

async fn within<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the API server failed a review");
            Err(Unanswered)
        }
        Err(_) => Err(Unanswered),
    }
}

impl Caller {
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

impl From<UserInfo> for Caller {
    fn from(user: UserInfo) -> Self {
        Self {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        }
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
