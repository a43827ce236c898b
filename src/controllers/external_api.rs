//! `ExternalApi`: resolve -> connect -> observe -> decide -> act -> report.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Context, Error, Reconciler, Report,
    discovery::{self, Site},
    targets::{self, RequeueFn, TargetSets, works},
    usage_reader::UsageKind,
};
use crate::{
    api::{
        Reason,
        v1alpha1::{
            ExternalApi,
            external_api::{CertificateStatus, ExternalApiStatus},
        },
    },
    backends::{
        Fault,
        external_api::{Check, EndpointSettings, Facts, HttpEndpoint},
        http::Egress,
    },
    cluster::references::References,
    domain::endpoint_slices::Port,
    probing::Target,
    resolving,
    telemetry::metrics::Metrics,
};

/// What one look at the endpoints gave.
pub type TargetObservation = targets::TargetObservation<ProbeTarget>;

/// The controller of `ExternalApi`.
pub struct ExternalApis {
    held: TargetSets<ProbeTarget>,
    egress: Egress,
}

/// The settings of an endpoint, and the way to it.
#[derive(Clone)]
pub struct ProbeTarget {
    settings: EndpointSettings,
    egress: Egress,
}

impl ExternalApis {
    /// No objects yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, egress: Egress) -> Self {
        Self { held: TargetSets::new(Self::NAME, metrics), egress }
    }

    /// Resolves, connects and observes: everything but writing. `authlink check` does just this.
    ///
    /// # Errors
    /// References that do not resolve, and settings that cannot be used.
    pub async fn look(
        &self,
        api: &ExternalApi,
        references: &dyn References,
        wake: RequeueFn,
    ) -> Result<TargetObservation, Error> {
        let wanted = resolving::external_api::resolve(api, references).await.map_err(Error::from);
        let reached = |settings| ProbeTarget { settings, egress: self.egress.clone() };
        self.held.look(api, wanted.map(|wanted| wanted.map(reached)), wake).await
    }
}

/// What users read of one look at the endpoints.
#[must_use]
pub fn report(look: &TargetObservation, api: &ExternalApi) -> Report<ExternalApiStatus> {
    let mut report = look.report(api);
    let status = &mut report.status;
    let ready = status.common.endpoints.iter().filter(|endpoint| endpoint.ready).count();
    status.endpoints_summary = Some(format!("{ready}/{}", status.common.endpoints.len()));
    // Until this process has been at all that is well, what an earlier one has seen holds.
    let unseen = look.observations.iter().any(|seen| works(seen) && seen.facts.is_none());
    let before = api.status.as_ref().filter(|before| unseen && look.is_of(&before.common));
    let before = before.and_then(|before| Some(before.tls.as_ref()?.not_after.0));
    let expiries = look.observations.iter().filter_map(|seen| seen.facts?.not_after);
    status.tls = expiries.chain(before).min().map(|time| CertificateStatus { not_after: Time(time) });
    if let Some(soon) = &status.tls
        && soon.not_after.0 < jiff::Timestamp::now() + CERTIFICATE_HORIZON
    {
        let detail = format!("a server's certificate expires at {:.0}", soon.not_after.0);
        report.degrade(Reason::CertificateExpiringSoon, &detail);
    }
    report
}

/// A certificate that expires sooner is told of: certificates of 90 days are renewed with 30 left, by custom.
const CERTIFICATE_HORIZON: std::time::Duration = std::time::Duration::from_hours(14 * 24);

fn sites(look: &TargetObservation, api: &ExternalApi) -> Vec<Site> {
    let named = look.resolved.targets.iter().zip(&look.observations).zip(&api.spec.endpoints);
    named
        .map(|((ProbeTarget { settings, .. }, seen), endpoint)| {
            let scheme = if settings.base.encrypted() { "https" } else { "http" };
            Site {
                host: settings.base.host().to_owned(),
                port: Port {
                    name: scheme.to_owned(),
                    port: settings.base.port(),
                    app_protocol: Some(scheme.to_owned()),
                },
                healthy: works(seen),
                zone: endpoint.zone.clone(),
            }
        })
        .collect()
}

impl Reconciler for ExternalApis {
    type Object = ExternalApi;

    const NAME: &'static str = "ExternalApi";

    async fn apply(&self, api: &ExternalApi, cx: &Context) -> Result<Report<ExternalApiStatus>, Error> {
        let look = self.look(api, cx.references.as_ref(), Arc::clone(&cx.wake)).await?;
        let mut report = report(&look, api);
        let counted = UsageKind::Calls { breakers: api.spec.circuit_breaker.is_some() };
        cx.runtime.report(api, counted, cx, &mut report);
        let asked = api.spec.discovery.as_ref();
        discovery::register(api, asked, &sites(&look, api), cx, &mut report).await?;
        Ok(report)
    }

    fn forget(&self, uid: &str) {
        self.held.forget(uid);
    }

    fn on_leadership_lost(&self) {
        self.held.clear();
    }
}

impl targets::TargetSettings for ProbeTarget {
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
        // A client certificate is shown by each handshake.
        match &self.settings.check {
            Check::None => false,
            Check::Tcp => self.settings.tls.client.is_some(),
            Check::Http(asked) => asked.authenticated || self.settings.tls.client.is_some(),
        }
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
