//! `Database`: resolve -> connect -> observe -> decide -> act -> report.

mod binding;
mod report;
mod target;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::{
    Error, ObserveContext, ReconcileContext, Reconciler, ReconcilerDeps, Report, UsageReader,
    discovery::{self, endpoint_targets::RETRY_INTERVAL},
    owned::OwnedWriter,
    targets::{self, TargetSets},
    usage_reader::UsageKind,
};
use crate::{
    api::v1alpha1::{Database, database::DatabaseStatus},
    backends::database::PoolRegistry,
    resolving,
};

pub use target::{Facts, ProbeTarget, ServerProbe};

/// The servers of a Database as they were observed.
type TargetObservation = targets::TargetObservation<ProbeTarget>;

/// The controller of `Database`.
pub struct Controller {
    targets: TargetSets<ProbeTarget>,
    pools: Arc<PoolRegistry>,
    usage: Arc<UsageReader>,
    bindings: OwnedWriter<Secret>,
}

impl Controller {
    /// No objects yet.
    #[must_use]
    pub fn new(deps: &ReconcilerDeps) -> Self {
        Self {
            targets: TargetSets::new(Self::NAME, Arc::clone(&deps.metrics)),
            pools: Arc::clone(&deps.pools),
            usage: Arc::clone(&deps.usage),
            bindings: OwnedWriter::default(),
        }
    }

    async fn observe_targets(
        &self,
        database: &Database,
        cx: &ObserveContext<'_>,
    ) -> Result<TargetObservation, Error> {
        let resolved = resolving::database::resolve(database, cx.references).await.map_err(Error::from);
        let target = |settings| ProbeTarget { settings, pools: Arc::clone(&self.pools) };
        let resolved = resolved.map(|resolved| resolved.map(target));
        let mut observed = self.targets.observe(database, resolved, cx.requeue).await?;
        report::set_roles(&mut observed, database);
        Ok(observed)
    }
}

impl Reconciler for Controller {
    type Object = Database;

    const NAME: &'static str = "Database";

    async fn observe(
        &self,
        database: &Database,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<DatabaseStatus>, Error> {
        let observed = self.observe_targets(database, cx).await?;
        Ok(report::report(&observed, database, false).await)
    }

    async fn reconcile(
        &self,
        database: &Database,
        cx: &ReconcileContext,
    ) -> Result<Report<DatabaseStatus>, Error> {
        let observed = self.observe_targets(database, &cx.observing()).await?;
        let saturated = self.usage.is_saturated(database);
        let mut report = report::report(&observed, database, saturated).await;
        self.usage.report(database, UsageKind::Queries { saturated }, &cx.requeue, &mut report);
        match binding::publish(&self.bindings, database, &observed, cx).await {
            Ok(Ok(binding)) => report.status.common.binding = binding,
            Ok(Err((reason, problem))) => {
                report.status.common.binding = binding::kept(database, cx);
                report.degrade(reason, &problem);
                // Nothing tells when it ends.
                report.requeue_within(RETRY_INTERVAL);
            }
            Err(error) => report.error = Some(error),
        }
        let targets = report::endpoint_targets(&observed);
        discovery::publish(database, database.spec.discovery.as_ref(), &targets, cx, &mut report).await?;
        Ok(report)
    }

    async fn reject(&self, namespace: &str, uid: &str, cx: &ReconcileContext) -> Result<(), Error> {
        Ok(cx.publisher.mark_endpoints_not_ready(namespace, uid, &cx.fence).await?)
    }

    fn forget(&self, uid: &str) {
        self.targets.forget(uid);
        self.bindings.forget(uid);
        self.usage.forget(uid);
    }

    async fn on_leadership_lost(&self) {
        self.targets.clear();
    }
}
