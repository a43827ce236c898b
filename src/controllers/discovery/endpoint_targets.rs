//! What is to be registered, and what its names lead to.

use std::{net::IpAddr, time::Duration};

use crate::{
    api::{ConditionType, Managed, Reason, status::Status},
    backends::Fault,
    cluster::service_publisher::PublishOutcome,
    controllers::{Context, Error, Report},
    domain::{
        addresses::Egress,
        conditions::{ConditionUpdate, advise},
        endpoint_slices::{DesiredEndpoint, Endpoint, Family, Port},
    },
};

/// Where a conflict, a refusal or a silent DNS server is looked at again: nothing tells when it ends.
pub(in crate::controllers) const RETRY: Duration = Duration::from_secs(10);

/// One target as it is to be registered.
pub(in crate::controllers) struct Site {
    /// Host name or address.
    pub host: String,
    /// On which it serves.
    pub port: Port,
    /// The verdict of its probes.
    pub healthy: bool,
    /// The failure domain that it is in.
    pub zone: Option<String>,
}

/// What the names of the sites lead to.
#[derive(Default)]
pub(in crate::controllers) struct Found {
    /// For each site the addresses that may be registered; none where nobody answers what its name is, and nothing was
    /// known of it.
    pub addresses: Vec<Option<Vec<IpAddr>>>,
    /// Addresses that must not be registered, and why.
    refused: Vec<String>,
    /// Names without an address, and why.
    nameless: Vec<String>,
    /// Why nobody answers.
    pub unanswered: Option<Fault>,
    /// How long the answers hold.
    pub valid: Option<Duration>,
}

/// Finds the addresses of the hosts, and refuses those that no client of the cluster may be led to.
pub(in crate::controllers) async fn look_up(hosts: impl Iterator<Item = &str>, cx: &Context) -> Found {
    let answers = hosts.map(async |host| (host, cx.resolver.resolve(host).await));
    let mut found = Found::default();
    for (host, answer) in futures::future::join_all(answers).await {
        let addresses = match answer {
            Ok(addresses) => addresses,
            Err(fault) => {
                found.unanswered = Some(fault);
                found.addresses.push(None);
                continue;
            }
        };
        if let Some(valid) = addresses.valid {
            found.holds_at_most(valid);
        }
        if addresses.list.is_empty() {
            // A name that is made, or comes back, is found soon.
            found.holds_at_most(RETRY);
            found.nameless.push(Fault::nameless(host).detail);
        }
        let mut allowed = Vec::new();
        for address in addresses.list {
            match cx.egress.endpoint(address) {
                // The API server knows no IPv4-mapped addresses.
                Ok(()) => allowed.push(address.to_canonical()),
                Err(refused) => found.refused.push(format!("{host}: {refused}")),
            }
        }
        found.addresses.push(Some(allowed));
    }
    found
}

impl Found {
    fn holds_at_most(&mut self, valid: Duration) {
        self.valid = Some(self.valid.map_or(valid, |known| known.min(valid)));
    }

    /// What the sites are as endpoints. A name that nobody answers for is taken to lead to whatever else is `registered`
    /// on its port.
    pub(super) fn wanted(
        &self,
        sites: &[Site],
        registered: Vec<DesiredEndpoint>,
        egress: &Egress,
    ) -> Vec<DesiredEndpoint> {
        let named = || sites.iter().zip(&self.addresses);
        let each = named().flat_map(|(site, found)| found.iter().flatten().map(|address| site.at(*address)));
        let mut wanted: Vec<_> = each.collect();
        for DesiredEndpoint { ports, endpoint } in registered {
            let is = |it: &DesiredEndpoint| (&it.ports, it.endpoint.address) == (&ports, endpoint.address);
            if wanted.iter().any(is) || egress.endpoint(endpoint.address).is_err() {
                continue;
            }
            let silent = named().filter(|(site, found)| found.is_none() && ports == [site.port.clone()]);
            let silent: Vec<_> = silent.map(|(site, _)| site.healthy).collect();
            if silent.is_empty() {
                continue;
            }
            // Nobody knows whose it is: it may be of a name that has left it since, so that nothing makes it ready.
            let healthy = endpoint.healthy && silent.contains(&true);
            wanted.push(DesiredEndpoint { ports, endpoint: Endpoint { healthy, ..endpoint } });
        }
        wanted
    }

    /// `Registered`, as far as is known.
    pub(in crate::controllers) fn verdict(&self, settled: &PublishOutcome, service: &str) -> ConditionUpdate {
        let families = match settled {
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
        if let Some(fault) = &self.unanswered {
            return ConditionUpdate::unknown(ConditionType::Registered, fault.reason, fault.message());
        }
        if self.addresses.iter().flatten().all(Vec::is_empty) {
            return no(Reason::NoAddresses, &self.nameless.join("; "));
        }
        let served = |address: &IpAddr| families.iter().any(|family| family == Family::of(*address).as_str());
        if !families.is_empty() && !self.addresses.iter().flatten().flatten().any(served) {
            let of = families.join(" and ");
            let detail = format!(
                "the Service {service} is of {of} alone, and no target has an address of that family"
            );
            return no(Reason::AddressFamilyMissing, &detail);
        }
        let message = format!("the Service {service} backend to the targets");
        ConditionUpdate::is_true(ConditionType::Registered, Reason::Registered, message)
    }
}

impl Site {
    fn at(&self, address: IpAddr) -> DesiredEndpoint {
        let endpoint = Endpoint { address, healthy: self.healthy, draining: false, zone: self.zone.clone() };
        DesiredEndpoint { ports: vec![self.port.clone()], endpoint }
    }
}

/// The API server fails what was asked of it. What was said of this very spec holds, as far as anybody knows.
pub(in crate::controllers) fn unsettled<K: Managed>(
    object: &K,
    error: Error,
    report: &mut Report<K::Status>,
) {
    let before = object.status().map(Status::common);
    let said = before.and_then(|before| before.condition(ConditionType::Registered));
    let said = said.filter(|said| said.observed_generation == object.meta().generation);
    let holds = said.and_then(ConditionUpdate::from_condition).filter(|said| said.holds.is_some());
    let unknown = || ConditionUpdate::unknown(ConditionType::Registered, error.reason(), error.to_string());
    report.verdicts.push(holds.unwrap_or_else(unknown));
    report.status.common_mut().service_ref = before.and_then(|before| before.service_ref.clone());
    report.unfinished.get_or_insert(error);
}

fn no(reason: Reason, detail: &str) -> ConditionUpdate {
    ConditionUpdate::is_false(ConditionType::Registered, reason, advise(reason, detail))
}

/// Whether a host is an address, and not a name.
pub(in crate::controllers) fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}
