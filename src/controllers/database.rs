//! `Database`: resolve -> connect -> observe -> decide -> act -> report.

mod binding;
mod report;
mod target;

use std::sync::Arc;

use super::{
    Context, Error, Reconciler, Report,
    discovery::{self, endpoint_targets::RETRY},
    targets::{self, RequeueFn, TargetSets},
    usage_reader::UsageKind,
};
use crate::{
    api::{
        status::BindingStatus,
        v1alpha1::{Database, database::DatabaseStatus},
    },
    backends::database::PoolRegistry,
    cluster::references::References,
    resolving,
    telemetry::metrics::Metrics,
};

pub use report::report;
pub use target::{Facts, ProbeTarget, ServerProbe};

/// What one look at the servers gave.
pub type TargetObservation = targets::TargetObservation<ProbeTarget>;

/// The controller of `Database`.
pub struct Databases {
    held: TargetSets<ProbeTarget>,
    servers: Arc<PoolRegistry>,
    bindings: binding::Bindings,
}

impl Databases {
    /// No objects yet; their servers are among those of the process.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, servers: Arc<PoolRegistry>) -> Self {
        Self { held: TargetSets::new(Self::NAME, metrics), servers, bindings: binding::Bindings::default() }
    }

    /// Resolves, connects and observes: everything but writing. `authlink check` does just this.
    ///
    /// # Errors
    /// References that do not resolve, and settings that a driver cannot use.
    pub async fn look(
        &self,
        database: &Database,
        references: &dyn References,
        wake: RequeueFn,
    ) -> Result<TargetObservation, Error> {
        let wanted = resolving::database::resolve(database, references).await.map_err(Error::from);
        let reached = |settings| ProbeTarget { settings, servers: Arc::clone(&self.servers) };
        self.held.look(database, wanted.map(|wanted| wanted.map(reached)), wake).await
    }
}

impl Reconciler for Databases {
    type Object = Database;

    const NAME: &'static str = "Database";

    async fn apply(&self, database: &Database, cx: &Context) -> Result<Report<DatabaseStatus>, Error> {
        let look = self.look(database, cx.references.as_ref(), Arc::clone(&cx.wake)).await?;
        let saturated = cx.runtime.saturates(database);
        let mut report = report(&look, database, saturated).await;
        cx.runtime.report(database, UsageKind::Queries { saturated }, cx, &mut report);
        let settled = self.bindings.settle(database, &look, &report.status.common.endpoints, cx).await;
        match settled {
            Ok(Ok(binding)) => report.status.common.binding = binding.map(|name| BindingStatus { name }),
            Ok(Err((reason, problem))) => {
                let kept = binding::Bindings::kept(database, cx);
                report.status.common.binding = kept.map(|name| BindingStatus { name });
                report.degrade(reason, &problem);
                // Nothing tells when it ends.
                report.requeue_within(RETRY);
            }
            Err(error) => report.unfinished = Some(error),
        }
        let asked = database.spec.discovery.as_ref();
        let sites = report::sites(&look, &report.status.common.endpoints);
        discovery::register(database, asked, &sites, cx, &mut report).await?;
        Ok(report)
    }

    fn forget(&self, uid: &str) {
        self.held.forget(uid);
        self.bindings.forget(uid);
    }

    fn on_leadership_lost(&self) {
        self.held.clear();
    }
}
