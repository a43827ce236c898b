//! One pass over one object, from what the store has to what the API server is told.

mod carry_over;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    core::{DeserializeGuard, NamespaceResourceScope, object::HasStatus},
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use tracing::Instrument;

use super::{
    Cleanup, Context, ControllerDeps, Error, EventRecord, Object, Reconciler, Report, StatusOf,
    object_state::ObjectStates,
    shared_watches::SharedWatches,
    triggers::{Key, Triggers},
    usage_reader,
};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{CommonStatus, Status},
    },
    cluster::objects,
    domain::{
        backoff::{self, RESYNC, Retry},
        conditions::{self, ConditionUpdate, advise, transitions},
    },
};

pub(super) use carry_over::refused;
use carry_over::{keeping, last_error, meaning, with_status_as_written};

/// Holds an object until what it has outside is cleaned up.
pub const FINALIZER: &str = "authlink.dev/cleanup";

/// How long a pass that failed may take to say so.
const TELLING: Duration = Duration::from_secs(5);

/// What every pass of a kind uses.
pub(super) struct Pass<R: Reconciler> {
    reconciler: Arc<R>,
    pub(super) deps: ControllerDeps,
    objects: Store<DeserializeGuard<R::Object>>,
    shared_watches: Arc<SharedWatches>,
    memory: Arc<ObjectStates<StatusOf<R>>>,
    triggers: Triggers<R::Object>,
}

/// How a pass ended.
struct Outcome {
    name: &'static str,
    next: Action,
}

impl<R: Reconciler> Pass<R> {
    pub(super) fn new(
        reconciler: Arc<R>,
        deps: ControllerDeps,
        objects: Store<DeserializeGuard<R::Object>>,
        shared_watches: Arc<SharedWatches>,
        memory: Arc<ObjectStates<StatusOf<R>>>,
        triggers: Triggers<R::Object>,
    ) -> Self {
        Self { reconciler, deps, objects, shared_watches, memory, triggers }
    }

    pub(super) fn on_leadership_lost(&self) {
        self.reconciler.on_leadership_lost();
    }

    pub(super) async fn run(self: Arc<Self>, object: Arc<DeserializeGuard<R::Object>>) -> Action {
        let started = Instant::now();
        // In this order: the store has what the watch brings before the memory drops what was written.
        let pending_status = self.memory.pending_status(&object.uid().unwrap_or_default());
        let object = self.newest(object);
        // The watch may have been faster than the answer to the write.
        self.memory
            .observed(&object.uid().unwrap_or_default(), &object.resource_version().unwrap_or_default());
        let span = tracing::info_span!(
            "pass",
            kind = R::NAME,
            namespace = object.namespace().unwrap_or_default(),
            object = object.name_any()
        );
        async {
            let deadline = self.deps.settings.pass_deadline;
            let ended = match &object.0 {
                Ok(object) => {
                    let object = &*with_status_as_written(object, pending_status);
                    let current = object.status().cloned().unwrap_or_default();
                    let ended = match tokio::time::timeout(deadline, self.over(object, &current)).await {
                        Ok(ended) => ended,
                        Err(_) => Err(Error::DeadlineExceeded(deadline)),
                    };
                    if let Err(error) = &ended {
                        let told = self.tell_of_failure(object, &current, error);
                        let _ = tokio::time::timeout(TELLING, told).await;
                    }
                    ended
                }
                Err(_) => tokio::time::timeout(deadline, self.over_unreadable(&object))
                    .await
                    .unwrap_or(Err(Error::DeadlineExceeded(deadline))),
            };
            let uid = object.uid().unwrap_or_default();
            let outcome = ended.unwrap_or_else(|error| self.failed(&uid, &error));
            if outcome.name != "failed" {
                self.memory.succeeded(&uid);
            }
            self.deps.metrics.engine.pass(R::NAME, outcome.name, started.elapsed());
            // Deleted while the pass ran, it was forgotten too early.
            if self.objects.get(&ObjectRef::from_obj(&*object)).is_none_or(|now| now.uid() != object.uid()) {
                self.reconciler.forget(&uid);
                self.deps.runtime.forget(&uid);
                self.deps.events.forget(&uid);
                self.memory.forget(&uid);
            }
            outcome.next
        }
        .instrument(span)
        .await
    }

    /// The object as the store has it now; a new one of the same name gets a pass of its own.
    fn newest(&self, object: Arc<DeserializeGuard<R::Object>>) -> Arc<DeserializeGuard<R::Object>> {
        let stored = self.objects.get(&ObjectRef::from_obj(&*object));
        stored.filter(|stored| stored.uid() == object.uid()).unwrap_or(object)
    }

    /// How a pass ends that is to be tried again.
    fn failed(&self, uid: &str, error: &Error) -> Outcome {
        let failures = self.memory.failed(uid);
        tracing::warn!(%error, failures, "a pass failed");
        self.deps.metrics.engine.failed(R::NAME, error.reason());
        let delay = backoff::delay(error.retry(), failures, rand::random());
        Outcome { name: "failed", next: Action::requeue(delay) }
    }

    async fn over(&self, object: &R::Object, current: &StatusOf<R>) -> Result<Outcome, Error> {
        let uid = object.uid().unwrap_or_default();
        if object.meta().deletion_timestamp.is_some() {
            return self.over_deleted(object).await;
        }
        if object.suspended() {
            self.reconciler.forget(&uid);
            let message = "spec.suspend is set: nothing is probed";
            let paused = ConditionUpdate::is_true(ConditionType::Suspended, Reason::Suspended, message);
            self.tell(object, current, keeping(current, paused), object.meta().generation).await?;
            return Ok(Outcome { name: "suspended", next: Action::await_change() });
        }
        if object.has_external_state() && !object.finalizers().iter().any(|name| name == FINALIZER) {
            let finalizers = [object.finalizers(), &[FINALIZER.to_owned()]].concat();
            self.deps.fence.check()?;
            objects::set_finalizers(&self.deps.client, object, &finalizers).await?;
            // The watch brings the object back with its finalizer: only then something may be made outside.
            return Ok(Outcome { name: "applied", next: Action::await_change() });
        }
        let (mut report, failure) = match self.reconciler.apply(object, &self.context(object)).await {
            Ok(report) => (report, None),
            Err(Error::NotProbedYet) => {
                return Ok(Outcome { name: "waiting", next: Action::await_change() });
            }
            Err(error) if error.condition().is_none() => return Err(error),
            Err(error) => {
                let unfinished = self.mark_endpoints_not_ready(object).await.err();
                (Report { unfinished, ..refused(object, &error) }, Some(error))
            }
        };
        report.verdicts = conditions::complete(R::Object::CONDITIONS, R::Object::READY_WHEN, report.verdicts);
        let unfinished = report.unfinished.take();
        report.verdicts.extend(unfinished.as_ref().map(reconciling));
        let again = report.again.unwrap_or(RESYNC);
        let status_written = self.tell(object, current, report, object.meta().generation).await?;
        if let Some(error) = unfinished {
            return Ok(self.failed(&uid, &error));
        }
        let again = again.min(self.until_refresh(&uid));
        if let Some(error) = failure {
            self.deps.metrics.engine.failed(R::NAME, error.reason());
            let next = match error.retry() {
                Retry::OnChange => Action::await_change(),
                retry => Action::requeue(backoff::delay(retry, 1, rand::random())),
            };
            return Ok(Outcome { name: "refused", next });
        }
        Ok(Outcome {
            name: if status_written { "applied" } else { "unchanged" },
            next: Action::requeue(again),
        })
    }

    /// Lets no endpoint be ready that the object alone has registered: nobody probes it any more.
    async fn mark_endpoints_not_ready<K: Resource>(&self, object: &K) -> Result<(), Error> {
        let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
        Ok(self.shared_watches.registry.mark_endpoints_not_ready(&namespace, &uid, &self.deps.fence).await?)
    }

    /// A pass that failed for reasons of the operator's own says nothing new of the object, except that it is not done.
    async fn tell_of_failure(&self, object: &R::Object, current: &StatusOf<R>, error: &Error) {
        let leaving = object.meta().deletion_timestamp.is_some();
        if leaving || matches!(error, Error::NotLeader(_)) {
            return;
        }
        // Best effort: an API server that failed the pass may well fail this, too, and the log has it anyway.
        let report = keeping(current, reconciling(error));
        let _ = self.tell(object, current, report, current.common().observed_generation).await;
    }

    /// Writes the status if its meaning changed, or its numbers are old; then the Events. `generation` is the one that
    /// the report is about. Tells whether it status_written.
    async fn tell(
        &self,
        object: &R::Object,
        current: &StatusOf<R>,
        report: Report<StatusOf<R>>,
        generation: Option<i64>,
    ) -> Result<bool, Error> {
        let uid = object.uid().unwrap_or_default();
        let now = Timestamp::now();
        let mut status = report.status;
        let common = status.common_mut();
        common.observed_generation = generation;
        common.conditions =
            conditions::merge(&current.common().conditions, &report.verdicts, generation, now);
        common.last_error = last_error(current.common(), &report.verdicts, now);
        let circuit = usage_reader::transition(current.common(), common);
        let changed = meaning(&status) != meaning(current);
        let refresh = self.deps.settings.status_refresh;
        let stale = !refresh.is_zero() && self.memory.age(&uid) >= refresh && status != *current;
        if changed || stale {
            self.deps.fence.check()?;
            let version = match objects::apply_status(&self.deps.client, object, &status).await {
                // The object went, or is another one: the watch tells.
                Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {
                    return Ok(false);
                }
                answer => answer?,
            };
            self.deps.metrics.engine.wrote_status(R::NAME);
            self.memory.status_written(&uid, version, status);
        }
        let transitions =
            transitions(&current.common().conditions, &report.verdicts).into_iter().map(|change| {
                EventRecord { warning: change.warning, reason: change.reason, message: change.message }
            });
        for note in transitions.chain(circuit).chain(report.notes) {
            tracing::info!(reason = note.reason.as_str(), "{}", note.message);
            let about = object.object_ref(&());
            self.deps.events.publish(&about, note.warning, note.reason.as_str(), &note.message).await;
        }
        Ok(changed || stale)
    }

    /// How long the numbers in the status may still stay as they are.
    fn until_refresh(&self, uid: &str) -> Duration {
        let refresh = self.deps.settings.status_refresh;
        match refresh.saturating_sub(self.memory.age(uid)) {
            _ if refresh.is_zero() => RESYNC,
            // They are old, and the same as ever.
            Duration::ZERO => refresh.min(RESYNC),
            left => left,
        }
    }

    async fn over_deleted(&self, object: &R::Object) -> Result<Outcome, Error> {
        let done = Outcome { name: "cleaned", next: Action::await_change() };
        if !object.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(done);
        }
        // Within the pass, so that one that hangs is a failure like others, and its deadline is looked at.
        let deadline = self.deps.settings.pass_deadline / 2;
        let cleaned =
            tokio::time::timeout(deadline, self.reconciler.cleanup(object, &self.context(object))).await;
        let cleaned = cleaned.unwrap_or(Err(Error::DeadlineExceeded(deadline)));
        if let Ok(Cleanup::Again(time)) = cleaned {
            return Ok(Outcome { name: "cleaning", next: Action::requeue(time) });
        }
        if let Err(error) = cleaned {
            let about = object.object_ref(&());
            // Since it fails: until then it may have taken its time, to drain for instance.
            let failing = self.memory.failing(&object.uid().unwrap_or_default());
            if failing.min(deleted(object)) < self.deps.settings.cleanup_deadline {
                let note = format!("the object stays until this works, or its deadline has passed: {error}");
                self.deps.events.publish(&about, true, error.reason().as_str(), &note).await;
                return Err(error);
            }
            let note = format!("released although cleaning up failed, so that the object can go: {error}");
            tracing::warn!(note, "orphaned");
            self.deps.events.publish(&about, true, Reason::Orphaned.as_str(), &note).await;
        }
        self.release(object).await.map(|()| done)
    }

    /// Lets a deleted object go.
    async fn release<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let others: Vec<_> = object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
        self.deps.fence.check()?;
        match objects::set_finalizers(&self.deps.client, object, &others).await {
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
            answer => answer.map_err(Error::from),
        }
    }

    /// An object that this version cannot read (a newer one status_written it) gets to know it, and holds up nobody else.
    async fn over_unreadable(&self, object: &DeserializeGuard<R::Object>) -> Result<Outcome, Error> {
        let Err(invalid) = &object.0 else {
            return Ok(Outcome { name: "unchanged", next: Action::await_change() });
        };
        self.reconciler.forget(&object.uid().unwrap_or_default());
        let held = object.finalizers().iter().any(|name| name == FINALIZER);
        if held && object.meta().deletion_timestamp.is_some() {
            // Another version, which can read it, may still clean up.
            let left = self.deps.settings.cleanup_deadline.saturating_sub(deleted(object));
            if !left.is_zero() {
                return Ok(Outcome { name: "cleaning", next: Action::requeue(left) });
            }
            let note = "released although this version cannot read it: what it has outside stays behind";
            self.deps.events.publish(&object.object_ref(&()), true, Reason::Orphaned.as_str(), note).await;
            self.release(object).await?;
            return Ok(Outcome { name: "cleaned", next: Action::await_change() });
        }
        let error = Error::InvalidSpec { field: "spec".to_owned(), problem: invalid.error.clone() };
        let verdicts = conditions::complete(
            R::Object::CONDITIONS,
            R::Object::READY_WHEN,
            error.verdicts(R::Object::CONDITIONS),
        );
        let generation = object.meta().generation;
        let doubted = self.mark_endpoints_not_ready(object).await;
        let known = objects::conditions(&self.deps.client, object).await?;
        let status = CommonStatus {
            observed_generation: generation,
            conditions: conditions::merge(&known, &verdicts, generation, Timestamp::now()),
            ..CommonStatus::default()
        };
        self.deps.fence.check()?;
        objects::apply_status(&self.deps.client, object, &status).await?;
        self.deps.metrics.engine.wrote_status(R::NAME);
        self.deps.metrics.engine.failed(R::NAME, error.reason());
        doubted?;
        Ok(Outcome { name: "refused", next: Action::await_change() })
    }

    fn context(&self, object: &R::Object) -> Context {
        let triggers = self.triggers.clone();
        let key = key_of(object);
        Context {
            client: self.deps.client.clone(),
            references: Arc::clone(&self.shared_watches.references),
            registry: Arc::clone(&self.shared_watches.registry),
            resolver: Arc::clone(&self.deps.resolver),
            egress: Arc::clone(&self.deps.egress),
            fence: self.deps.fence.clone(),
            metrics: Arc::clone(&self.deps.metrics),
            runtime: Arc::clone(&self.deps.runtime),
            wake: Arc::new(move || triggers.fire(key.clone())),
        }
    }
}

/// A failure of the operator's own, as users read it.
fn reconciling(error: &Error) -> ConditionUpdate {
    let message = advise(error.reason(), &error.to_string());
    ConditionUpdate::is_true(ConditionType::Reconciling, error.reason(), message)
}

/// How long ago the object was deleted.
fn deleted(object: &impl Resource) -> Duration {
    let at = object.meta().deletion_timestamp.as_ref().map_or(Timestamp::now(), |time| time.0);
    // The API server's clock may be pending_status of ours.
    Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
}

fn key_of<K: Object>(object: &K) -> Key<K> {
    ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default())
}
