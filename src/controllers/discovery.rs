//! `spec.discovery`: publishes the targets of an object as a Service with EndpointSlices, host names resolved to addresses.

pub(super) mod endpoint_targets;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::{Error, Object, ReconcileContext, Report};
use crate::{
    api::{
        shared::{Discovery, DiscoveryMode},
        status::{ServiceStatus, Status},
    },
    cluster::service_publisher::{PublishOutcome, PublishedService, ServiceBackend},
    domain::{endpoint_slices::Drain, label::is_label},
};
use endpoint_targets::{RETRY_INTERVAL, carry_over_registered, is_address, resolve_hosts};

pub(super) use endpoint_targets::EndpointTarget;

/// Makes Service and slices what `discovery` asks for, absent included, and adds the outcome to the report.
///
/// # Errors
/// `discovery` asks for something that cannot be.
pub(super) async fn publish<K: Object>(
    object: &K,
    discovery: Option<&Discovery>,
    targets: &[EndpointTarget],
    cx: &ReconcileContext,
    report: &mut Report<K::Status>,
) -> Result<(), Error> {
    match publish_service(object, discovery, targets, cx, report).await {
        Err(error) if error.condition().is_none() => {
            carry_over_registered(object, error, report);
            Ok(())
        }
        outcome => outcome,
    }
}

async fn publish_service<K: Object>(
    object: &K,
    discovery: Option<&Discovery>,
    targets: &[EndpointTarget],
    cx: &ReconcileContext,
    report: &mut Report<K::Status>,
) -> Result<(), Error> {
    let (uid, namespace) = (object.uid().unwrap_or_default(), object.namespace().unwrap_or_default());
    let wanted_service =
        discovery.and_then(|discovery| Some((discovery, discovery.service(&object.name_any())?)));
    let name = wanted_service.as_ref().map(|(_, name)| name.as_str());
    cx.publisher.withdraw(&namespace, std::slice::from_ref(&uid), name, &cx.fence).await?;
    let (Some((discovery, service)), Some(owner)) = (wanted_service, object.controller_owner_ref(&())) else {
        return Ok(());
    };
    check(discovery, &service, targets)?;
    let found = resolve_hosts(targets.iter().map(|target| target.host.as_str()), cx).await;
    report.requeue_within(found.valid.unwrap_or(Duration::MAX).min(discovery.refresh_interval.get()));
    // What is registered is only of use where a name is silent: to read it is to look through the slices of all.
    let registered = if found.no_dns_answer.is_some() {
        report.requeue_within(RETRY_INTERVAL);
        cx.publisher.endpoints(&namespace, &service)
    } else {
        Vec::new()
    };
    let backend = match discovery.mode {
        DiscoveryMode::ExternalName => ServiceBackend::Name(targets[0].host.clone()),
        _ => ServiceBackend::Endpoints {
            ports: targets.first().map(|target| target.port.clone()).into_iter().collect(),
            desired: found.desired(targets, registered, &cx.egress),
            drain: Drain { time: Duration::from_secs(discovery.drain_seconds.into()), ..Drain::default() },
        },
    };
    let service_spec = PublishedService {
        namespace,
        service: service.clone(),
        // Not blocking: some clusters allow that only with rights on the owner's finalizers.
        owners: vec![OwnerReference { block_owner_deletion: None, ..owner }],
        predecessors: Vec::new(),
        backend,
        server_name: targets.iter().map(|target| &target.host).find(|host| !is_address(host)).cloned(),
    };
    let outcome = cx.publisher.publish(&service_spec, &cx.fence).await?;
    match &outcome {
        PublishOutcome::Done { next, .. } => {
            report.requeue_within(next.unwrap_or(Duration::MAX));
            report.status.common_mut().service_ref = Some(ServiceStatus { name: service.clone() });
        }
        PublishOutcome::Conflict(_) | PublishOutcome::Refused(_) => report.requeue_within(RETRY_INTERVAL),
    }
    report.conditions.push(found.condition(&outcome, &service));
    Ok(())
}

/// What no schema rule can tell.
fn check(discovery: &Discovery, service: &str, targets: &[EndpointTarget]) -> Result<(), Error> {
    let invalid = |field: &str, problem: String| {
        Err(Error::InvalidSpec { field: format!("spec.discovery.{field}"), problem })
    };
    // A Service's name also begins with a letter (RFC 1035 2.3.1).
    let name = service.len() <= 63
        && service.starts_with(|char: char| char.is_ascii_lowercase())
        && is_label(service);
    if !name {
        let problem = format!(
            "{service} cannot be the name of a Service: set one of at most 63 lower-case letters, digits and -, \
             starting with a letter"
        );
        return invalid("serviceName", problem);
    }
    if discovery.mode == DiscoveryMode::ExternalName {
        match targets {
            [one] if !is_address(&one.host) => {}
            [one] => {
                let problem =
                    format!("ExternalName needs a host name, and {} is an address: use Endpoints", one.host);
                return invalid("mode", problem);
            }
            _ => {
                return invalid(
                    "mode",
                    "ExternalName routes to one host: use Endpoints for several".to_owned(),
                );
            }
        }
    }
    Ok(())
}
