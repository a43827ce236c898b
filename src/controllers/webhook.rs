//! `Webhook`: resolve -> see to the keys -> connect -> observe -> report.

mod deliveries;
mod report;
mod requests;
mod signing;
mod target;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{
    Error, Finalized, ObserveContext, ReconcileContext, Reconciler, ReconcilerDeps, Report,
    owned::OwnedWriter, targets::TargetSets,
};
use crate::{
    api::v1alpha1::{
        Webhook,
        webhook::{VerificationMode, WebhookStatus},
    },
    backends::{Fault, http::Egress},
    domain::{schedule::Schedule, webhook::url::Target},
    resolving::{self, Lookup, Resolved},
};

use report::{Observed, Parts};
use signing::Keys;

pub use deliveries::DeliveryReader;
pub use target::{EndpointProbe, ProbeTarget};

/// The controller of `Webhook`.
pub struct Controller {
    targets: TargetSets<ProbeTarget>,
    egress: Egress,
    secrets: OwnedWriter<Secret>,
    deliveries: Arc<DeliveryReader>,
}

impl Controller {
    /// No objects yet.
    #[must_use]
    pub fn new(deps: &ReconcilerDeps) -> Self {
        Self {
            targets: TargetSets::new(Self::NAME, Arc::clone(&deps.metrics)),
            egress: deps.egress.clone(),
            secrets: OwnedWriter::default(),
            deliveries: Arc::clone(&deps.deliveries),
        }
    }

    async fn look(
        &self,
        webhook: &Webhook,
        keys: Keys,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<WebhookStatus>, Error> {
        let uid = webhook.uid().unwrap_or_default();
        let resolved = self.resolve(webhook, cx).await;
        let parts = resolved.inspect_err(|error| {
            // A spec that does not resolve any more must not go on being probed.
            if error.condition().is_some() {
                self.targets.forget(&uid);
            }
        })?;
        let address = match &parts.target {
            Ok(target) => self.vet(target).await,
            Err(_) => Ok(()),
        };
        let probed = webhook.spec.verification.mode != VerificationMode::None
            && parts.can_connect()
            && address.as_ref().err().is_none_or(|fault| !report::is_denied(fault));
        let observation = if let Some(settings) = parts.endpoint(webhook).filter(|_| probed) {
            let target = ProbeTarget::new(webhook, settings, &self.egress);
            let schedule = Schedule::from(&webhook.spec.health_check);
            let resolved = Resolved { targets: vec![target], schedule, source: None };
            Some(self.targets.observe(webhook, Ok(resolved), cx.requeue).await?)
        } else {
            self.targets.forget(&uid);
            None
        };
        let mut report = report::report(webhook, &Observed { parts, keys, address, observation });
        deliveries::report(self.deliveries.stats(webhook, cx.requeue).as_ref(), &mut report);
        Ok(report)
    }

    async fn resolve(&self, webhook: &Webhook, cx: &ObserveContext<'_>) -> Result<Parts, Error> {
        let namespace = webhook.namespace().unwrap_or_default();
        let lookup = Lookup { references: cx.references, namespace: &namespace };
        resolving::webhook::delivery(webhook)?;
        Ok(Parts {
            target: report::known(resolving::webhook::target(webhook, lookup).await)?,
            headers: report::known(resolving::webhook::headers(webhook, lookup).await)?,
            tls: report::known(resolving::webhook::tls(webhook, lookup).await)?,
            dead_letter: report::known(resolving::webhook::dead_letter(webhook, lookup).map(drop))?,
        })
    }

    /// Whether the endpoint has addresses, all of which may be called.
    async fn vet(&self, target: &Target) -> Result<(), Fault> {
        if target.is_localhost() {
            self.egress.addresses("127.0.0.1", target.port()).await?;
        }
        self.egress.addresses(target.host(), target.port()).await.map(drop)
    }
}

impl Reconciler for Controller {
    type Object = Webhook;

    const NAME: &'static str = "Webhook";

    async fn observe(
        &self,
        webhook: &Webhook,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<WebhookStatus>, Error> {
        self.look(webhook, signing::look(webhook, cx.references).await?, cx).await
    }

    async fn reconcile(
        &self,
        webhook: &Webhook,
        cx: &ReconcileContext,
    ) -> Result<Report<WebhookStatus>, Error> {
        let keys = signing::ensure(&self.secrets, webhook, cx).await?;
        cx.fence.check()?;
        let requests = requests::handle(&self.deliveries, webhook).await?;
        let mut report = self.look(webhook, keys, &cx.observing()).await?;
        report.status.requests = requests;
        Ok(report)
    }

    /// Its deliveries must not reach an object that is made anew under its name, nor stay in the store for ever.
    async fn finalize(&self, webhook: &Webhook, cx: &ReconcileContext) -> Result<Finalized, Error> {
        cx.fence.check()?;
        self.deliveries.cancel(&webhook.uid().unwrap_or_default()).await.map_err(Error::Cleanup)?;
        Ok(Finalized::Done)
    }

    fn forget(&self, uid: &str) {
        self.targets.forget(uid);
        self.secrets.forget(uid);
        self.deliveries.forget(uid);
    }

    async fn on_leadership_lost(&self) {
        self.targets.clear();
    }
}
