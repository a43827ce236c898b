//! Objects made ready for calls, and kept so until what they say or name has changed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kube::{Resource, ResourceExt, core::NamespaceResourceScope};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::{
    CallDeps,
    problem::{Problem, ProblemKind},
};
use crate::{
    api::{Managed, status::Status},
    cluster::{object_cache::ObjectCache, references::References},
    resolving::{CredentialSource, Resolved, Unresolved},
};

/// A changed Secret is noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the API server may take to tell what an object names.
const RESOLVE: Duration = Duration::from_secs(5);

/// What can be made ready of an object.
pub(super) trait BuildClient: Sized + Send + Sync + 'static {
    /// The kind.
    type Object: Managed + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Send + Sync;

    /// How each of its targets is reached.
    type Settings: Send;

    /// Looks up what the spec names.
    fn resolve(
        object: &Self::Object,
        references: &dyn References,
    ) -> impl Future<Output = Result<Resolved<Self::Settings>, Unresolved>> + Send;

    /// The same for settings that are the same.
    fn key(settings: &Self::Settings) -> [u8; 32];

    /// Makes it ready.
    fn build(object: &Self::Object, settings: Vec<Self::Settings>, deps: &CallDeps) -> Result<Self, Problem>;

    /// Takes over what the status says.
    fn observe_status(&self, object: &Self::Object);
}

/// The objects of a kind that have been record.
pub(super) struct ClientCache<P: BuildClient> {
    objects: ObjectCache<P::Object>,
    deps: Arc<CallDeps>,
    made: RwLock<ByName<Arc<CachedClient<P>>>>,
    /// Held by whoever makes an object ready: nobody makes one twice, and none waits for another one's Secret.
    making: Mutex<ByName<Arc<tokio::sync::Mutex<()>>>>,
}

/// One that is ready, by its object.
pub(super) struct NamedClient<P> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) client: Arc<P>,
}

/// By namespace and name.
type ByName<T> = HashMap<String, HashMap<String, T>>;

struct CachedClient<P> {
    prepared: Arc<P>,
    uid: String,
    generation: i64,
    keys: Vec<[u8; 32]>,
    /// When it was last compared with what the spec names, in milliseconds since the start.
    looked: AtomicU64,
}

impl<P: BuildClient> ClientCache<P> {
    pub(super) fn new(objects: &ObjectCache<P::Object>, deps: &Arc<CallDeps>) -> Self {
        let (objects, deps) = (objects.clone(), Arc::clone(deps));
        Self { objects, deps, made: RwLock::default(), making: Mutex::default() }
    }

    /// The object of this name as it is now, ready for calls.
    ///
    /// # Errors
    /// `ServiceNotFound`, `NotReady`.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<P>, Problem> {
        let kind = P::Object::kind(&());
        let guard = self.objects.get(namespace, name);
        let Some(object) = guard.as_deref().and_then(|guard| guard.0.as_ref().ok()) else {
            let detail = format!("there is no {kind} {name} in the namespace {namespace}");
            return Err(Problem::new(ProblemKind::ServiceNotFound, detail));
        };
        if object.suspended() {
            return Err(Problem::new(
                ProblemKind::NotReady,
                format!("spec.suspend of the {kind} {name} is set"),
            ));
        }
        let known = self.known(namespace, name).filter(|known| known.is_of(object));
        if let Some(known) = known.filter(|known| !known.is_due(self.now())) {
            known.prepared.observe_status(object);
            return Ok(Arc::clone(&known.prepared));
        }
        // On the heap, because it is large, and rare.
        let prepared = Box::pin(self.make(object, namespace, name)).await?;
        prepared.observe_status(object);
        Ok(prepared)
    }

    async fn make(&self, object: &P::Object, namespace: &str, name: &str) -> Result<Arc<P>, Problem> {
        let lock = self.lock(namespace, name);
        let known = self.known(namespace, name).filter(|known| known.is_of(object));
        let _making = match (&known, lock.try_lock()) {
            (_, Ok(making)) => making,
            // Somebody is looking; what serves goes on serving meanwhile.
            (Some(known), Err(_)) => return Ok(Arc::clone(&known.prepared)),
            (None, Err(_)) => lock.lock().await,
        };
        let known = self.known(namespace, name).filter(|known| known.is_of(object));
        if let Some(known) = known.as_ref().filter(|known| !known.is_due(self.now())) {
            return Ok(Arc::clone(&known.prepared)); // made while this one waited
        }
        let kind = P::Object::kind(&());
        let resolved = tokio::time::timeout(RESOLVE, P::resolve(object, self.deps.references.as_ref())).await;
        let resolved = match (resolved, &known) {
            (Ok(Ok(resolved)), _) => resolved,
            // The last good state serves while the API server is away.
            (Err(_) | Ok(Err(Unresolved::Cluster(_))), Some(known)) => {
                known.looked.store(self.now(), Relaxed);
                return Ok(Arc::clone(&known.prepared));
            }
            (Ok(Err(error)), _) => {
                return Err(Problem::new(ProblemKind::NotReady, format!("the {kind} {name}: {error}")));
            }
            (Err(_), None) => {
                let detail = format!("the {kind} {name}: the API server does not tell what it names");
                return Err(Problem::new(ProblemKind::NotReady, detail));
            }
        };
        let keys: Vec<_> = resolved.targets.iter().map(P::key).collect();
        if let Some(known) =
            known.filter(|known| known.keys == keys || is_unproven(object, resolved.source.as_ref()))
        {
            known.looked.store(self.now(), Relaxed);
            return Ok(Arc::clone(&known.prepared));
        }
        let prepared = Arc::new(P::build(object, resolved.targets, &self.deps)?);
        let made = CachedClient {
            prepared: Arc::clone(&prepared),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation.unwrap_or_default(),
            keys,
            looked: AtomicU64::new(self.now()),
        };
        self.made_mut().entry(namespace.to_owned()).or_default().insert(name.to_owned(), Arc::new(made));
        Ok(prepared)
    }

    /// Those that are ready, of objects that are there and not suspended.
    pub(super) fn all(&self) -> Vec<NamedClient<P>> {
        let made = self.made.read();
        let all = made.iter().flat_map(|(namespace, made)| made.iter().map(move |made| (namespace, made)));
        let there = all.filter(|(namespace, (name, made))| self.serves(namespace, name, &made.uid));
        let named = there.map(|(namespace, (name, made))| NamedClient {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: made.uid.clone(),
            client: Arc::clone(&made.prepared),
        });
        named.collect()
    }

    /// Lets go of those whose objects are gone or suspended.
    pub(super) fn evict(&self) {
        let mut making = self.making.lock();
        making.retain(|namespace, locks| {
            locks.retain(|name, _| self.has(namespace, name));
            !locks.is_empty()
        });
        drop(making);
        self.made_mut().retain(|namespace, made| {
            made.retain(|name, made| self.serves(namespace, name, &made.uid));
            !made.is_empty()
        });
    }

    /// Whether there is an object of this name.
    pub(super) fn has(&self, namespace: &str, name: &str) -> bool {
        self.objects.get(namespace, name).is_some()
    }

    fn serves(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let object = self.objects.get(namespace, name);
        let object = object.as_deref().and_then(|object| object.0.as_ref().ok());
        object.is_some_and(|object| object.meta().uid.as_deref() == Some(uid) && !object.suspended())
    }

    fn lock(&self, namespace: &str, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock();
        Arc::clone(making.entry(namespace.to_owned()).or_default().entry(name.to_owned()).or_default())
    }

    fn known(&self, namespace: &str, name: &str) -> Option<Arc<CachedClient<P>>> {
        let all = self.made.read();
        all.get(namespace)?.get(name).cloned()
    }

    fn made_mut(&self) -> RwLockWriteGuard<'_, ByName<Arc<CachedClient<P>>>> {
        self.made.write()
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.deps.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether the operator, which tries a changed credential first, has not found it to work: until then the one before serves.
fn is_unproven<K: Managed>(object: &K, source: Option<&CredentialSource>) -> bool {
    let Some((source, status)) = source.zip(object.status().map(Status::common)) else {
        return false;
    };
    let in_use = status.credentials.iter().find(|credential| credential.secret == source.secret);
    status.observed_generation == object.meta().generation
        && in_use.is_some_and(|in_use| in_use.fingerprint != source.fingerprint)
}

impl<P> CachedClient<P> {
    fn is_of<K: ResourceExt>(&self, object: &K) -> bool {
        object.meta().generation == Some(self.generation) && object.meta().uid.as_deref() == Some(&self.uid)
    }

    fn is_due(&self, now: u64) -> bool {
        Duration::from_millis(now.saturating_sub(self.looked.load(Relaxed))) >= LOOK_AGAIN
    }
}
