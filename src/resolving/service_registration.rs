//! `ServiceRegistration`: how each of its addresses is probed. It names nothing that would have to be looked up.

use super::{Resolved, Unresolved};
use crate::{
    api::v1alpha1::ServiceRegistration,
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
    let port = registration.probed_port().ok_or_else(|| invalid("spec.ports", "has no port to probe"))?.port;
    let check = &spec.health_check;
    let mut targets = Vec::new();
    for address in &spec.addresses {
        let base = Base::parse(&format!("http://{}", endpoint(address, port)));
        targets.push(EndpointSettings {
            base: base.map_err(|_| {
                invalid("spec.addresses", &format!("{address} is neither an address nor a name"))
            })?,
            credential: Credential::default(),
            tls: TlsSettings::default(),
            server_name: None,
            check: Check::new(check.check_type, check.http.as_ref(), false),
            timeout: check.schedule.timeout.get(),
        });
    }
    Ok(Resolved { targets, schedule: Schedule::from(&check.schedule), source: None })
}
