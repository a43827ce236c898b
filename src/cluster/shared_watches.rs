//! What specs name, watched once for all kinds: Secrets, ConfigMaps, Services and EndpointSlices, and other objects of ours.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::reflector,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use super::{
    object_cache::ScopedCache,
    references::ClusterReferences,
    resources::Resources,
    service_publisher::{SERVICES, SLICES, ServicePublisher, service_of},
    watches::{Change, Readiness, Scope, watch_changes},
};
use crate::api::{HasKind, shared::Reference};

/// The watches of one scope, and who wants to hear of their changes.
pub struct SharedWatches {
    scope: Scope,
    references: Arc<ClusterReferences>,
    publisher: Arc<ServicePublisher>,
    resources: Arc<Resources>,
    listeners: Listeners,
    _watches: Vec<AbortOnDropHandle<()>>,
}

impl SharedWatches {
    /// Which namespaces are watched.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Starts the watches; those of Services and slices only where something is registered, since they need rights that
    /// nobody else should have.
    #[must_use]
    pub fn start(client: &Client, scope: Scope, readiness: &Readiness, registers: bool) -> Self {
        let listeners = Listeners::default();
        let (secrets, _, secret_watch) = watch_changes::<PartialObjectMeta<Secret>, _>(
            scope.api(client.clone()),
            None,
            scope.part::<Secret>(),
            readiness,
            listeners.tell_of(|name| Reference::Secret(name.to_owned())),
        );
        let (config_maps, _, config_map_watch) = watch_changes::<PartialObjectMeta<ConfigMap>, _>(
            scope.api(client.clone()),
            None,
            scope.part::<ConfigMap>(),
            readiness,
            listeners.tell_of(|name| Reference::ConfigMap(name.to_owned())),
        );
        let mut watches = vec![spawn(secret_watch), spawn(config_map_watch)];
        let (services, slices) = if registers {
            let (services, _, service_watch) = watch_changes::<Service, _>(
                scope.api(client.clone()),
                Some(SERVICES),
                scope.part::<Service>(),
                readiness,
                listeners.tell_of(|name| Reference::Service(name.to_owned())),
            );
            let (slices, _, slice_watch) = watch_changes::<EndpointSlice, _>(
                scope.api(client.clone()),
                Some(SLICES),
                scope.part::<EndpointSlice>(),
                readiness,
                listeners.tell_of(|name| Reference::Service(service_of(name).to_owned())),
            );
            watches.extend([spawn(service_watch), spawn(slice_watch)]);
            (services, slices)
        } else {
            (reflector::store().0, reflector::store().0)
        };
        let resources = Arc::<Resources>::default();
        let references = ClusterReferences::new(client.clone(), secrets, config_maps, Arc::clone(&resources));
        Self {
            references: Arc::new(references),
            publisher: Arc::new(ServicePublisher::new(client.clone(), services, slices)),
            resources,
            listeners,
            scope,
            _watches: watches,
        }
    }

    /// What specs name: the values of Secrets and ConfigMaps, and other objects.
    #[must_use]
    pub fn references(&self) -> &Arc<ClusterReferences> {
        &self.references
    }

    /// Our Services and their slices.
    #[must_use]
    pub fn publisher(&self) -> &Arc<ServicePublisher> {
        &self.publisher
    }

    /// From now on the listener is called with a namespace and what has changed in it.
    pub fn listen(&self, listener: impl Fn(&str, &Reference) + Send + Sync + 'static) {
        self.listeners.all().push(Box::new(listener));
    }

    /// Lets the objects of this cache be named by specs.
    pub(super) fn follow<K>(&self, cache: &ScopedCache<K>)
    where
        K: HasKind
            + Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.resources.await_sync(K::KIND, cache.synced().clone());
        let (resources, listeners) = (Arc::clone(&self.resources), self.listeners.clone());
        cache.subscribe(move |change| {
            if let Some((namespace, changed)) = resources.take(change) {
                listeners.tell(&namespace, &changed);
            }
        });
    }

    /// Waits for the first list of each.
    pub async fn ready(&self) {
        self.references.ready().await;
        self.publisher.ready().await;
    }
}

type Listener = Box<dyn Fn(&str, &Reference) + Send + Sync>;

#[derive(Clone, Default)]
struct Listeners(Arc<Mutex<Vec<Listener>>>);

impl Listeners {
    fn tell(&self, namespace: &str, changed: &Reference) {
        self.all().iter().for_each(|listener| listener(namespace, changed));
    }

    /// Tells all listeners of every change of one type.
    fn tell_of<K, F>(&self, reference: F) -> impl FnMut(Change<K>) + Send + use<K, F>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
        F: Fn(&str) -> Reference + Send,
    {
        let listeners = self.clone();
        move |change| {
            let namespace = change.key.namespace.as_deref().unwrap_or_default();
            listeners.tell(namespace, &reference(&change.key.name));
        }
    }

    fn all(&self) -> parking_lot::MutexGuard<'_, Vec<Listener>> {
        self.0.lock()
    }
}

fn spawn(watch: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(watch))
}
