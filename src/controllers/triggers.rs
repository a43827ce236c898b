//! Requeues one object, or all that name what has changed.

use std::sync::Arc;

use kube::{core::DeserializeGuard, runtime::reflector::ObjectRef};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use super::Object;
use crate::{api::shared::Reference, cluster::reference_index::ReferenceIndex};

/// How the engine names an object.
pub(super) type Key<K> = ObjectRef<DeserializeGuard<K>>;

/// Requeues objects; while this process does not lead, nobody listens.
pub(super) struct Triggers<K: Object>(Arc<Mutex<State<K>>>);

struct State<K: Object> {
    listener: Option<mpsc::UnboundedSender<Key<K>>>,
    index: ReferenceIndex<DeserializeGuard<K>>,
}

impl<K: Object> Clone for Triggers<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Object> Default for Triggers<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { listener: None, index: ReferenceIndex::default() })))
    }
}

impl<K: Object> Triggers<K> {
    /// From now on the receiver gets what is asked for.
    pub(super) fn connect(&self) -> mpsc::UnboundedReceiver<Key<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().listener = Some(sender);
        receiver
    }

    /// Requeues this object.
    pub(super) fn fire(&self, object: Key<K>) {
        if let Some(listener) = &self.state().listener {
            // Fails only while leadership ends: the next leader looks at every object anyway.
            let _ = listener.send(object);
        }
    }

    /// Requeues every object that names what has changed.
    pub(super) fn fire_referrers(&self, namespace: &str, changed: &Reference) {
        let found = self.state().referrers_of(namespace, changed, usize::MAX);
        for object in found {
            self.fire(object);
        }
    }

    /// Requeues one of them, the same one until the objects change: many changes may be one reconcile.
    pub(super) fn fire_one_referrer(&self, namespace: &str, changed: &Reference) {
        let found = self.state().referrers_of(namespace, changed, 1);
        for object in found {
            self.fire(object);
        }
    }

    /// Notes what the object names now.
    pub(super) fn remember(&self, object: &Key<K>, references: Vec<Reference>) {
        self.state().index.set(object, references);
    }

    /// The object is gone.
    pub(super) fn forget(&self, object: &Key<K>) {
        self.state().index.remove(object);
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock()
    }
}

impl<K: Object> State<K> {
    fn referrers_of(&self, namespace: &str, changed: &Reference, at_most: usize) -> Vec<Key<K>> {
        self.index.referrers(namespace, changed).take(at_most).cloned().collect()
    }
}
