//! `LdapDirectory`: resolve -> connect -> observe -> examine -> sync -> report.

mod examination;
mod report;
mod syncing;
mod target;

use std::sync::Arc;

use super::{
    Error, ObserveContext, ReconcileContext, Reconciler, ReconcilerDeps, Report, discovery,
    targets::{self, TargetSets},
};
use crate::{
    api::v1alpha1::{LdapDirectory, ldap_directory::LdapDirectoryStatus},
    backends::directory::{Directory, DirectoryRegistry},
    resolving::{self, Resolved, ldap_directory::ResolvedDirectory},
    sync::ldap::LdapSource,
};
use examination::{Examination, Examinations};
use syncing::Syncs;

pub use target::{Facts, ProbeTarget, ServerProbe};

/// The servers of a directory as they were observed.
type TargetObservation = targets::TargetObservation<ProbeTarget>;

/// The controller of `LdapDirectory`.
pub struct Controller {
    targets: TargetSets<ProbeTarget>,
    directories: Arc<DirectoryRegistry>,
    examinations: Examinations,
    syncs: Syncs,
    plan: bool,
}

/// What a look at a directory has found.
struct Observed {
    resolved: ResolvedDirectory,
    directory: Arc<Directory>,
    targets: TargetObservation,
    /// None while no server can be used.
    examination: Option<Arc<Examination>>,
}

impl Observed {
    /// What is synced.
    fn source(&self) -> LdapSource {
        LdapSource::new(Arc::clone(&self.directory), self.resolved.layout.clone())
    }
}

impl Controller {
    /// No objects yet.
    #[must_use]
    pub fn new(deps: &ReconcilerDeps) -> Self {
        Self {
            targets: TargetSets::new(Self::NAME, Arc::clone(&deps.metrics)),
            directories: Arc::clone(&deps.directories),
            examinations: Examinations::default(),
            syncs: Syncs::new(Arc::clone(&deps.store), deps.metrics.sync.clone()),
            plan: deps.plan,
        }
    }

    async fn look(&self, object: &LdapDirectory, cx: &ObserveContext<'_>) -> Result<Observed, Error> {
        let resolved = resolving::ldap_directory::resolve(object, cx.references).await.map_err(Error::from);
        let schedules = resolved.as_ref().ok().and_then(|resolved| resolved.targets.first().cloned());
        let servers = resolved.map(|resolved| self.servers(resolved));
        let targets = self.targets.observe(object, servers, cx.requeue).await?;
        let Some(mut resolved) = schedules else { return Err(Error::FirstProbePending) };
        // A changed credential that does not work is not used for anything else either.
        if let Some(target) = targets.targets.first() {
            resolved.servers = target.settings.settings.clone();
        }
        let directory = self.directories.directory(resolved.servers.clone()).map_err(Error::Settings)?;
        let mut examination = None;
        if targets.targets.iter().any(targets::ObservedTarget::works) {
            examination = Some(self.examinations.examine(object, &resolved, &directory).await);
        }
        Ok(Observed { resolved, directory, targets, examination })
    }

    /// One target for each server.
    fn servers(&self, resolved: Resolved<ResolvedDirectory>) -> Resolved<ProbeTarget> {
        let Resolved { targets, schedule, source } = resolved;
        let servers = targets.into_iter().flat_map(|directory| {
            let settings = directory.servers;
            let server = |index| ProbeTarget {
                settings: settings.clone(),
                index,
                directories: Arc::clone(&self.directories),
            };
            (0..settings.servers.len()).map(server).collect::<Vec<_>>()
        });
        Resolved { targets: servers.collect(), schedule, source }
    }
}

impl Reconciler for Controller {
    type Object = LdapDirectory;

    const NAME: &'static str = "LdapDirectory";

    async fn observe(
        &self,
        object: &LdapDirectory,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<LdapDirectoryStatus>, Error> {
        let observed = self.look(object, cx).await?;
        let mut report = report::report(object, &observed);
        if self.plan {
            self.syncs.plan(object, &observed, &mut report).await;
        }
        Ok(report)
    }

    async fn reconcile(
        &self,
        object: &LdapDirectory,
        cx: &ReconcileContext,
    ) -> Result<Report<LdapDirectoryStatus>, Error> {
        let observed = self.look(object, &cx.observing()).await?;
        let mut report = report::report(object, &observed);
        self.syncs.advance(object, &observed, cx, &mut report);
        report::sync_conditions(object, &mut report);
        let targets = report::endpoint_targets(&observed.targets);
        discovery::publish(object, object.spec.discovery.as_ref(), &targets, cx, &mut report).await?;
        Ok(report)
    }

    async fn reject(&self, namespace: &str, uid: &str, cx: &ReconcileContext) -> Result<(), Error> {
        Ok(cx.publisher.mark_endpoints_not_ready(namespace, uid, &cx.fence).await?)
    }

    fn forget(&self, uid: &str) {
        self.targets.forget(uid);
        self.examinations.forget(uid);
        self.syncs.forget(uid);
    }

    async fn on_leadership_lost(&self) {
        self.targets.clear();
        self.syncs.shut_down().await;
    }
}
