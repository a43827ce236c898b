//! The objects of each kind, as last read: what operator and gateway share.

use std::{fmt::Debug, sync::Arc};

use kube::{
    Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::reflector::{ObjectRef, Store},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    shared_watches::SharedWatches,
    watches::{self, Readiness, watch_changes},
};
use crate::api::{for_each_kind, v1alpha1};

/// What one object changed by.
pub type Change<K> = watches::Change<DeserializeGuard<K>>;

type Subscriber<K> = Box<dyn FnMut(&Change<K>) + Send>;

/// The objects of a kind in one scope.
pub struct ScopedCache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<DeserializeGuard<K>>,
    synced: CancellationToken,
    subscribers: Arc<Mutex<Vec<Subscriber<K>>>>,
    changed: watch::Receiver<()>,
    shared: Arc<SharedWatches>,
    _watch: AbortOnDropHandle<()>,
}

impl<K> ScopedCache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// Starts the watch in the scope of `shared`.
    #[must_use]
    pub fn start(client: &Client, shared: &Arc<SharedWatches>, readiness: &Readiness) -> Self {
        let subscribers = Arc::<Mutex<Vec<Subscriber<K>>>>::default();
        let (tell, changed) = watch::channel(());
        let subscribed = Arc::clone(&subscribers);
        let (store, synced, run) = watch_changes::<DeserializeGuard<K>, _>(
            shared.scope().api(client.clone()),
            None,
            shared.scope().part::<K>(),
            readiness,
            move |change| {
                subscribed.lock().iter_mut().for_each(|subscriber| subscriber(&change));
                tell.send_replace(());
            },
        );
        let watch = AbortOnDropHandle::new(tokio::spawn(run));
        Self { store, synced, subscribers, changed, shared: Arc::clone(shared), _watch: watch }
    }

    /// Calls `subscriber` for each object that is there, and from now on for each change.
    pub fn subscribe(&self, mut subscriber: impl FnMut(&Change<K>) + Send + 'static) {
        let mut subscribers = self.subscribers.lock();
        for object in self.store.state() {
            subscriber(&Change { key: ObjectRef::from_obj(&*object), object: Some(object), gone: None });
        }
        subscribers.push(Box::new(subscriber));
    }

    /// The objects, for a controller; those that this version cannot read included.
    #[must_use]
    pub fn store(&self) -> &Store<DeserializeGuard<K>> {
        &self.store
    }

    /// Cancelled once the subscribers were told of all of the first list.
    #[must_use]
    pub fn synced(&self) -> &CancellationToken {
        &self.synced
    }

    /// What else is watched in the same scope.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedWatches> {
        &self.shared
    }
}

/// The objects of a kind in every scope that is watched; those that this version cannot read are left out.
pub struct ObjectCache<K: Resource<DynamicType = ()> + Clone + 'static>(Vec<Arc<ScopedCache<K>>>);

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for ObjectCache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
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
    /// The caches of each scope.
    #[must_use]
    pub fn scopes(&self) -> &[Arc<ScopedCache<K>>] {
        &self.0
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> CacheChanges {
        let mut changes: Vec<_> = self.0.iter().map(|scope| scope.changed.clone()).collect();
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        CacheChanges(changes)
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
        self.0.iter().flat_map(|scope| scope.store.state()).filter(|object| object.0.is_ok()).collect()
    }
}

macro_rules! caches {
    ($($Kind:ident => $module:ident,)+) => {
        /// The caches of a process, one for each kind.
        #[derive(Clone)]
        pub struct Caches {
            $(#[doc = concat!("Of [`v1alpha1::", stringify!($Kind), "`].")]
            pub $module: ObjectCache<v1alpha1::$Kind>,)+
        }

        impl Caches {
            /// Starts the watches of every kind in each scope, and lets objects that name others hear of their changes.
            #[must_use]
            pub fn start(client: &Client, scopes: &[Arc<SharedWatches>], readiness: &Readiness) -> Self {
                Self { $($module: ObjectCache(
                    scopes
                        .iter()
                        .map(|shared| {
                            let cache = ScopedCache::<v1alpha1::$Kind>::start(client, shared, readiness);
                            shared.follow(&cache);
                            Arc::new(cache)
                        })
                        .collect(),
                )),+ }
            }

            /// What changes from now on, of every kind.
            #[must_use]
            pub fn changes(&self) -> CacheChanges {
                CacheChanges([$(self.$module.changes().0),+].into_iter().flatten().collect())
            }
        }
    };
}

for_each_kind!(caches);
