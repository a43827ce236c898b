//! The loop, once for all kinds: what starts a pass, and in which order passes run.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::{
        controller::{self, Action, ReconcileReason, ReconcileRequest},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    ControllerDeps, ObjectIndex, Reconciler, StatusOf, UsageReader,
    object_state::ObjectStates,
    reconcile::Pass,
    shared_watches::SharedWatches,
    triggers::{Key, Triggers},
};
use crate::{
    api::{ANNOTATION_PREFIX, Managed, shared::Reference},
    cluster::watches::watch,
};

/// EngineConfig of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Passes at the same time, of one kind.
    pub concurrency: u16,
    /// How long a pass may take.
    pub pass_deadline: Duration,
    /// Numbers in a status are at most this old; zero: they only ride along with changes.
    pub status_refresh: Duration,
    /// After cleaning up has failed for so long, a deleted object goes all the same.
    pub cleanup_deadline: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            concurrency: 16,
            pass_deadline: Duration::from_mins(1),
            status_refresh: Duration::from_mins(30),
            cleanup_deadline: Duration::from_mins(5),
        }
    }
}

/// One kind in one scope: its caches are warm from the start, its passes run only while leading.
pub struct Engine<R: Reconciler> {
    objects: Store<DeserializeGuard<R::Object>>,
    triggers: Triggers<R::Object>,
    pass: Arc<Pass<R>>,
    shared_watches: Arc<SharedWatches>,
    changes: tokio::sync::watch::Receiver<()>,
    _watch: AbortOnDropHandle<()>,
}

impl<R: Reconciler> Engine<R> {
    /// Starts the watch of the kind.
    pub fn start(reconciler: Arc<R>, deps: ControllerDeps, shared_watches: &Arc<SharedWatches>) -> Self {
        let triggers = Triggers::<R::Object>::default();
        let (objects, writer) = reflector::store::<DeserializeGuard<R::Object>>();
        reconciler.watch(ObjectIndex::new(objects.clone(), triggers.clone()));
        let listener = triggers.clone();
        shared_watches.listen(move |namespace, changed| {
            if R::SHARES_SERVICES && matches!(changed, Reference::Service(_)) {
                listener.fire_one_referrer(namespace, changed);
            } else {
                listener.fire_referrers(namespace, changed);
            }
        });

        let memory = Arc::new(ObjectStates::<StatusOf<R>>::new());
        let (api, part) = (
            shared_watches.scope.api(shared_watches.client.clone()),
            shared_watches.scope.part::<R::Object>(),
        );
        let events = watch(api, None, writer, part, shared_watches.readiness.clone());
        let changes = Changes {
            seen: HashMap::new(),
            listed: None,
            triggers: triggers.clone(),
            reconciler: Arc::clone(&reconciler),
            memory: Arc::clone(&memory),
            events: Arc::clone(&deps.events),
            runtime: Arc::clone(&deps.runtime),
        };
        let (tell, told) = tokio::sync::watch::channel(());
        let object_watch = events.fold((changes, tell), |(mut changes, tell), event| {
            changes.take(event);
            tell.send_replace(());
            std::future::ready((changes, tell))
        });
        let pass = Pass::new(
            reconciler,
            deps,
            objects.clone(),
            Arc::clone(shared_watches),
            memory,
            triggers.clone(),
        );
        Self {
            objects,
            triggers,
            pass: Arc::new(pass),
            shared_watches: Arc::clone(shared_watches),
            changes: told,
            _watch: AbortOnDropHandle::new(tokio::spawn(async { drop(object_watch.await) })),
        }
    }

    /// Runs passes: first one for every object, then whenever something asks for it. Once `halt` is cancelled, none
    /// starts any more, and the future ends with the last one that runs; dropped, it ends them at once.
    pub async fn lead(&self, halt: CancellationToken) {
        let _on_drop = LeadershipGuard(&self.pass);
        let fired = self.triggers.connect();
        // Where the caches are not complete, an object that names a Secret would seem to name a missing one. The
        // watches never end, so neither can fail.
        let _ = self.objects.wait_until_ready().await;
        self.shared_watches.ready().await;
        for object in self.objects.state() {
            self.triggers.fire(ObjectRef::from_obj(&*object));
        }
        let queue = stream::unfold(fired, |mut fired| async {
            let object = fired.recv().await?;
            let request = ReconcileRequest { obj_ref: object, reason: ReconcileReason::Unknown };
            Some((Ok::<_, Infallible>(request), fired))
        });
        let config = controller::Config::default().concurrency(self.pass.deps.settings.concurrency);
        let running = TaskTracker::new();
        let passes = controller::applier(
            |object, pass: Arc<Pass<R>>| {
                // A task of its own: passes use every core, and one that panics is only one that failed.
                let start = || AbortOnDropHandle::new(tokio::spawn(running.track_future(pass.run(object))));
                let task = (!halt.is_cancelled()).then(start);
                Box::pin(async move {
                    let Some(task) = task else { return Ok(Action::await_change()) };
                    Ok::<_, Infallible>(task.await.unwrap_or_else(|_| retry_soon()))
                })
            },
            |_, _, _| retry_soon(),
            Arc::clone(&self.pass),
            self.objects.clone(),
            Box::pin(queue),
            config,
        );
        let drained = async {
            halt.cancelled().await;
            running.close();
            running.wait().await;
        };
        tokio::select! {
            () = passes.for_each(|_| std::future::ready(())) => {}
            () = drained => {}
        }
    }

    /// The objects as last read, for whoever else needs them.
    #[must_use]
    pub fn store(&self) -> Store<DeserializeGuard<R::Object>> {
        self.objects.clone()
    }

    /// Tells of every change of the objects.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.changes.clone()
    }

    /// The objects as last read, those that this version cannot read included.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<DeserializeGuard<R::Object>>> {
        self.objects.state()
    }
}

/// Whatever way the leading ends.
struct LeadershipGuard<'a, R: Reconciler>(&'a Pass<R>);

impl<R: Reconciler> Drop for LeadershipGuard<'_, R> {
    fn drop(&mut self) {
        self.0.on_leadership_lost();
    }
}

fn retry_soon() -> Action {
    Action::requeue(Duration::from_secs(5))
}

/// Decides which watch events ask for a pass: our own status writes do not.
struct Changes<R: Reconciler> {
    seen: HashMap<Key<R::Object>, Seen>,
    /// What the list of a restarted watch has brought so far.
    listed: Option<HashMap<Key<R::Object>, Seen>>,
    triggers: Triggers<R::Object>,
    reconciler: Arc<R>,
    memory: Arc<ObjectStates<StatusOf<R>>>,
    events: Arc<crate::cluster::events::Events>,
    runtime: Arc<UsageReader>,
}

#[derive(Clone, PartialEq)]
struct Seen {
    uid: String,
    meaning: u64,
}

impl Seen {
    fn of<K: ResourceExt>(object: &K) -> Self {
        Self { uid: object.uid().unwrap_or_default(), meaning: meaning(object) }
    }
}

impl<R: Reconciler> Changes<R> {
    fn take(&mut self, event: watcher::Event<DeserializeGuard<R::Object>>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashMap::new()),
            watcher::Event::InitApply(object) => {
                let seen = Seen::of(&object);
                self.listed.get_or_insert_default().insert(ObjectRef::from_obj(&object), seen);
                self.remember(&object);
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.seen, listed);
                // Only now: the store takes a list as a whole, and an earlier pass would find what was there before it.
                for (key, seen) in &self.seen {
                    if before.get(key) != Some(seen) {
                        self.triggers.fire(key.clone());
                    }
                }
                for (key, before) in before {
                    let now = self.seen.get(&key);
                    if now.is_none() {
                        self.triggers.forget(&key);
                    }
                    if now.is_none_or(|now| now.uid != before.uid) {
                        self.gone(&before.uid);
                    }
                }
            }
            watcher::Event::Apply(object) => {
                let (key, seen) = (ObjectRef::from_obj(&object), Seen::of(&object));
                // An object that came by a list waits for its next pass: the store does not have it yet.
                self.memory.observed(&seen.uid, &object.resource_version().unwrap_or_default());
                let before = self.seen.insert(key.clone(), seen.clone());
                if before.as_ref() != Some(&seen) {
                    self.remember(&object);
                    self.triggers.fire(key);
                }
                if let Some(before) = before.filter(|before| before.uid != seen.uid) {
                    self.gone(&before.uid);
                }
            }
            watcher::Event::Delete(object) => {
                let key = ObjectRef::from_obj(&object);
                self.seen.remove(&key);
                self.triggers.forget(&key);
                self.gone(&object.uid().unwrap_or_default());
            }
        }
    }

    fn remember(&self, object: &DeserializeGuard<R::Object>) {
        let references = object.0.as_ref().map(Managed::references).unwrap_or_default();
        self.triggers.remember(&ObjectRef::from_obj(object), references);
    }

    fn gone(&self, uid: &str) {
        self.reconciler.forget(uid);
        self.memory.forget(uid);
        self.events.forget(uid);
        self.runtime.forget(uid);
    }
}

/// A digest of everything that a pass depends on: not the status, not other people's annotations.
fn meaning<K: ResourceExt>(object: &K) -> u64 {
    let mut hash = DefaultHasher::new();
    let meta = object.meta();
    meta.generation.hash(&mut hash);
    meta.deletion_timestamp.is_some().hash(&mut hash);
    meta.finalizers.hash(&mut hash);
    let annotations = meta.annotations.iter().flatten();
    annotations.filter(|(name, _)| name.starts_with(ANNOTATION_PREFIX)).for_each(|pair| pair.hash(&mut hash));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use kube::Client;

    use super::*;
    use crate::{
        api::v1alpha1::{ServiceRegistration, service_registration::ServiceRegistrationStatus},
        cluster::events::Events,
        controllers::{Context, Error, Report},
    };

    struct Idle;

    impl Reconciler for Idle {
        type Object = ServiceRegistration;

        const NAME: &'static str = "ServiceRegistration";

        async fn apply(
            &self,
            _: &ServiceRegistration,
            _: &Context,
        ) -> Result<Report<ServiceRegistrationStatus>, Error> {
            Ok(Report::default())
        }
    }

    fn registration(generation: i64) -> DeserializeGuard<ServiceRegistration> {
        let object = serde_json::json!({
            "metadata": { "name": "one", "namespace": "default", "uid": "1", "generation": generation },
            "spec": { "serviceName": "billing", "instanceId": "1", "addresses": ["192.0.2.1"],
                      "ports": [{ "name": "http", "port": 80 }] },
        });
        serde_json::from_value(object).expect("a registration")
    }

    #[tokio::test]
    async fn what_a_list_brings_asks_for_a_pass_once_the_store_has_it() {
        use watcher::Event::{Apply, Init, InitApply, InitDone};
        let triggers = Triggers::default();
        let mut asked = triggers.connect();
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().expect("an address")));
        let mut changes = Changes {
            seen: HashMap::new(),
            listed: None,
            triggers,
            reconciler: Arc::new(Idle),
            memory: Arc::new(ObjectStates::new()),
            events: Arc::new(Events::new(client.expect("a client"), "tests", "tests")),
            runtime: Arc::new(UsageReader::new(Duration::from_secs(15))),
        };
        changes.take(Apply(registration(1)));
        assert!(asked.try_recv().is_ok());
        for event in [Init, InitApply(registration(2))] {
            changes.take(event);
        }
        assert!(asked.try_recv().is_err(), "the store still has the first one");
        changes.take(InitDone);
        assert!(asked.try_recv().is_ok());
        for event in [Init, InitApply(registration(2)), InitDone] {
            changes.take(event);
        }
        assert!(asked.try_recv().is_err(), "it is the same");
    }
}
