//! What users read of an instance.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ProbeTarget;
use crate::{
    api::{
        ConditionType, Reason,
        status::EndpointStatus,
        v1alpha1::{
            ServiceRegistration,
            service_registration::{ResolvedHost, ServiceRegistrationStatus},
        },
    },
    controllers::{
        Report,
        discovery::endpoint_targets::is_address,
        error::accepted,
        targets::{self, TargetObservation},
    },
    domain::conditions::ConditionUpdate,
};

/// Of one that is probed.
pub(super) fn probed(
    observed: &TargetObservation<ProbeTarget>,
    registration: &ServiceRegistration,
) -> Report<ServiceRegistrationStatus> {
    let mut report = observed.report(registration);
    let loads = observed.targets.iter().filter_map(|target| target.member.target().load());
    report.status.load = loads.max_by(f64::total_cmp).map(in_hundredths);
    report.status.draining_since = draining_since(registration);
    report
}

/// Of one that is not.
pub(super) fn unprobed(registration: &ServiceRegistration) -> Report<ServiceRegistrationStatus> {
    let conditions = [accepted()].into_iter().chain(targets::unprobed()).collect();
    let mut report = Report { conditions, ..Report::<ServiceRegistrationStatus>::default() };
    let port = registration.probed_port().map_or(0, |port| port.port);
    let endpoint = |address: &String| EndpointStatus {
        address: address.clone(),
        port,
        ready: true,
        reason: Reason::NotProbed.to_string(),
        role: None,
    };
    report.status.common.endpoints = registration.spec.addresses.iter().map(endpoint).collect();
    report.status.draining_since = draining_since(registration);
    report
}

/// What the host names resolve to.
pub(super) fn resolved(hosts: &[String], found: &[Option<Vec<IpAddr>>]) -> Vec<ResolvedHost> {
    let named = hosts.iter().zip(found).filter(|(host, _)| !is_address(host));
    named
        .filter_map(|(host, addresses)| {
            let addresses = addresses.as_ref()?.iter().map(IpAddr::to_string).collect();
            Some(ResolvedHost { host: host.clone(), addresses })
        })
        .collect()
}

/// `Registered`, where none of the Service's ports, which are those of its oldest instance, has the name of one of this one's:
/// nothing routes there.
pub(super) fn without_port(
    registration: &ServiceRegistration,
    ports: &BTreeSet<String>,
) -> Option<ConditionUpdate> {
    let (service, own) = (&registration.spec.service_name, &registration.spec.ports);
    if ports.is_empty() || own.iter().any(|port| ports.contains(&port.name)) {
        return None;
    }
    let own: Vec<_> = own.iter().map(|port| port.name.as_str()).collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let message = format!(
        "the Service {service} has the ports of its oldest instance ({}) and routes to none of this one's ({}): use one of those \
         names in spec.ports, or another spec.serviceName",
        ports.join(", "),
        own.join(", ")
    );
    Some(ConditionUpdate::is_false(ConditionType::Registered, Reason::InvalidSpec, message))
}

fn draining_since(registration: &ServiceRegistration) -> Option<Time> {
    let before = registration.status.as_ref().and_then(|status| status.draining_since.clone());
    registration.spec.drain.then(|| before.unwrap_or_else(|| Time(Timestamp::now())))
}

fn in_hundredths(load: f64) -> String {
    // Adding 0 makes of a negative zero one that is printed as such.
    ((load * 100.0).round() / 100.0 + 0.0).to_string()
}
