//! The one writer of Secrets and ConfigMaps that our objects own: bindings, generated keys, published configuration.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{Error, Object, ReconcileContext};
use crate::cluster::{
    objects::refusal,
    owned::{self, Desired, Over, OwnedType, SecretData, is_left_behind, owned_by},
};

/// A type of owned objects whose metadata is watched.
pub(super) trait WatchedType: OwnedType {
    /// The metadata of the object of this name, as last read.
    fn watched_meta(cx: &ReconcileContext, namespace: &str, name: &str) -> Option<Arc<ObjectMeta>>;

    /// A digest of the content: annotations alone are not worth a write.
    fn digest(data: &Self::Data) -> [u8; 32];
}

impl WatchedType for Secret {
    fn watched_meta(cx: &ReconcileContext, namespace: &str, name: &str) -> Option<Arc<ObjectMeta>> {
        cx.references.secret_meta(namespace, name).map(|found| Arc::new(found.metadata.clone()))
    }

    fn digest(SecretData { values, .. }: &SecretData) -> [u8; 32] {
        digest(values.iter().map(|(key, value)| (key.as_bytes(), value.as_slice())))
    }
}

impl WatchedType for ConfigMap {
    fn watched_meta(cx: &ReconcileContext, namespace: &str, name: &str) -> Option<Arc<ObjectMeta>> {
        cx.references.config_map_meta(namespace, name).map(|found| Arc::new(found.metadata.clone()))
    }

    fn digest(data: &Self::Data) -> [u8; 32] {
        digest(data.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())))
    }
}

fn digest<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in pairs.flat_map(|(key, value)| [key, value]) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What came of a write.
pub(super) enum OwnedOutcome {
    /// The object of this name is as it should be.
    Written(String),
    /// An object of this name was written this moment, by us or by somebody else: it is to be read once more.
    Pending,
    /// An object of this name exists and is not ours.
    Conflict(String),
    /// The API server refuses the object of this name.
    Refused(String),
}

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// There is none of this name.
    Nobody,
    /// It is the object's own, or was that of an earlier one of its name, and may be taken over.
    This,
    /// Somebody else's.
    Other,
}

/// The objects of one type that the objects of a kind own, at most one each. What was written is remembered, so that a reconcile
/// without a change writes nothing.
pub(super) struct OwnedWriter<T: WatchedType> {
    written: Mutex<HashMap<String, Written>>,
    _type: std::marker::PhantomData<fn() -> T>,
}

#[derive(Clone, PartialEq)]
struct Written {
    name: String,
    uid: Option<String>,
    version: String,
    content: [u8; 32],
}

impl Written {
    fn of(name: &str, meta: &ObjectMeta, content: [u8; 32]) -> Option<Self> {
        let version = meta.resource_version.clone()?;
        Some(Self { name: name.to_owned(), uid: meta.uid.clone(), version, content })
    }
}

impl<T: WatchedType> Default for OwnedWriter<T> {
    fn default() -> Self {
        Self { written: Mutex::default(), _type: std::marker::PhantomData }
    }
}

impl<T: WatchedType> OwnedWriter<T> {
    /// Writes the object, and removes the one of another name that was there before: whoever used it finds the new one by then.
    /// `known` is the name that the status has.
    ///
    /// # Errors
    /// What the API server failed at, and that this process may not write any more.
    pub(super) async fn write<K: Object>(
        &self,
        owner: &K,
        desired: Desired<T>,
        known: Option<&str>,
        cx: &ReconcileContext,
    ) -> Result<OwnedOutcome, Error> {
        // What this process wrote: neither status nor caches need to know of it yet.
        let before = self.written(&owner.uid().unwrap_or_default());
        let outcome = self.write_one(owner, desired, cx).await?;
        if let OwnedOutcome::Written(name) = &outcome {
            self.remove_others(owner, Some(name), before, known, cx).await?;
        }
        Ok(outcome)
    }

    /// Removes what was written for the object.
    ///
    /// # Errors
    /// As for [`OwnedWriter::write`].
    pub(super) async fn remove<K: Object>(
        &self,
        owner: &K,
        known: Option<&str>,
        cx: &ReconcileContext,
    ) -> Result<(), Error> {
        let before = self.written(&owner.uid().unwrap_or_default());
        self.remove_others(owner, None, before, known, cx).await
    }

    /// Whether the object of this name is still the owner's own.
    pub(super) fn is_owned<K: Object>(owner: &K, name: &str, cx: &ReconcileContext) -> bool {
        let (namespace, uid) = (owner.namespace().unwrap_or_default(), owner.uid().unwrap_or_default());
        T::watched_meta(cx, &namespace, name).is_some_and(|meta| owned_by(&meta, &uid))
    }

    /// Whose the object with this metadata is.
    pub(super) fn owner_of<K: Object>(owner: &K, meta: Option<&ObjectMeta>) -> Owner {
        let Some(meta) = meta else { return Owner::Nobody };
        let reference = owner.controller_owner_ref(&());
        if reference.is_some_and(|it| owned_by(meta, &it.uid) || is_left_behind(meta, &it)) {
            Owner::This
        } else {
            Owner::Other
        }
    }

    /// The owner is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.written.lock().remove(uid);
    }

    async fn write_one<K: Object>(
        &self,
        owner: &K,
        mut desired: Desired<T>,
        cx: &ReconcileContext,
    ) -> Result<OwnedOutcome, Error> {
        let (uid, namespace) = (owner.uid().unwrap_or_default(), owner.namespace().unwrap_or_default());
        let name = desired.name.clone();
        let Some(reference) = owner.controller_owner_ref(&()) else { return Ok(OwnedOutcome::Written(name)) };
        let existing = T::watched_meta(cx, &namespace, &name);
        if let Over::Version(version) = &desired.over
            && *version != existing.as_ref().and_then(|meta| meta.resource_version.clone())
        {
            return Ok(OwnedOutcome::Pending);
        }
        if let Some(meta) = existing.as_deref().filter(|meta| !owned_by(meta, &uid)) {
            if !is_left_behind(meta, &reference) {
                return Ok(OwnedOutcome::Conflict(name));
            }
            cx.fence.check()?;
            match owned::adopt::<T>(&cx.client, &namespace, &name, meta, reference.clone()).await {
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    return Ok(OwnedOutcome::Pending);
                }
                Err(error) if refusal(&error).is_some() => return Ok(OwnedOutcome::Refused(name)),
                adopted => {
                    let adopted = adopted?;
                    if let Over::Version(version) = &mut desired.over {
                        *version = adopted.resource_version;
                    }
                }
            }
        }
        let content = T::digest(&desired.data);
        let stored = existing.as_ref().and_then(|meta| Written::of(&name, meta, content));
        if stored.is_some() && self.written(&uid) == stored {
            return Ok(OwnedOutcome::Written(name));
        }
        cx.fence.check()?;
        let existing = existing.and_then(|meta| meta.uid.clone());
        match owned::write(&cx.client, &namespace, reference, desired, existing).await {
            // It exists by now, or is another one.
            Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_conflict() => {
                Ok(OwnedOutcome::Pending)
            }
            Err(error) if refusal(&error).is_some() => Ok(OwnedOutcome::Refused(name)),
            answer => {
                let written = Written::of(&name, &answer?, content);
                self.written.lock().extend(written.map(|written| (uid, written)));
                Ok(OwnedOutcome::Written(name))
            }
        }
    }

    async fn remove_others<K: Object>(
        &self,
        owner: &K,
        keep: Option<&str>,
        before: Option<Written>,
        known: Option<&str>,
        cx: &ReconcileContext,
    ) -> Result<(), Error> {
        let (uid, namespace) = (owner.uid().unwrap_or_default(), owner.namespace().unwrap_or_default());
        let other = |name: &str| Some(name) != keep;
        if let Some(old) = before.filter(|old| other(&old.name)) {
            cx.fence.check()?;
            owned::delete::<T>(&cx.client, &namespace, &old.name, old.uid).await?;
            if keep.is_none() {
                self.forget(&uid);
            }
        }
        if let Some(name) = known.filter(|name| other(name))
            && let Some(meta) = T::watched_meta(cx, &namespace, name).filter(|meta| owned_by(meta, &uid))
        {
            cx.fence.check()?;
            owned::delete::<T>(&cx.client, &namespace, name, meta.uid.clone()).await?;
        }
        Ok(())
    }

    fn written(&self, uid: &str) -> Option<Written> {
        self.written.lock().get(uid).cloned()
    }
}
