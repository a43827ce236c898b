//! The objects of our own kinds that specs name: what a referrer needs to know of them.

use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use kube::{Resource, core::DeserializeGuard};
use parking_lot::RwLock;

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

/// What a change of which requeues the referrers: not each number in a status.
#[derive(Clone, PartialEq, Eq)]
struct ResourceVersion {
    uid: Option<String>,
    generation: Option<i64>,
    /// The status of `Ready`.
    ready: Option<String>,
    deleted: bool,
}

impl NamedResource {
    /// The object, as one of its kind.
    #[must_use]
    pub fn new<K: HasKind + Send + Sync + 'static>(object: K) -> Self {
        let meta = object.meta();
        let ready = object.status().and_then(|status| status.common().condition(ConditionType::Ready));
        let version = ResourceVersion {
            uid: meta.uid.clone(),
            generation: meta.generation,
            ready: ready.map(|ready| ready.status.clone()),
            deleted: meta.deletion_timestamp.is_some(),
        };
        Self { references: object.references(), version, object: Arc::new(object) }
    }

    /// The object; none where it is of another kind.
    #[must_use]
    pub fn get<K: HasKind + Send + Sync + 'static>(&self) -> Option<Arc<K>> {
        Arc::clone(&self.object).downcast().ok()
    }

    /// Whether it says that it is ready; none while nobody has looked.
    #[must_use]
    pub fn is_ready(&self) -> Option<bool> {
        self.version.ready.as_deref().filter(|ready| *ready != "Unknown").map(|ready| ready == "True")
    }
}

type Key = (Kind, String, String);

/// Every object of every kind, by kind, namespace and name.
#[derive(Default)]
pub struct Resources(RwLock<HashMap<Key, NamedResource>>);

impl Resources {
    /// The object of this name.
    #[must_use]
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<NamedResource> {
        self.0.read().get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Takes a change over; gives namespace and name where it is one that referrers need to know of.
    pub(super) fn take<K>(&self, change: &Change<K>) -> Option<(String, Reference)>
    where
        K: HasKind + Clone + Send + Sync + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        let (namespace, name) = (change.key.namespace.clone().unwrap_or_default(), change.key.name.clone());
        let object = change.object.as_deref().and_then(|guard| guard.0.as_ref().ok());
        let now = object.map(|object| NamedResource::new(object.clone()));
        let changed = match (self.0.write().entry((K::KIND, namespace.clone(), name.clone())), now) {
            (Entry::Occupied(mut entry), Some(now)) => entry.insert(now.clone()).version != now.version,
            (Entry::Occupied(entry), None) => {
                entry.remove();
                true
            }
            (Entry::Vacant(entry), Some(now)) => {
                entry.insert(now);
                true
            }
            (Entry::Vacant(_), None) => false,
        };
        changed.then_some((namespace, Reference::Resource(K::KIND, name)))
    }
}
