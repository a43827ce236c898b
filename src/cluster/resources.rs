//! The objects of our own kinds that specs name: what a referrer needs to know of them.

use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use kube::{Resource, core::DeserializeGuard};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::object_cache::Change;
use crate::api::{ConditionType, HasKind, Kind, shared::Reference, status::Status};

/// An object that specs may name, as last read.
#[derive(Clone)]
pub struct NamedResource {
    object: Arc<dyn Any + Send + Sync>,
    version: ResourceVersion,
    /// What its own spec names.
    pub references: Vec<Reference>,
}

/// The fields whose change requeues the referrers: not each number in a status.
#[derive(Clone, PartialEq, Eq)]
struct ResourceVersion {
    uid: Option<String>,
    generation: Option<i64>,
    /// Whether it is ready; none while nobody has observed this generation.
    ready: Option<bool>,
    deleted: bool,
}

impl NamedResource {
    /// The object, as one of its kind.
    #[must_use]
    pub fn new<K: HasKind + Send + Sync + 'static>(object: K) -> Self {
        Self {
            references: object.references(),
            version: ResourceVersion::of(&object),
            object: Arc::new(object),
        }
    }

    /// The object; none where it is of another kind.
    #[must_use]
    pub fn get<K: HasKind + Send + Sync + 'static>(&self) -> Option<Arc<K>> {
        Arc::clone(&self.object).downcast().ok()
    }

    /// Whether it says that it is ready; none while nobody has observed it as it is. One that is being deleted is not.
    #[must_use]
    pub fn is_ready(&self) -> Option<bool> {
        if self.version.deleted { Some(false) } else { self.version.ready }
    }
}

impl ResourceVersion {
    fn of<K: HasKind>(object: &K) -> Self {
        let meta = object.meta();
        let status = object.status().map(Status::common);
        let current = status.filter(|status| status.observed_generation == meta.generation);
        let ready = current.and_then(|status| status.condition(ConditionType::Ready));
        Self {
            uid: meta.uid.clone(),
            generation: meta.generation,
            ready: ready.filter(|ready| ready.status != "Unknown").map(|ready| ready.status == "True"),
            deleted: meta.deletion_timestamp.is_some(),
        }
    }
}

type Key = (Kind, String, String);

/// Every object of every kind in a scope, by kind, namespace and name.
#[derive(Default)]
pub struct Resources {
    by_key: RwLock<HashMap<Key, NamedResource>>,
    /// Cancelled with the first list of each kind.
    synced: RwLock<HashMap<Kind, CancellationToken>>,
}

/// The first list of a kind is not here yet: what is missing may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache of {0} is not synced yet")]
pub struct NotSynced(pub Kind);

impl Resources {
    /// The object of this name.
    ///
    /// # Errors
    /// The kind is not listed yet.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<NamedResource>, NotSynced> {
        let found = self.by_key.read().get(&(kind, namespace.to_owned(), name.to_owned())).cloned();
        let synced = || self.synced.read().get(&kind).is_some_and(CancellationToken::is_cancelled);
        if found.is_none() && !synced() { Err(NotSynced(kind)) } else { Ok(found) }
    }

    /// From now on the kind is synced when the token is cancelled.
    pub(super) fn await_sync(&self, kind: Kind, synced: CancellationToken) {
        self.synced.write().insert(kind, synced);
    }

    /// Takes a change over; gives namespace and name where it is one that referrers need to know of.
    pub(super) fn take<K>(&self, change: &Change<K>) -> Option<(String, Reference)>
    where
        K: HasKind + Clone + Send + Sync + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        let (namespace, name) = (change.key.namespace.clone().unwrap_or_default(), change.key.name.clone());
        let object = change.object.as_deref().and_then(|guard| guard.0.as_ref().ok());
        let mut by_key = self.by_key.write();
        let changed = match (by_key.entry((K::KIND, namespace.clone(), name.clone())), object) {
            (Entry::Occupied(entry), Some(object)) if entry.get().version == ResourceVersion::of(object) => {
                false
            }
            (entry, Some(object)) => {
                entry.insert_entry(NamedResource::new(object.clone()));
                true
            }
            (Entry::Occupied(entry), None) => {
                entry.remove();
                true
            }
            (Entry::Vacant(_), None) => false,
        };
        changed.then_some((namespace, Reference::Resource(K::KIND, name)))
    }
}
