//! The objects of a kind, as last read.

use std::sync::Arc;

use kube::{
    Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::watch;

/// What one watch has brought.
pub type Objects<K> = Store<DeserializeGuard<K>>;

/// The objects of a kind, of every scope that is watched; those that this version cannot read are left out.
#[derive(Clone)]
pub struct ObjectCache<K: Resource<DynamicType = ()> + Clone + 'static> {
    stores: Vec<Objects<K>>,
    changes: Vec<watch::Receiver<()>>,
}

/// Tells of changes of the objects of a kind.
pub struct CacheChanges(Vec<watch::Receiver<()>>);

impl CacheChanges {
    /// Waits for the next one; of several that come at once, it tells once.
    pub async fn next(&mut self) {
        let waiting = self.0.iter_mut().map(|changes| Box::pin(changes.changed()));
        // Fails when a watch has ended, which none does before the process.
        let _ = futures::future::select_all(waiting).await;
    }
}

impl<K> ObjectCache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    /// Over what the watches bring, and what tells of it; at least one of each.
    #[must_use]
    pub fn new(stores: Vec<Objects<K>>, changes: Vec<watch::Receiver<()>>) -> Self {
        Self { stores, changes }
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> CacheChanges {
        let mut changes = self.changes.clone();
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        CacheChanges(changes)
    }

    /// The object of this name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<DeserializeGuard<K>>> {
        let key = ObjectRef::new(name).within(namespace);
        self.stores.iter().find_map(|store| store.get(&key)).filter(|object| object.0.is_ok())
    }

    /// All of a namespace.
    #[must_use]
    pub fn all_in(&self, namespace: &str) -> Vec<Arc<DeserializeGuard<K>>> {
        let mut all = self.all();
        all.retain(|object| object.meta().namespace.as_deref() == Some(namespace));
        all
    }

    /// All.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<DeserializeGuard<K>>> {
        self.stores.iter().flat_map(Store::state).filter(|object| object.0.is_ok()).collect()
    }
}
