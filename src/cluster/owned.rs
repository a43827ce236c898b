//! Secrets and ConfigMaps that we write: owned by the object that asked for them, and by no other.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::api::FIELD_MANAGER;

/// A type of objects that we own: [`Secret`] or [`ConfigMap`].
pub trait OwnedType:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What it holds.
    type Data: Clone + Send + Sync + 'static;

    /// The object with this content.
    fn with(metadata: ObjectMeta, data: Self::Data) -> Self;
}

/// What a Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretData {
    /// The Secret's type, which Kubernetes does not let anybody change later.
    pub type_: String,
    /// Its values.
    pub values: BTreeMap<String, Vec<u8>>,
}

impl OwnedType for Secret {
    type Data = SecretData;

    fn with(metadata: ObjectMeta, data: SecretData) -> Self {
        let values = data.values.into_iter().map(|(key, value)| (key, ByteString(value)));
        Self { metadata, type_: Some(data.type_), data: Some(values.collect()), ..Self::default() }
    }
}

impl OwnedType for ConfigMap {
    type Data = BTreeMap<String, String>;

    fn with(metadata: ObjectMeta, data: Self::Data) -> Self {
        Self { metadata, data: Some(data), ..Self::default() }
    }
}

/// An owned object as it should be.
#[derive(Clone, Debug)]
pub struct Desired<T: OwnedType> {
    /// Its name.
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its content.
    pub data: T::Data,
}

/// Whether the object `uid` controls what has these owners: a reference for garbage collection alone gives nobody the right to write.
#[must_use]
pub fn owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.uid == uid && owner.controller == Some(true))
}

/// Writes the object: a new one where there is none yet, else the one with the uid `existing` by server-side apply.
///
/// # Errors
/// What the API server says; a conflict when the object of this name is another one by now.
pub async fn write<T: OwnedType>(
    client: &Client,
    namespace: &str,
    owner: OwnerReference,
    desired: Desired<T>,
    existing: Option<String>,
) -> kube::Result<ObjectMeta> {
    let name = desired.name.clone();
    let metadata = ObjectMeta {
        name: Some(desired.name),
        uid: existing.clone(),
        annotations: Some(desired.annotations),
        labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
        // Not blocking: some clusters allow that only with rights on the owner's finalizers.
        owner_references: Some(vec![OwnerReference { block_owner_deletion: None, ..owner }]),
        ..ObjectMeta::default()
    };
    let object = T::with(metadata, desired.data);
    let api = Api::<T>::namespaced(client.clone(), namespace);
    let written = if existing.is_some() {
        api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await
    } else {
        // A create, not an apply, so that the right to create shows as used and an object of somebody else is never taken.
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        api.create(&params, &object).await
    };
    written.map(|written| written.meta().clone())
}

/// Deletes exactly the object with this uid; that it is gone already, or another one, is fine.
///
/// # Errors
/// What the API server says.
pub async fn delete<T: OwnedType>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<String>,
) -> kube::Result<()> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match Api::<T>::namespaced(client.clone(), namespace).delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        answer => answer.map(drop),
    }
}
