//! Registers the targets of an object in Kubernetes: names become addresses, addresses a Service with its slices.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::{Context, Error, Object, Report};
use crate::{
    api::{
        ConditionType, Reason,
        shared::{Discovery, DiscoveryMode},
        status::{ServiceStatus, Status},
    },
    backends::Fault,
    cluster::discovery::{Leads, Registration, Settled},
    domain::{
        conditions::{Verdict, advise},
        discovery::{Endpoint, Port, Wanted},
    },
};

/// Where a conflict, a refusal or a silent DNS server is looked at again: nothing tells when it ends.
const RETRY: Duration = Duration::from_secs(10);

/// One target as it is to be registered.
pub(super) struct Site {
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
struct Found {
    wanted: Vec<Wanted>,
    /// Addresses that must not be registered, and why.
    refused: Vec<String>,
    /// Names without an address, and why.
    nameless: Vec<String>,
    /// Nobody answers what a name is, and nothing was known of it.
    unanswered: Option<Fault>,
    /// How long the answers hold.
    valid: Option<Duration>,
}

/// Makes Service and slices what `discovery` asks for, gone included, and adds the outcome to the report.
pub(super) async fn register<K: Object, T: Status>(
    object: &K,
    discovery: Option<&Discovery>,
    sites: &[Site],
    cx: &Context,
    report: &mut Report<T>,
) -> Result<(), Error> {
    let (uid, namespace) = (object.uid().unwrap_or_default(), object.namespace().unwrap_or_default());
    let asked = discovery.and_then(|asked| Some((asked, asked.service(&object.name_any())?)));
    let name = asked.as_ref().map(|(_, name)| name.as_str());
    cx.registry.withdraw(&namespace, &uid, name, &cx.fence).await?;
    let (Some((asked, service)), Some(owner)) = (asked, object.controller_owner_ref(&())) else {
        return Ok(());
    };
    check(asked, &service, sites)?;
    let found = look_up(sites, cx).await;
    report.look_again_within(found.valid.unwrap_or(Duration::MAX).min(asked.refresh_interval.get()));
    if let Some(fault) = &found.unanswered {
        report.look_again_within(RETRY);
        report.verdicts.push(Verdict::unknown(ConditionType::Registered, fault.reason, fault.message()));
        return Ok(());
    }
    let leads = match asked.mode {
        DiscoveryMode::ExternalName => Leads::Name(sites[0].host.clone()),
        _ => Leads::Endpoints {
            ports: sites.first().map(|site| site.port.clone()).into_iter().collect(),
            wanted: found.wanted.clone(),
            drain: Duration::from_secs(asked.drain_seconds.into()),
        },
    };
    let registration = Registration {
        namespace,
        service: service.clone(),
        // Not blocking: some clusters allow that only with rights on the owner's finalizers.
        owners: vec![OwnerReference { block_owner_deletion: None, ..owner }],
        leads,
        server_name: sites.iter().map(|site| &site.host).find(|host| !is_address(host)).cloned(),
    };
    let verdict = match cx.registry.settle(&registration, &cx.fence).await? {
        Settled::Done { next } => {
            report.look_again_within(next.unwrap_or(Duration::MAX));
            report.status.common_mut().service_ref = Some(ServiceStatus { name: service.clone() });
            found.verdict(&service)
        }
        Settled::Conflict(owner) => {
            report.look_again_within(RETRY);
            no(Reason::ServiceConflict, &format!("the Service {service} belongs to {owner}"))
        }
        Settled::Refused(why) => {
            report.look_again_within(RETRY);
            no(Reason::ServiceRefused, &format!("the API server refuses the Service {service} ({why})"))
        }
    };
    report.verdicts.push(verdict);
    Ok(())
}

/// What no schema rule can tell.
fn check(asked: &Discovery, service: &str, sites: &[Site]) -> Result<(), Error> {
    let invalid = |field: &str, problem: String| {
        Err(Error::InvalidSpec { field: format!("spec.discovery.{field}"), problem })
    };
    let letters = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    let name = service.len() <= 63
        && service.starts_with(|char: char| char.is_ascii_lowercase())
        && !service.ends_with('-')
        && service.chars().all(letters);
    if !name {
        let problem = format!(
            "{service} cannot be the name of a Service: set one of at most 63 lower-case letters, digits and -, \
             starting with a letter"
        );
        return invalid("serviceName", problem);
    }
    if asked.mode == DiscoveryMode::ExternalName {
        match sites {
            [one] if !is_address(&one.host) => {}
            [one] => {
                let problem =
                    format!("ExternalName needs a host name, and {} is an address: use Endpoints", one.host);
                return invalid("mode", problem);
            }
            _ => {
                return invalid(
                    "mode",
                    "ExternalName leads to one host: use Endpoints for several".to_owned(),
                );
            }
        }
    }
    Ok(())
}

async fn look_up(sites: &[Site], cx: &Context) -> Found {
    let mut found = Found::default();
    let answers = sites.iter().map(async |site| cx.resolver.resolve(&site.host).await);
    let answers = futures::future::join_all(answers).await;
    for (site, answer) in sites.iter().zip(answers) {
        let addresses = match answer {
            Ok(addresses) => addresses,
            Err(fault) if fault.reason == Reason::DnsFailed => {
                found.nameless.push(fault.detail);
                continue;
            }
            Err(fault) => {
                found.unanswered = Some(fault);
                continue;
            }
        };
        if let Some(valid) = addresses.valid {
            found.valid = Some(found.valid.map_or(valid, |known| known.min(valid)));
        }
        for address in addresses.list {
            match cx.egress.endpoint(address) {
                Ok(()) => found.wanted.push(site.at(address)),
                Err(refused) => found.refused.push(format!("{}: {refused}", site.host)),
            }
        }
    }
    found
}

impl Site {
    fn at(&self, address: IpAddr) -> Wanted {
        let endpoint = Endpoint { address, healthy: self.healthy, draining: false, zone: self.zone.clone() };
        Wanted { ports: vec![self.port.clone()], endpoint }
    }
}

impl Found {
    fn verdict(&self, service: &str) -> Verdict {
        if !self.refused.is_empty() {
            return no(Reason::AddressNotAllowed, &self.refused.join("; "));
        }
        if self.wanted.is_empty() {
            return no(Reason::NoAddresses, &self.nameless.join("; "));
        }
        let message = format!("the Service {service} leads to the targets");
        Verdict::yes(ConditionType::Registered, Reason::Registered, message)
    }
}

fn no(reason: Reason, detail: &str) -> Verdict {
    Verdict::no(ConditionType::Registered, reason, advise(reason, detail))
}

fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}
