//! Secrets that we write: owned by the object that asked for them, and nobody else's.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};

use crate::api::FIELD_MANAGER;

/// A Secret as it should be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Its name.
    pub name: String,
    /// Its type, which Kubernetes does not let anybody change later.
    pub type_: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its values.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// Whether the object `uid` owns what has these owners.
#[must_use]
pub fn owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// Writes the Secret: a new one where there is none yet, else by server-side apply.
///
/// # Errors
/// What the API server says.
pub async fn write(
    client: &Client,
    namespace: &str,
    owner: OwnerReference,
    desired: Desired,
    exists: bool,
) -> kube::Result<Secret> {
    let name = desired.name.clone();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(desired.name),
            annotations: Some(desired.annotations),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
            // Not blocking: some clusters allow that only with rights on the owner's finalizers.
            owner_references: Some(vec![OwnerReference { block_owner_deletion: None, ..owner }]),
            ..ObjectMeta::default()
        },
        type_: Some(desired.type_),
        data: Some(desired.data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
        ..Secret::default()
    };
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    if exists {
        return api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret)).await;
    }
    // A create, not an apply, so that the right to create shows as used and a Secret of somebody else is never taken.
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    api.create(&params, &secret).await
}

/// Deletes exactly the Secret with this uid; that it is gone already, or another one, is fine.
///
/// # Errors
/// What the API server says.
pub async fn delete(client: &Client, namespace: &str, name: &str, uid: Option<String>) -> kube::Result<()> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match Api::<Secret>::namespaced(client.clone(), namespace).delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        answer => answer.map(drop),
    }
}
