//! The targets of a Service, and what their host names resolve to.

use std::{net::IpAddr, time::Duration};

use crate::{
    api::{ConditionType, Managed, Reason, status::Status},
    backends::Fault,
    cluster::service_publisher::PublishOutcome,
    controllers::{Error, ReconcileContext, Report},
    domain::{
        addresses::Egress,
        conditions::{ConditionUpdate, advise},
        endpoint_slices::{DesiredEndpoint, Endpoint, Family, Port},
    },
};

/// When a conflict, a refusal or a failed DNS lookup is retried: nothing tells when it ends.
pub(in crate::controllers) const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// One target as it is to be published.
pub(in crate::controllers) struct EndpointTarget {
    /// Host name or address.
    pub host: String,
    /// On which it serves.
    pub port: Port,
    /// Whether its probes pass.
    pub healthy: bool,
    /// The failure domain that it is in.
    pub zone: Option<String>,
}

/// What the host names of the targets resolve to.
#[derive(Default)]
pub(in crate::controllers) struct ResolvedHosts {
    /// For each target the addresses that may be published; none where no DNS server answered, and nothing was known of it.
    pub addresses: Vec<Option<Vec<IpAddr>>>,
    /// Addresses that must not be published, and why.
    refused: Vec<String>,
    /// Names without an address, and why.
    no_address: Vec<String>,
    /// Why no DNS server answered.
    pub no_dns_answer: Option<Fault>,
    /// How long the answers hold.
    pub valid: Option<Duration>,
}

/// Finds the addresses of the hosts, and refuses those that clients of the cluster must not be routed to.
pub(in crate::controllers) async fn resolve_hosts(
    hosts: impl Iterator<Item = &str>,
    cx: &ReconcileContext,
) -> ResolvedHosts {
    let answers = hosts.map(async |host| (host, cx.resolver.resolve(host).await));
    let mut found = ResolvedHosts::default();
    for (host, answer) in futures::future::join_all(answers).await {
        let addresses = match answer {
            Ok(addresses) => addresses,
            Err(fault) => {
                found.no_dns_answer = Some(fault);
                found.addresses.push(None);
                continue;
            }
        };
        if let Some(valid) = addresses.valid {
            found.holds_at_most(valid);
        }
        if addresses.list.is_empty() {
            // A name that is made, or comes back, is found soon.
            found.holds_at_most(RETRY_INTERVAL);
            found.no_address.push(Fault::no_address(host).detail);
        }
        let mut allowed = Vec::new();
        for address in addresses.list {
            match cx.egress.check_endpoint(address) {
                // The API server knows no IPv4-mapped addresses.
                Ok(()) => allowed.push(address.to_canonical()),
                Err(refused) => found.refused.push(format!("{host}: {refused}")),
            }
        }
        found.addresses.push(Some(allowed));
    }
    found
}

impl ResolvedHosts {
    fn holds_at_most(&mut self, valid: Duration) {
        self.valid = Some(self.valid.map_or(valid, |known| known.min(valid)));
    }

    /// The targets as endpoints. A name without a DNS answer is taken to resolve to whatever else is `published` on its port.
    pub(super) fn desired(
        &self,
        targets: &[EndpointTarget],
        published: Vec<DesiredEndpoint>,
        egress: &Egress,
    ) -> Vec<DesiredEndpoint> {
        let named = || targets.iter().zip(&self.addresses);
        let each =
            named().flat_map(|(target, found)| found.iter().flatten().map(|address| target.at(*address)));
        let mut desired: Vec<_> = each.collect();
        for DesiredEndpoint { ports, endpoint } in published {
            let is = |it: &DesiredEndpoint| (&it.ports, it.endpoint.address) == (&ports, endpoint.address);
            if desired.iter().any(is) || egress.check_endpoint(endpoint.address).is_err() {
                continue;
            }
            let unresolved =
                named().filter(|(target, found)| found.is_none() && ports == [target.port.clone()]);
            let unresolved: Vec<_> = unresolved.map(|(target, _)| target.healthy).collect();
            if unresolved.is_empty() {
                continue;
            }
            // Nobody knows whose it is: it may be of a name that has left it since, so that nothing makes it ready.
            let healthy = endpoint.healthy && unresolved.contains(&true);
            desired.push(DesiredEndpoint { ports, endpoint: Endpoint { healthy, ..endpoint } });
        }
        desired
    }

    /// `Registered`, as far as is known.
    pub(in crate::controllers) fn condition(
        &self,
        outcome: &PublishOutcome,
        service: &str,
    ) -> ConditionUpdate {
        let families = match outcome {
            PublishOutcome::Done { families, .. } => families,
            PublishOutcome::Conflict(owner) => {
                return no(Reason::ServiceConflict, &format!("the Service {service} belongs to {owner}"));
            }
            PublishOutcome::Refused(why) => {
                let detail = format!("the API server refuses the Service {service} ({why})");
                return no(Reason::ServiceRefused, &detail);
            }
        };
        if !self.refused.is_empty() {
            return no(Reason::AddressNotAllowed, &self.refused.join("; "));
        }
        if let Some(fault) = &self.no_dns_answer {
            return ConditionUpdate::unknown(ConditionType::Registered, fault.reason, fault.message());
        }
        if self.addresses.iter().flatten().all(Vec::is_empty) {
            return no(Reason::NoAddresses, &self.no_address.join("; "));
        }
        let served = |address: &IpAddr| families.iter().any(|family| family == Family::of(*address).as_str());
        if !families.is_empty() && !self.addresses.iter().flatten().flatten().any(served) {
            let of = families.join(" and ");
            let detail = format!(
                "the Service {service} is of {of} alone, and no target has an address of that family"
            );
            return no(Reason::AddressFamilyMissing, &detail);
        }
        let message = format!("the Service {service} routes to the targets");
        ConditionUpdate::is_true(ConditionType::Registered, Reason::Registered, message)
    }
}

impl EndpointTarget {
    fn at(&self, address: IpAddr) -> DesiredEndpoint {
        let endpoint = Endpoint { address, healthy: self.healthy, draining: false, zone: self.zone.clone() };
        DesiredEndpoint { ports: vec![self.port.clone()], endpoint }
    }
}

/// The API server failed a request. What was reported of this very spec still holds.
pub(in crate::controllers) fn carry_over_registered<K: Managed>(
    object: &K,
    error: Error,
    report: &mut Report<K::Status>,
) {
    let before = object.status().map(Status::common);
    let reported = before.and_then(|before| before.condition(ConditionType::Registered));
    let reported = reported.filter(|reported| reported.observed_generation == object.meta().generation);
    let holds =
        reported.and_then(ConditionUpdate::from_condition).filter(|reported| reported.holds.is_some());
    let unknown = || ConditionUpdate::unknown(ConditionType::Registered, error.reason(), error.to_string());
    report.conditions.push(holds.unwrap_or_else(unknown));
    report.status.common_mut().service_ref = before.and_then(|before| before.service_ref.clone());
    report.error.get_or_insert(error);
}

fn no(reason: Reason, detail: &str) -> ConditionUpdate {
    ConditionUpdate::is_false(ConditionType::Registered, reason, advise(reason, detail))
}

/// Whether a host is an address, and not a name.
pub(in crate::controllers) fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}
