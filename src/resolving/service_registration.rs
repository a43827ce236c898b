//! `ServiceRegistration`: how each of its addresses is probed. It names nothing that would have to be looked up.

use super::{Resolved, Unresolved};
use crate::{
    api::v1alpha1::{
        ServiceRegistration,
        database::TlsMode,
        external_api::{CheckScheme, CheckType},
        service_registration::ServicePort,
    },
    backends::{
        external_api::{Base, Check, Credential, EndpointSettings},
        transport::{TlsSettings, endpoint},
    },
    domain::schedule::Schedule,
};

/// What the spec says, as settings.
///
/// # Errors
/// `Invalid`: an address that is none.
pub fn resolve(registration: &ServiceRegistration) -> Result<Resolved<EndpointSettings>, Unresolved> {
    let spec = &registration.spec;
    let invalid = |field: &str, problem: &str| Unresolved::Invalid {
        field: field.to_owned(),
        problem: problem.to_owned(),
    };
    let port = registration.probed_port().ok_or_else(|| invalid("spec.ports", "has no port to probe"))?;
    let check = &spec.health_check;
    let encrypted = is_encrypted(registration, port);
    let scheme = if encrypted { "https" } else { "http" };
    // Nothing secret is sent, and certificates of such servers are often valid for other names: as the kubelet, verify nothing.
    let mode = if encrypted { TlsMode::Require } else { TlsMode::default() };
    let host = check.http.as_ref().and_then(|http| http.host.as_deref());
    let mut targets = Vec::new();
    for address in &spec.addresses {
        let base = Base::parse(&format!("{scheme}://{}", endpoint(address, port.port)));
        targets.push(EndpointSettings {
            base: base.map_err(|_| {
                invalid("spec.addresses", &format!("{address} is neither an address nor a name"))
            })?,
            credential: Credential::default(),
            tls: TlsSettings { mode, ..TlsSettings::default() },
            server_name: host.and_then(host_name),
            check: Check::new(check.check_type, check.http.as_ref(), false),
            timeout: check.schedule.timeout.get(),
        });
    }
    Ok(Resolved { targets, schedule: Schedule::from(&check.schedule), source: None })
}

/// Whether probes by HTTP use TLS.
fn is_encrypted(registration: &ServiceRegistration, port: &ServicePort) -> bool {
    let check = &registration.spec.health_check;
    let asked = check.http.as_ref().and_then(|http| http.scheme);
    check.check_type == CheckType::Http
        && asked.map_or(port.app_protocol.as_deref() == Some("https"), |scheme| scheme == CheckScheme::Https)
}

/// A host without its port.
fn host_name(host: &str) -> Option<String> {
    let host = Base::parse(&format!("https://{host}")).ok()?;
    Some(host.host().to_owned())
}
