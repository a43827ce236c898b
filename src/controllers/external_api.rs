//! `ExternalApi`: resolve -> connect -> observe -> decide -> act -> report.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Error, ObserveContext, ReconcileContext, Reconciler, ReconcilerDeps, Report, UsageReader,
    discovery::{self, EndpointTarget},
    targets::{self, TargetSets, TargetSettings},
    usage_reader::UsageKind,
};
use crate::{
    api::{
        ConditionType, Reason,
        v1alpha1::{
            ExternalApi,
            external_api::{CertificateStatus, ExternalApiStatus},
        },
    },
    backends::{
        Fault,
        external_api::{Authorization, Check, EndpointSettings, Facts, HttpEndpoint},
        http::Egress,
    },
    domain::{conditions::ConditionUpdate, endpoint_slices::Port},
    probing::Target,
    resolving,
};

/// The endpoints of an ExternalApi as they were observed.
type TargetObservation = targets::TargetObservation<ProbeTarget>;

/// The controller of `ExternalApi`.
pub struct Controller {
    targets: TargetSets<ProbeTarget>,
    egress: Egress,
    usage: Arc<UsageReader>,
}

/// The settings of an endpoint, and the way to it.
#[derive(Clone)]
pub struct ProbeTarget {
    settings: EndpointSettings,
    egress: Egress,
}

impl Controller {
    /// No objects yet.
    #[must_use]
    pub fn new(deps: &ReconcilerDeps) -> Self {
        Self {
            targets: TargetSets::new(Self::NAME, Arc::clone(&deps.metrics)),
            egress: deps.egress.clone(),
            usage: Arc::clone(&deps.usage),
        }
    }

    async fn observe_targets(
        &self,
        api: &ExternalApi,
        cx: &ObserveContext<'_>,
    ) -> Result<TargetObservation, Error> {
        let resolved = resolving::external_api::resolve(api, cx.references).await.map_err(Error::from);
        let target = |settings| ProbeTarget { settings, egress: self.egress.clone() };
        self.targets.observe(api, resolved.map(|resolved| resolved.map(target)), cx.requeue).await
    }
}

/// What users read of the observed endpoints.
fn report(observed: &TargetObservation, api: &ExternalApi) -> Report<ExternalApiStatus> {
    let mut report = observed.report(api);
    report_token(observed, &mut report);
    let status = &mut report.status;
    let ready = status.common.endpoints.iter().filter(|endpoint| endpoint.ready).count();
    status.endpoints_summary = Some(format!("{ready}/{}", status.common.endpoints.len()));
    // Until this process has been at all that is healthy, what an earlier one has seen holds.
    let unseen = observed.targets.iter().any(|target| target.works() && target.facts().is_none());
    let before = api.status.as_ref().filter(|before| unseen && observed.is_of(&before.common));
    let before = before.and_then(|before| Some(before.tls.as_ref()?.not_after.0));
    let expiries = observed.targets.iter().filter_map(|target| target.facts()?.not_after);
    status.tls = expiries.chain(before).min().map(|time| CertificateStatus { not_after: Time(time) });
    if let Some(soon) = &status.tls
        && soon.not_after.0 < Timestamp::now() + CERTIFICATE_HORIZON
    {
        let detail = format!("a server's certificate expires at {:.0}", soon.not_after.0);
        report.degrade(Reason::CertificateExpiringSoon, &detail);
    }
    report
}

/// Without an access token all calls fail, however healthy the endpoints are.
fn report_token(observed: &TargetObservation, report: &mut Report<ExternalApiStatus>) {
    let working = || observed.targets.iter().filter(|target| target.works());
    let faults: Vec<_> = working().filter_map(|target| target.facts()?.token_fault.as_ref()).collect();
    let Some(fault) = faults.first() else { return };
    if faults.len() < working().count() {
        return report.degrade(fault.reason, &fault.detail);
    }
    let connected = report.conditions.iter_mut().find(|update| update.kind == ConditionType::Connected);
    if let Some(connected) = connected {
        *connected = ConditionUpdate::is_false(ConditionType::Connected, fault.reason, fault.message());
    }
}

/// A certificate that expires sooner is reported: certificates of 90 days are renewed with 30 left, by custom.
pub(super) const CERTIFICATE_HORIZON: std::time::Duration = std::time::Duration::from_hours(14 * 24);

fn endpoint_targets(observed: &TargetObservation, api: &ExternalApi) -> Vec<EndpointTarget> {
    let declared = observed.targets.iter().zip(&api.spec.endpoints);
    let each = declared.map(|(target, endpoint)| {
        let base = &target.settings.settings.base;
        let scheme = if base.encrypted() { "https" } else { "http" };
        EndpointTarget {
            host: base.host().to_owned(),
            port: Port { name: scheme.to_owned(), port: base.port(), app_protocol: Some(scheme.to_owned()) },
            healthy: target.works(),
            zone: endpoint.zone.clone(),
        }
    });
    each.collect()
}

impl Reconciler for Controller {
    type Object = ExternalApi;

    const NAME: &'static str = "ExternalApi";

    async fn observe(
        &self,
        api: &ExternalApi,
        cx: &ObserveContext<'_>,
    ) -> Result<Report<ExternalApiStatus>, Error> {
        Ok(report(&self.observe_targets(api, cx).await?, api))
    }

    async fn reconcile(
        &self,
        api: &ExternalApi,
        cx: &ReconcileContext,
    ) -> Result<Report<ExternalApiStatus>, Error> {
        let observed = self.observe_targets(api, &cx.observing()).await?;
        let mut report = report(&observed, api);
        let kind = UsageKind::Calls { breakers: api.spec.circuit_breaker.is_some() };
        self.usage.report(api, kind, &cx.requeue, &mut report);
        let targets = endpoint_targets(&observed, api);
        discovery::publish(api, api.spec.discovery.as_ref(), &targets, cx, &mut report).await?;
        Ok(report)
    }

    async fn reject(&self, namespace: &str, uid: &str, cx: &ReconcileContext) -> Result<(), Error> {
        Ok(cx.publisher.mark_endpoints_not_ready(namespace, uid, &cx.fence).await?)
    }

    fn forget(&self, uid: &str) {
        self.targets.forget(uid);
        self.usage.forget(uid);
    }

    async fn on_leadership_lost(&self) {
        self.targets.clear();
    }
}

impl TargetSettings for ProbeTarget {
    type Target = EndpointProbe;

    const CONNECTED: (Reason, &'static str) = (Reason::Reachable, "network and TLS succeed");

    fn key(&self) -> [u8; 32] {
        self.settings.key()
    }

    fn target_key(&self) -> [u8; 32] {
        self.settings.target_key()
    }

    fn host(&self) -> &str {
        self.settings.base.host()
    }

    fn port(&self) -> u16 {
        self.settings.base.port()
    }

    fn proves_credential(&self) -> bool {
        // A client certificate is shown by each handshake, and an access token is fetched beside each probe.
        let implied = self.settings.tls.client.is_some()
            || matches!(self.settings.credential.authorization, Authorization::OAuth2(_));
        match &self.settings.check {
            Check::None => false,
            Check::Tcp => implied,
            Check::Http(asked) => asked.authenticated || implied,
        }
    }

    fn credential_fault(facts: &Facts) -> Option<&Fault> {
        facts.token_fault.as_ref()
    }

    fn is_probed(&self) -> bool {
        !matches!(self.settings.check, Check::None)
    }

    fn target(&self) -> Result<EndpointProbe, Fault> {
        HttpEndpoint::new(self.settings.clone(), &self.egress).map(EndpointProbe)
    }
}

/// An endpoint as something that can be probed.
pub struct EndpointProbe(HttpEndpoint);

impl Target for EndpointProbe {
    type Facts = Facts;

    async fn probe(&self) -> Result<Facts, Fault> {
        self.0.probe().await
    }
}
