//! The client of each object that is called. The first call builds it; after a watch said that the object, or something that it
//! names, has changed, the next call builds it anew. All other calls find it by one look-up.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Resource, ResourceExt,
    core::{DeserializeGuard, NamespaceResourceScope},
};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;

use super::{
    CallDeps,
    problem::{Problem, ProblemKind},
};
use crate::{
    api::{HasKind, Managed, shared::Reference, status::Status},
    cluster::{
        object_cache::{Change, ObjectCache},
        reference_index::ReferenceIndex,
        references::References,
    },
    resolving::{CredentialSource, Resolved, Unresolved},
};

/// How long reading what an object names may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often that is tried again while the API server does not answer and the client that there is serves on.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A client, and how to build it from its object.
pub(super) trait BuildClient: Sized + Send + Sync + 'static {
    /// The kind.
    type Object: HasKind
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync;

    /// How one of its targets is reached.
    type Settings: Send;

    /// Looks up what the spec names.
    fn resolve(
        object: &Self::Object,
        references: &dyn References,
    ) -> impl Future<Output = Result<Resolved<Self::Settings>, Unresolved>> + Send;

    /// Equal for equal settings.
    fn key(settings: &Self::Settings) -> [u8; 32];

    /// Builds the client.
    fn build(object: &Self::Object, settings: Vec<Self::Settings>, deps: &CallDeps) -> Result<Self, Problem>;

    /// Takes over what the status says; called for each change.
    fn observe_status(&self, object: &Self::Object);
}

/// The clients of the objects of a kind.
pub(super) struct ClientCache<C: BuildClient> {
    slots: Arc<Slots<C>>,
    deps: Arc<CallDeps>,
}

/// The objects, and the clients of those that have been called.
struct Slots<C: BuildClient> {
    by_name: RwLock<ByName<Slot<C>>>,
    index: Mutex<ReferenceIndex<DeserializeGuard<C::Object>>>,
}

/// By namespace and name: found without a copy of either.
struct ByName<T> {
    all: HashMap<String, HashMap<String, T>>,
    /// The version of the last change.
    last: u64,
}

struct Slot<C: BuildClient> {
    /// As the watch last brought it; this version can read it.
    object: Arc<DeserializeGuard<C::Object>>,
    /// Of the last change of the object or of what it names.
    version: u64,
    client: Option<Arc<CachedClient<C>>>,
    /// The version that the client was last compared with.
    compared: u64,
    /// The API server did not answer: the client serves on until then.
    retry_at: Option<Instant>,
    /// Held while a call builds the client.
    building: Arc<tokio::sync::Mutex<()>>,
}

struct CachedClient<C> {
    client: Arc<C>,
    generation: Option<i64>,
    keys: Vec<[u8; 32]>,
}

/// A client, by its object.
pub(super) struct NamedClient<C> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) client: Arc<C>,
}

impl<C: BuildClient> ClientCache<C> {
    /// Follows the objects, and what they name.
    pub(super) fn new(objects: &ObjectCache<C::Object>, deps: &Arc<CallDeps>) -> Self {
        let by_name = RwLock::new(ByName { all: HashMap::new(), last: 0 });
        let slots = Arc::new(Slots { by_name, index: Mutex::default() });
        for scope in objects.scopes() {
            let (changed, referenced) = (Arc::clone(&slots), Arc::clone(&slots));
            scope.shared().listen(move |namespace, reference| referenced.mark(namespace, reference));
            scope.subscribe(move |change| changed.take(change));
        }
        Self { slots, deps: Arc::clone(deps) }
    }

    /// The client of the object of this name.
    ///
    /// # Errors
    /// `ServiceNotFound`, `NotReady`.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<C>, Problem> {
        if let Some(client) = self.current(namespace, name) {
            return Ok(client);
        }
        // On the heap, because it is large, and rare.
        Box::pin(self.refresh(namespace, name)).await
    }

    fn current(&self, namespace: &str, name: &str) -> Option<Arc<C>> {
        let slots = self.slots.by_name.read();
        let slot = slots.get(namespace, name).filter(|slot| slot.is_current())?;
        Some(Arc::clone(&slot.serving()?.client))
    }

    async fn refresh(&self, namespace: &str, name: &str) -> Result<Arc<C>, Problem> {
        let slot = self.slot(namespace, name)?;
        let _building = match (slot.building.try_lock(), slot.serving()) {
            (Ok(building), _) => building,
            // Another call compares it: meanwhile it serves on.
            (Err(_), Some(serving)) => return Ok(Arc::clone(&serving.client)),
            (Err(_), None) => slot.building.lock().await,
        };
        let slot = self.slot(namespace, name)?;
        let serving = slot.serving();
        if let Some(serving) = serving.filter(|_| slot.is_current()) {
            return Ok(Arc::clone(&serving.client)); // another call has built it
        }
        let object = slot.object.0.as_ref().map_err(|_| not_found::<C>(namespace, name))?;
        let resolve = C::resolve(object, self.deps.references.as_ref());
        let resolved = match (tokio::time::timeout(RESOLVE_TIMEOUT, resolve).await, serving) {
            (Ok(Ok(resolved)), _) => resolved,
            // The last good state serves while the API server is away.
            (Err(_) | Ok(Err(Unresolved::Cluster(_))), Some(serving)) => {
                self.slots.by_name.write().update(namespace, name, &slot, |now| {
                    if now.version == slot.version {
                        now.retry_at = Some(Instant::now() + RETRY_INTERVAL);
                    }
                });
                return Ok(Arc::clone(&serving.client));
            }
            (Ok(Err(error)), _) => return Err(not_ready::<C>(name, &error.to_string())),
            (Err(_), None) => {
                let timeout = RESOLVE_TIMEOUT.as_secs();
                let why = format!("reading what it names from the API server timed out after {timeout}s");
                return Err(not_ready::<C>(name, &why));
            }
        };
        let keys: Vec<_> = resolved.targets.iter().map(C::key).collect();
        let unproven = is_unproven(object, resolved.source.as_ref());
        let cached = if let Some(serving) = serving.filter(|serving| serving.keys == keys || unproven) {
            Arc::clone(serving)
        } else {
            let client = Arc::new(C::build(object, resolved.targets, &self.deps)?);
            Arc::new(CachedClient { client, generation: object.meta().generation, keys })
        };
        self.slots.by_name.write().update(namespace, name, &slot, |now| {
            if let Ok(object) = &now.object.0 {
                cached.client.observe_status(object);
            }
            now.client = Some(Arc::clone(&cached));
            (now.compared, now.retry_at) = (slot.version, None);
        });
        Ok(Arc::clone(&cached.client))
    }

    /// The object of this name, if it can be called.
    fn slot(&self, namespace: &str, name: &str) -> Result<Slot<C>, Problem> {
        let slots = self.slots.by_name.read();
        let slot = slots.get(namespace, name).ok_or_else(|| not_found::<C>(namespace, name))?;
        if slot.is_suspended() {
            return Err(not_ready::<C>(name, "spec.suspend is set"));
        }
        Ok(slot.clone())
    }

    /// Every client.
    pub(super) fn all(&self) -> Vec<NamedClient<C>> {
        let slots = self.slots.by_name.read();
        let slots = slots
            .all
            .iter()
            .flat_map(|(namespace, slots)| slots.iter().map(move |(name, slot)| (namespace, name, slot)));
        let named = slots.filter_map(|(namespace, name, slot)| {
            Some(NamedClient {
                namespace: namespace.clone(),
                name: name.clone(),
                uid: slot.object.uid().unwrap_or_default(),
                client: Arc::clone(&slot.client.as_ref()?.client),
            })
        });
        named.collect()
    }

    /// Whether there is an object of this name.
    pub(super) fn has(&self, namespace: &str, name: &str) -> bool {
        self.slots.by_name.read().get(namespace, name).is_some()
    }
}

fn not_found<C: BuildClient>(namespace: &str, name: &str) -> Problem {
    let kind = C::Object::KIND;
    let detail = format!("there is no {kind} {name} in the namespace {namespace}");
    Problem::new(ProblemKind::ServiceNotFound, detail)
}

fn not_ready<C: BuildClient>(name: &str, why: &str) -> Problem {
    Problem::new(ProblemKind::NotReady, format!("the {} {name}: {why}", C::Object::KIND))
}

/// Whether the operator, which tries a changed credential first, has not found it to work yet: until then the one before serves.
/// That it works changes the status, which marks the client again.
fn is_unproven<K: HasKind>(object: &K, source: Option<&CredentialSource>) -> bool {
    let Some((source, status)) = source.zip(object.status().map(Status::common)) else {
        return false;
    };
    let in_use = status.credentials.iter().find(|credential| credential.secret == source.secret);
    status.observed_generation == object.meta().generation
        && in_use.is_some_and(|in_use| in_use.fingerprint != source.fingerprint)
}

impl<C: BuildClient> Slots<C> {
    /// Takes over a change of an object. The client of one that is gone, suspended or another one of the same name is dropped.
    fn take(&self, change: &Change<C::Object>) {
        let object = change.object.as_ref().filter(|object| object.0.is_ok());
        match object.and_then(|object| object.0.as_ref().ok()) {
            Some(object) => self.index.lock().set(&change.key, object.references()),
            None => self.index.lock().remove(&change.key),
        }
        let namespace = change.key.namespace.as_deref().unwrap_or_default();
        let before = self.by_name.write().replace(namespace, &change.key.name, object);
        // Outside of the lock, since it may close connections.
        drop(before);
    }

    /// Marks the clients of all objects that name this.
    fn mark(&self, namespace: &str, reference: &Reference) {
        let index = self.index.lock();
        let referrers: Vec<_> = index.referrers(namespace, reference).map(|it| it.name.clone()).collect();
        drop(index);
        if referrers.is_empty() {
            return;
        }
        let mut slots = self.by_name.write();
        for name in referrers {
            slots.mark(namespace, &name);
        }
    }
}

impl<C: BuildClient> ByName<Slot<C>> {
    fn get(&self, namespace: &str, name: &str) -> Option<&Slot<C>> {
        self.all.get(namespace)?.get(name)
    }

    fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut Slot<C>> {
        self.all.get_mut(namespace)?.get_mut(name)
    }

    /// Puts the object in place, or none, and gives the slot that was there.
    fn replace(
        &mut self,
        namespace: &str,
        name: &str,
        object: Option<&Arc<DeserializeGuard<C::Object>>>,
    ) -> Option<Slot<C>> {
        let Some(object) = object else {
            let slots = self.all.get_mut(namespace)?;
            let before = slots.remove(name);
            if slots.is_empty() {
                self.all.remove(namespace);
            }
            return before;
        };
        self.last += 1;
        let mut slot = Slot::new(Arc::clone(object), self.last);
        let slots = self.all.entry(namespace.to_owned()).or_default();
        let before = slots.get(name).filter(|before| before.object.uid() == object.uid());
        if let Some(before) = before.filter(|_| !slot.is_suspended()) {
            (slot.client, slot.compared) = (before.client.clone(), before.compared);
            slot.building = Arc::clone(&before.building);
            if let (Some(serving), Ok(object)) = (slot.serving(), &object.0) {
                serving.client.observe_status(object);
            }
        }
        slots.insert(name.to_owned(), slot)
    }

    /// What the object names has changed.
    fn mark(&mut self, namespace: &str, name: &str) {
        self.last += 1;
        let version = self.last;
        if let Some(slot) = self.get_mut(namespace, name) {
            (slot.version, slot.retry_at) = (version, None);
        }
    }

    /// Changes the slot, if it is still that of the same object and is not suspended.
    fn update(&mut self, namespace: &str, name: &str, seen: &Slot<C>, change: impl FnOnce(&mut Slot<C>)) {
        let slot = self.get_mut(namespace, name);
        let slot = slot.filter(|slot| slot.object.uid() == seen.object.uid() && !slot.is_suspended());
        if let Some(slot) = slot {
            change(slot);
        }
    }
}

impl<C: BuildClient> Slot<C> {
    fn new(object: Arc<DeserializeGuard<C::Object>>, version: u64) -> Self {
        Self { object, version, client: None, compared: 0, retry_at: None, building: Arc::default() }
    }

    /// Whether its client serves without a comparison.
    fn is_current(&self) -> bool {
        self.compared == self.version || self.retry_at.is_some_and(|retry_at| Instant::now() < retry_at)
    }

    /// The client of this generation of the object.
    fn serving(&self) -> Option<&Arc<CachedClient<C>>> {
        self.client.as_ref().filter(|client| client.generation == self.object.meta().generation)
    }

    fn is_suspended(&self) -> bool {
        self.object.0.as_ref().is_ok_and(Managed::suspended)
    }
}

impl<C: BuildClient> Clone for Slot<C> {
    fn clone(&self) -> Self {
        Self {
            object: Arc::clone(&self.object),
            version: self.version,
            client: self.client.clone(),
            compared: self.compared,
            retry_at: self.retry_at,
            building: Arc::clone(&self.building),
        }
    }
}
