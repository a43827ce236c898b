//! The end of an object: what it has outside is cleaned up, then its finalizer goes.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::controller::Action,
};

use super::{FINALIZER, Outcome, Runner, key_of};
use crate::{
    api::Reason,
    cluster::objects,
    controllers::{Error, Finalized, Reconciler},
};

impl<R: Reconciler> Runner<R> {
    pub(super) async fn finalize(&self, object: &R::Object) -> Result<Outcome, Error> {
        let done = Outcome { name: "finalized", next: Action::await_change() };
        if !object.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(done);
        }
        // Within the reconcile, so that one that hangs is a failure like others, and the finalize timeout is checked.
        let timeout = self.deps.config.reconcile_timeout / 2;
        let cx = self.context(Some(key_of(object)));
        let finalized = tokio::time::timeout(timeout, self.reconciler.finalize(object, &cx)).await;
        let finalized = finalized.unwrap_or(Err(Error::TimedOut(timeout)));
        if let Ok(Finalized::RequeueAfter(time)) = finalized {
            return Ok(Outcome { name: "finalizing", next: Action::requeue(time) });
        }
        if let Err(error) = finalized {
            // Since it fails: until then it may have taken its time, to drain for instance.
            let failing = self.states.failing(&object.uid().unwrap_or_default());
            if failing.min(deleted_for(object)) < self.deps.config.finalize_timeout {
                let note = format!("finalizing is retried until it succeeds or times out: {error}");
                self.publish_event(object, true, error.reason(), &note).await;
                return Err(error);
            }
            let note =
                format!("finalizer removed although cleaning up failed, so that the object can go: {error}");
            tracing::warn!(note, "orphaned");
            self.publish_event(object, true, Reason::Orphaned, &note).await;
        }
        self.remove_finalizer(object).await.map(|()| done)
    }

    /// A deleted object that this version cannot read: another version, which can, may still clean up.
    pub(super) async fn release_unreadable(
        &self,
        object: &DeserializeGuard<R::Object>,
    ) -> Result<Outcome, Error> {
        let left = self.deps.config.finalize_timeout.saturating_sub(deleted_for(object));
        if !left.is_zero() {
            return Ok(Outcome { name: "finalizing", next: Action::requeue(left) });
        }
        let note =
            "finalizer removed although this version cannot read the object: its external state stays behind";
        self.publish_event(object, true, Reason::Orphaned, note).await;
        self.remove_finalizer(object).await?;
        Ok(Outcome { name: "finalized", next: Action::await_change() })
    }

    async fn remove_finalizer<K>(&self, object: &K) -> Result<(), Error>
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
}

/// How long ago the object was deleted.
fn deleted_for(object: &impl Resource) -> Duration {
    let at = object.meta().deletion_timestamp.as_ref().map_or(Timestamp::now(), |time| time.0);
    // The API server's clock may be ahead of ours.
    Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
}
