//! Objects made ready for calls, and kept so until what they say or name has changed.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kube::{Resource, ResourceExt, core::NamespaceResourceScope};

use super::{
    counts::Counters,
    problem::{Kind, Problem},
};
use crate::{
    api::Managed,
    backends::http::Egress,
    cluster::{
        catalog::{Catalog, Changes},
        references::References,
    },
    resolving::Unresolved,
};

/// A changed Secret is noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What everything is made ready with.
pub(super) struct World {
    /// The values of Secrets and ConfigMaps.
    pub(super) references: Arc<dyn References>,
    /// The way out.
    pub(super) egress: Egress,
    /// What is counted for each object.
    pub(super) counters: Arc<Counters>,
    /// Where the gateway is.
    pub(super) zone: Option<String>,
    /// When the gateway started.
    pub(super) started: Instant,
}

/// What can be made ready of an object.
pub(super) trait Prepare: Sized + Send + Sync + 'static {
    /// The kind.
    type Object: Managed + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Send + Sync;

    /// How each of its targets is reached.
    type Settings: Send;

    /// Looks up what the spec names.
    fn resolve(
        object: &Self::Object,
        references: &dyn References,
    ) -> impl Future<Output = Result<Vec<Self::Settings>, Unresolved>> + Send;

    /// The same for settings that are the same.
    fn key(settings: &Self::Settings) -> [u8; 32];

    /// Makes it ready.
    fn make(object: &Self::Object, settings: Vec<Self::Settings>, world: &World) -> Result<Self, Problem>;

    /// Takes over what the status says.
    fn follow(&self, object: &Self::Object);
}

/// The objects of a kind that have been called.
pub(super) struct Ready<P: Prepare> {
    objects: Catalog<P::Object>,
    world: Arc<World>,
    made: RwLock<HashMap<Name, Arc<Made<P>>>>,
    /// One is made ready at a time: it is rare, and nobody makes one twice.
    making: tokio::sync::Mutex<()>,
}

/// One that is ready, by its object.
pub(super) struct Named<P> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) prepared: Arc<P>,
}

/// Namespace and name.
type Name = (String, String);

struct Made<P> {
    prepared: Arc<P>,
    uid: String,
    generation: i64,
    keys: Vec<[u8; 32]>,
    /// When it was last compared with what the spec names, in milliseconds since the start.
    looked: AtomicU64,
}

impl<P: Prepare> Ready<P> {
    pub(super) fn new(objects: Catalog<P::Object>, world: Arc<World>) -> Self {
        Self { objects, world, made: RwLock::default(), making: tokio::sync::Mutex::default() }
    }

    /// The object of this name as it is now, ready for calls. `ask` is given the object itself.
    ///
    /// # Errors
    /// `ServiceNotFound`, `NotReady`, and what `ask` says.
    pub(super) async fn get<T>(
        &self,
        namespace: &str,
        name: &str,
        ask: impl FnOnce(&P::Object) -> Result<T, Problem>,
    ) -> Result<(Arc<P>, T), Problem> {
        let kind = P::Object::kind(&());
        let guard = self.objects.get(namespace, name);
        let Some(object) = guard.as_deref().and_then(|guard| guard.0.as_ref().ok()) else {
            let detail = format!("there is no {kind} {name} in the namespace {namespace}");
            return Err(Problem::new(Kind::ServiceNotFound, detail));
        };
        if object.suspended() {
            return Err(Problem::new(Kind::NotReady, format!("spec.suspend of the {kind} {name} is set")));
        }
        let asked = ask(object)?;
        let known = self.known(namespace, name).filter(|known| known.is_of(object));
        if let Some(known) = known.filter(|known| !known.is_due(self.now())) {
            known.prepared.follow(object);
            return Ok((Arc::clone(&known.prepared), asked));
        }
        let prepared = self.make(object, (namespace.to_owned(), name.to_owned())).await?;
        prepared.follow(object);
        Ok((prepared, asked))
    }

    async fn make(&self, object: &P::Object, name: Name) -> Result<Arc<P>, Problem> {
        let _making = self.making.lock().await;
        let known = self.known(&name.0, &name.1).filter(|known| known.is_of(object));
        if let Some(known) = known.as_ref().filter(|known| !known.is_due(self.now())) {
            return Ok(Arc::clone(&known.prepared)); // made while this one waited
        }
        let settings = match (P::resolve(object, self.world.references.as_ref()).await, &known) {
            (Ok(settings), _) => settings,
            // The last good state serves while the API server is away.
            (Err(Unresolved::Cluster(_)), Some(known)) => return Ok(Arc::clone(&known.prepared)),
            (Err(error), _) => {
                let kind = P::Object::kind(&());
                return Err(Problem::new(Kind::NotReady, format!("the {kind} {}: {error}", name.1)));
            }
        };
        let keys: Vec<_> = settings.iter().map(P::key).collect();
        if let Some(known) = known.filter(|known| known.keys == keys) {
            known.looked.store(self.now(), Relaxed);
            return Ok(Arc::clone(&known.prepared));
        }
        let prepared = Arc::new(P::make(object, settings, &self.world)?);
        let made = Made {
            prepared: Arc::clone(&prepared),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation.unwrap_or_default(),
            keys,
            looked: AtomicU64::new(self.now()),
        };
        self.made_mut().insert(name, Arc::new(made));
        Ok(prepared)
    }

    /// Those that are ready, of objects that are there.
    pub(super) fn all(&self) -> Vec<Named<P>> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let there = made.iter().filter(|((namespace, name), made)| self.is_there(namespace, name, &made.uid));
        let named = there.map(|((namespace, name), made)| Named {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: made.uid.clone(),
            prepared: Arc::clone(&made.prepared),
        });
        named.collect()
    }

    /// Lets go of those whose objects are gone.
    pub(super) fn sweep(&self) {
        self.made_mut().retain(|(namespace, name), made| self.is_there(namespace, name, &made.uid));
    }

    /// Whether there is an object of this name.
    pub(super) fn has(&self, namespace: &str, name: &str) -> bool {
        self.objects.get(namespace, name).is_some()
    }

    /// Tells of changes of the objects.
    pub(super) fn changes(&self) -> Changes {
        self.objects.changes()
    }

    fn is_there(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.objects.get(namespace, name).is_some_and(|object| object.meta().uid.as_deref() == Some(uid))
    }

    fn known(&self, namespace: &str, name: &str) -> Option<Arc<Made<P>>> {
        let all = self.made.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn made_mut(&self) -> RwLockWriteGuard<'_, HashMap<Name, Arc<Made<P>>>> {
        self.made.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.world.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl<P> Made<P> {
    fn is_of<K: ResourceExt>(&self, object: &K) -> bool {
        object.meta().generation == Some(self.generation) && object.meta().uid.as_deref() == Some(&self.uid)
    }

    fn is_due(&self, now: u64) -> bool {
        Duration::from_millis(now.saturating_sub(self.looked.load(Relaxed))) >= LOOK_AGAIN
    }
}
