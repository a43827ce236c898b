//! The endpoint as something that is probed.

use std::time::Duration;

use kube::ResourceExt;

use crate::{
    api::{
        Reason,
        v1alpha1::{Webhook, webhook::VerificationMode},
    },
    backends::{
        Fault,
        http::Egress,
        webhook::{Endpoint, EndpointSettings, Facts, url_digest},
    },
    controllers::targets::TargetSettings,
    probing::Target,
};

/// The settings of an endpoint, what it is asked, and the way to it.
#[derive(Clone)]
pub struct ProbeTarget {
    pub(super) settings: EndpointSettings,
    mode: VerificationMode,
    /// Whether it was asked before, by the status.
    verified: bool,
    timeout: Duration,
    uid: String,
    egress: Egress,
}

impl ProbeTarget {
    pub(super) fn new(webhook: &Webhook, settings: EndpointSettings, egress: &Egress) -> Self {
        let mode = webhook.spec.verification.mode;
        let uid = webhook.uid().unwrap_or_default();
        let verification = webhook.status.as_ref().and_then(|status| status.verification.as_ref());
        let digest = url_digest(&uid, &settings.target);
        let verified = verification.is_some_and(|it| it.mode == mode.as_str() && it.url_digest == digest);
        let timeout = webhook.spec.health_check.timeout.get();
        Self { settings, mode, verified, timeout, uid, egress: egress.clone() }
    }

    pub(super) fn mode(&self) -> VerificationMode {
        self.mode
    }

    pub(super) fn url_digest(&self) -> String {
        url_digest(&self.uid, &self.settings.target)
    }
}

impl TargetSettings for ProbeTarget {
    type Target = EndpointProbe;

    const CONNECTED: (Reason, &'static str) = (Reason::Reachable, "network and TLS succeed");

    /// Each object asks for itself whether the endpoint wants its events.
    fn key(&self) -> [u8; 32] {
        self.settings.key(&format!("{} {}", self.uid, self.mode.as_str()))
    }

    /// No probe proves what the headers say: with other ones it is another target.
    fn target_key(&self) -> [u8; 32] {
        self.key()
    }

    fn host(&self) -> &str {
        self.settings.target.host()
    }

    fn port(&self) -> u16 {
        self.settings.target.port()
    }

    fn proves_credential(&self) -> bool {
        false
    }

    fn target(&self) -> Result<EndpointProbe, Fault> {
        let endpoint =
            Endpoint::new(self.settings.clone(), self.mode, self.verified, self.timeout, &self.egress);
        endpoint.map(EndpointProbe)
    }
}

/// An endpoint as something that can be probed.
pub struct EndpointProbe(Endpoint);

impl Target for EndpointProbe {
    type Facts = Facts;

    async fn probe(&self) -> Result<Facts, Fault> {
        self.0.probe().await
    }
}
