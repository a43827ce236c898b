//! What all kinds watch besides themselves, once for all of them: Secrets, ConfigMaps, Services and EndpointSlices.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Client, core::PartialObjectMeta, runtime::reflector};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api::shared::Reference,
    cluster::{
        references::ClusterReferences,
        service_publisher::{SERVICES, SLICES, ServicePublisher, service_of},
        watches::{Readiness, Scope, watch_changes},
    },
};

/// The watches of one scope, and who wants to hear of their changes.
pub struct SharedWatches {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) readiness: Readiness,
    /// The values of Secrets and ConfigMaps.
    pub(super) references: Arc<ClusterReferences>,
    /// Our Services and their slices.
    pub(super) registry: Arc<ServicePublisher>,
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
        let (secrets, secret_watch) = watch_changes::<PartialObjectMeta<Secret>, _>(
            scope.api(client.clone()),
            None,
            scope.part::<Secret>(),
            readiness,
            listeners.tell(|name| Reference::Secret(name.to_owned())),
        );
        let (config_maps, config_map_watch) = watch_changes::<PartialObjectMeta<ConfigMap>, _>(
            scope.api(client.clone()),
            None,
            scope.part::<ConfigMap>(),
            readiness,
            listeners.tell(|name| Reference::ConfigMap(name.to_owned())),
        );
        let mut watches = vec![spawn(secret_watch), spawn(config_map_watch)];
        let (services, slices) = if registers {
            let (services, service_watch) = watch_changes::<Service, _>(
                scope.api(client.clone()),
                Some(SERVICES),
                scope.part::<Service>(),
                readiness,
                listeners.tell(|name| Reference::Service(name.to_owned())),
            );
            let (slices, slice_watch) = watch_changes::<EndpointSlice, _>(
                scope.api(client.clone()),
                Some(SLICES),
                scope.part::<EndpointSlice>(),
                readiness,
                listeners.tell(|name| Reference::Service(service_of(name).to_owned())),
            );
            watches.extend([spawn(service_watch), spawn(slice_watch)]);
            (services, slices)
        } else {
            (reflector::store().0, reflector::store().0)
        };
        Self {
            references: Arc::new(ClusterReferences::new(client.clone(), secrets, config_maps)),
            registry: Arc::new(ServicePublisher::new(client.clone(), services, slices)),
            client: client.clone(),
            readiness: readiness.clone(),
            listeners,
            scope,
            _watches: watches,
        }
    }

    /// The values of Secrets and ConfigMaps, for whoever else needs them.
    #[must_use]
    pub fn references(&self) -> (Scope, Arc<ClusterReferences>) {
        (self.scope.clone(), Arc::clone(&self.references))
    }

    /// From now on the listener is called with a namespace and what has changed in it.
    pub(super) fn listen(&self, listener: impl Fn(&str, &Reference) + Send + Sync + 'static) {
        self.listeners.all().push(Box::new(listener));
    }

    /// Waits for the first list of each.
    pub(super) async fn ready(&self) {
        self.references.ready().await;
        self.registry.ready().await;
    }
}

type Listener = Box<dyn Fn(&str, &Reference) + Send + Sync>;

#[derive(Clone, Default)]
struct Listeners(Arc<Mutex<Vec<Listener>>>);

impl Listeners {
    /// Tells all listeners of every change of one type.
    fn tell<F: Fn(&str) -> Reference + Send>(&self, reference: F) -> impl FnMut(&str, &str) + Send + use<F> {
        let listeners = self.clone();
        move |namespace, name| {
            let changed = reference(name);
            listeners.all().iter().for_each(|listener| listener(namespace, &changed));
        }
    }

    fn all(&self) -> parking_lot::MutexGuard<'_, Vec<Listener>> {
        self.0.lock()
    }
}

fn spawn(watch: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(watch))
}
