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
use serde_json::json;

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
    /// What it may be written over.
    pub over: Over,
}

/// What an object may be written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Any version of the owner's own.
    Any,
    /// This version alone, or nothing: for content that was made from what was read.
    Version(Option<String>),
}

/// Says for whom an object was written: its owner references are lost or wrong once it was restored from a backup.
const OWNER_ANNOTATION: &str = "authlink.dev/owner";

fn owner_name(owner: &OwnerReference) -> String {
    format!("{}/{}", owner.kind, owner.name)
}

/// Whether an earlier object of the same kind and name had it: this one was restored, or made anew, and may take it over.
#[must_use]
pub fn is_left_behind(meta: &ObjectMeta, owner: &OwnerReference) -> bool {
    let group = |api_version: &str| api_version.split('/').next().map(str::to_owned);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let of_namesake = |it: &OwnerReference| {
        group(&it.api_version) == group(&owner.api_version) && owner_name(it) == owner_name(owner)
    };
    let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(OWNER_ANNOTATION));
    let named = annotation.is_some_and(|name| *name == owner_name(owner));
    owners.iter().all(of_namesake) && (named || owners.iter().any(|it| it.controller == Some(true)))
}

/// Makes `owner` the only owner of an object that is left behind.
///
/// # Errors
/// What the API server says; a conflict where it is not the version of `meta` any more.
pub async fn adopt<T: OwnedType>(
    client: &Client,
    namespace: &str,
    name: &str,
    meta: &ObjectMeta,
    owner: OwnerReference,
) -> kube::Result<ObjectMeta> {
    // By a merge, which replaces the whole list: by an apply the old owner would stay, and two cannot be controllers.
    let patch = json!({ "metadata": {
        "resourceVersion": meta.resource_version,
        "ownerReferences": [OwnerReference { block_owner_deletion: None, ..owner }],
    } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api = Api::<T>::namespaced(client.clone(), namespace);
    api.patch(name, &params, &Patch::Merge(&patch)).await.map(|adopted| adopted.meta().clone())
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
    let version = match desired.over {
        Over::Any => None,
        Over::Version(version) => version,
    };
    let name = desired.name.clone();
    let mut annotations = desired.annotations;
    annotations.insert(OWNER_ANNOTATION.to_owned(), owner_name(&owner));
    let metadata = ObjectMeta {
        name: Some(desired.name),
        uid: existing.clone(),
        resource_version: version.filter(|_| existing.is_some()),
        annotations: Some(annotations),
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
