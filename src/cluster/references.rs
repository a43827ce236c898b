//! The values of Secrets and ConfigMaps that specs name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use secrecy::SecretSlice;

use super::{
    resources::{NamedResource, NotSynced, Resources},
    watches::Scope,
};
use crate::api::Kind;

/// A Secret's content.
#[derive(Debug)]
pub struct SecretContent {
    /// Such as `kubernetes.io/basic-auth`.
    pub type_: String,
    /// The Secret's uid: a salt for fingerprints.
    pub uid: String,
    /// The values.
    pub data: BTreeMap<String, SecretSlice<u8>>,
}

/// A ConfigMap's text values.
pub type ConfigContent = BTreeMap<String, String>;

/// Where references are looked up: the cluster, or the files of `authlink check`.
pub trait References: Send + Sync + 'static {
    /// The Secret, or none.
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<SecretContent>>>>;

    /// The ConfigMap, or none.
    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<ConfigContent>>>>;

    /// Another object of ours, or none.
    ///
    /// # Errors
    /// The kind is not listed yet.
    fn resource(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<NamedResource>, NotSynced>;
}

/// Metadata of every object of a type: what is watched, since values should not sit in memory by the thousand.
pub type MetaStore<K> = Store<PartialObjectMeta<K>>;

/// Reads from the cluster: each value once for each of its versions, however many objects name it.
pub struct ClusterReferences {
    client: Client,
    secrets: (MetaStore<Secret>, ValueCache<SecretContent>),
    config_maps: (MetaStore<ConfigMap>, ValueCache<ConfigContent>),
    resources: Arc<Resources>,
}

/// Values that were read, with their resource version; the lock of an entry makes concurrent readers wait for one.
struct ValueCache<V>(parking_lot::Mutex<HashMap<(String, String), Entry<V>>>);

type Entry<V> = Arc<tokio::sync::Mutex<Option<(String, Arc<V>)>>>;

impl<V> ValueCache<V> {
    fn new() -> Self {
        Self(parking_lot::Mutex::default())
    }

    /// A new entry is the moment to drop the others that `exist` no more: values of Secrets are not kept longer than needed.
    fn entry(&self, namespace: &str, name: &str, exist: impl Fn(&str, &str) -> bool) -> Entry<V> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut all = self.0.lock();
        if !all.contains_key(&key) {
            all.retain(|(namespace, name), _| exist(namespace, name));
        }
        all.entry(key).or_default().clone()
    }

    fn drop(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().remove(&key);
    }

    /// The value of this version; `read` is called when another version, or none, is cached.
    async fn get(
        &self,
        namespace: &str,
        name: &str,
        version: Option<String>,
        exist: impl Fn(&str, &str) -> bool,
        read: impl Future<Output = kube::Result<Option<(String, V)>>>,
    ) -> kube::Result<Option<Arc<V>>> {
        let Some(version) = version else {
            self.drop(namespace, name);
            return Ok(None);
        };
        let entry = self.entry(namespace, name, exist);
        let mut cached = entry.lock().await;
        if let Some((of, value)) = cached.as_ref()
            && *of == version
        {
            return Ok(Some(Arc::clone(value)));
        }
        *cached = read.await?.map(|(version, value)| (version, Arc::new(value)));
        Ok(cached.as_ref().map(|(_, value)| Arc::clone(value)))
    }
}

impl ClusterReferences {
    /// Over the metadata that is watched.
    #[must_use]
    pub fn new(
        client: Client,
        secrets: MetaStore<Secret>,
        config_maps: MetaStore<ConfigMap>,
        resources: Arc<Resources>,
    ) -> Self {
        let (secrets, config_maps) = ((secrets, ValueCache::new()), (config_maps, ValueCache::new()));
        Self { client, secrets, config_maps, resources }
    }

    /// Waits for the first list of both.
    pub async fn ready(&self) {
        // Fails only when a watch has ended for good, which none does.
        let _ = self.secrets.0.wait_until_ready().await;
        let _ = self.config_maps.0.wait_until_ready().await;
    }

    /// The watched metadata of a Secret.
    #[must_use]
    pub fn secret_meta(&self, namespace: &str, name: &str) -> Option<Arc<PartialObjectMeta<Secret>>> {
        self.secrets.0.get(&ObjectRef::new(name).within(namespace))
    }

    /// The watched metadata of a ConfigMap.
    #[must_use]
    pub fn config_map_meta(&self, namespace: &str, name: &str) -> Option<Arc<PartialObjectMeta<ConfigMap>>> {
        self.config_maps.0.get(&ObjectRef::new(name).within(namespace))
    }
}

impl References for ClusterReferences {
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<SecretContent>>>> {
        let version = self.secret_meta(namespace, name).and_then(|meta| meta.resource_version());
        let read = async {
            let secret = Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await?;
            Ok(secret.map(|secret| (secret.resource_version().unwrap_or_default(), content_of(secret))))
        };
        let exist = |namespace: &str, name: &str| self.secret_meta(namespace, name).is_some();
        self.secrets.1.get(namespace, name, version, exist, read).boxed()
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<ConfigContent>>>> {
        let meta = self.config_map_meta(namespace, name);
        let read = async {
            let map = Api::<ConfigMap>::namespaced(self.client.clone(), namespace).get_opt(name).await?;
            Ok(map.map(|map| (map.resource_version().unwrap_or_default(), map.data.unwrap_or_default())))
        };
        let version = meta.and_then(|meta| meta.resource_version());
        let exist = |namespace: &str, name: &str| self.config_map_meta(namespace, name).is_some();
        self.config_maps.1.get(namespace, name, version, exist, read).boxed()
    }

    fn resource(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<NamedResource>, NotSynced> {
        self.resources.get(kind, namespace, name)
    }
}

/// The values of several scopes.
pub struct ScopedReferences(Vec<(Scope, Arc<ClusterReferences>)>);

impl ScopedReferences {
    /// Each namespace is in one of these scopes.
    #[must_use]
    pub fn new(scopes: Vec<(Scope, Arc<ClusterReferences>)>) -> Self {
        Self(scopes)
    }

    fn of(&self, namespace: &str) -> Option<&ClusterReferences> {
        self.0.iter().find(|(scope, _)| scope.covers(namespace)).map(|(_, references)| references.as_ref())
    }
}

impl References for ScopedReferences {
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<SecretContent>>>> {
        match self.of(namespace) {
            Some(references) => references.secret(namespace, name),
            None => std::future::ready(Ok(None)).boxed(),
        }
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<ConfigContent>>>> {
        match self.of(namespace) {
            Some(references) => references.config_map(namespace, name),
            None => std::future::ready(Ok(None)).boxed(),
        }
    }

    fn resource(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<NamedResource>, NotSynced> {
        self.of(namespace).map_or(Ok(None), |of| of.resource(kind, namespace, name))
    }
}

/// A Secret as read from the API server or from a file; `stringData` wins, as it does there.
#[must_use]
pub fn content_of(secret: Secret) -> SecretContent {
    let uid = secret.uid().unwrap_or_default();
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    let text =
        secret.string_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    SecretContent {
        type_: secret.type_.unwrap_or_else(|| "Opaque".to_owned()),
        uid,
        data: data.chain(text).map(|(key, value)| (key, SecretSlice::from(value))).collect(),
    }
}
