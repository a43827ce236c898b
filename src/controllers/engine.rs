//! The loop, once for all kinds: what requeues an object, and in which order objects are reconciled.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::{
        controller::{self, Action, ReconcileReason, ReconcileRequest},
        reflector::ObjectRef,
    },
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    ControllerDeps, ObjectIndex, Reconciler, StatusOf,
    object_state::ObjectStates,
    predicate::{ChangePredicate, references},
    reconcile::Runner,
    triggers::Triggers,
};
use crate::cluster::object_cache::{Change, ScopedCache};

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Reconciles at the same time, of one kind.
    pub concurrency: u16,
    /// How long a reconcile may take.
    pub reconcile_timeout: Duration,
    /// Numbers in a status are at most this old; zero: they are written with other changes only.
    pub status_refresh: Duration,
    /// After finalizing has failed for so long, a deleted object goes all the same.
    pub finalize_timeout: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            concurrency: 16,
            reconcile_timeout: Duration::from_mins(1),
            status_refresh: Duration::from_mins(30),
            finalize_timeout: Duration::from_mins(5),
        }
    }
}

/// One kind in one scope. Its cache is warm from the start; it reconciles only while leading.
pub struct Engine<R: Reconciler> {
    cache: Arc<ScopedCache<R::Object>>,
    triggers: Triggers<R::Object>,
    runner: Arc<Runner<R>>,
}

impl<R: Reconciler> Engine<R> {
    /// Subscribes to what the cache and the watches of the same scope bring.
    pub fn start(reconciler: Arc<R>, deps: ControllerDeps, cache: &Arc<ScopedCache<R::Object>>) -> Self {
        let triggers = Triggers::<R::Object>::default();
        reconciler.set_index(ObjectIndex::new(cache.store().clone(), triggers.clone()));
        let referrers = triggers.clone();
        cache.shared().listen(move |namespace, changed| {
            if R::coalesces(changed) {
                referrers.fire_one_referrer(namespace, changed);
            } else {
                referrers.fire_referrers(namespace, changed);
            }
        });
        let states = Arc::new(ObjectStates::<StatusOf<R>>::new());
        let runner = Arc::new(Runner::new(reconciler, deps, cache, Arc::clone(&states), triggers.clone()));
        let (mut predicate, forgetting, requeue) =
            (ChangePredicate::default(), Arc::downgrade(&runner), triggers.clone());
        cache.subscribe(move |change: &Change<R::Object>| {
            if let Some(object) = &change.object {
                let version = object.resource_version().unwrap_or_default();
                states.observed(&object.uid().unwrap_or_default(), &version);
            } else {
                requeue.forget(&change.key);
            }
            if predicate.passes(change) {
                requeue.remember(&change.key, references(change));
                requeue.fire(change.key.clone());
            }
            if let Some((uid, runner)) = change.gone.as_ref().zip(forgetting.upgrade()) {
                runner.forget(uid);
            }
        });
        Self { cache: Arc::clone(cache), triggers, runner }
    }

    /// Reconciles: first every object, then whatever is requeued. Once `halt` is cancelled, no reconcile starts any more, and the
    /// future ends with the last one that runs; dropped, it ends them at once.
    pub async fn lead(&self, halt: CancellationToken) {
        let fired = self.triggers.connect();
        // Where the caches are not complete, an object that names a Secret would seem to name a missing one. The
        // watches never end, so neither can fail.
        let _ = self.cache.store().wait_until_ready().await;
        self.cache.shared().ready().await;
        for object in self.cache.store().state() {
            self.triggers.fire(ObjectRef::from_obj(&*object));
        }
        let queue = stream::unfold(fired, |mut fired| async {
            let object = fired.recv().await?;
            let request = ReconcileRequest { obj_ref: object, reason: ReconcileReason::Unknown };
            Some((Ok::<_, Infallible>(request), fired))
        });
        let config = controller::Config::default().concurrency(self.runner.deps().config.concurrency);
        let running = TaskTracker::new();
        let reconciles = controller::applier(
            |object: Arc<DeserializeGuard<R::Object>>, runner: Arc<Runner<R>>| {
                // A task of its own: reconciles use every core, and one that panics is only one that failed.
                let start = || AbortOnDropHandle::new(tokio::spawn(running.track_future(runner.run(object))));
                let task = (!halt.is_cancelled()).then(start);
                Box::pin(async move {
                    let Some(task) = task else { return Ok(Action::await_change()) };
                    Ok::<_, Infallible>(task.await.unwrap_or_else(|_| retry_soon()))
                })
            },
            |_, _, _| retry_soon(),
            Arc::clone(&self.runner),
            self.cache.store().clone(),
            Box::pin(queue),
            config,
        );
        let drained = async {
            halt.cancelled().await;
            running.close();
            running.wait().await;
        };
        tokio::select! {
            () = reconciles.for_each(|_| std::future::ready(())) => {}
            () = drained => {}
        }
    }

    /// The objects as last read, those that this version cannot read included.
    #[must_use]
    pub fn cached(&self) -> Vec<Arc<DeserializeGuard<R::Object>>> {
        self.cache.store().state()
    }

    /// This process leads no more.
    pub async fn on_leadership_lost(&self) {
        self.runner.on_leadership_lost().await;
    }
}

fn retry_soon() -> Action {
    Action::requeue(Duration::from_secs(5))
}
