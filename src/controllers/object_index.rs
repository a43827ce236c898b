//! The objects of a kind, for controllers whose reconciles depend on more than one.

use kube::{
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};

use super::{Object, triggers::Triggers};

/// The objects of one scope as last read, and how to requeue them.
pub struct ObjectIndex<K: Object> {
    store: Store<DeserializeGuard<K>>,
    triggers: Triggers<K>,
}

impl<K: Object> ObjectIndex<K> {
    pub(super) fn new(store: Store<DeserializeGuard<K>>, triggers: Triggers<K>) -> Self {
        Self { store, triggers }
    }

    /// What `pick` takes of each object that this version can read.
    pub fn filter_map<T>(&self, pick: impl Fn(&K) -> Option<T>) -> Vec<T> {
        let all = self.store.state();
        all.iter().filter_map(|guard| guard.0.as_ref().ok().and_then(&pick)).collect()
    }

    /// Requeues the object of this name, if it is one of these.
    pub fn requeue(&self, namespace: &str, name: &str) {
        let key = ObjectRef::new(name).within(namespace);
        if self.store.get(&key).is_some() {
            self.triggers.fire(key);
        }
    }
}
