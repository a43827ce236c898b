//! Registers the targets of an object in Kubernetes: names become addresses, addresses a Service with its slices.

pub(super) mod endpoint_targets;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::{Context, Error, Object, Report};
use crate::{
    api::{
        shared::{Discovery, DiscoveryMode},
        status::{ServiceStatus, Status},
    },
    cluster::service_publisher::{PublishOutcome, PublishedService, ServiceBackend},
    domain::{endpoint_slices::Drain, label::is_label},
};
use endpoint_targets::{RETRY, is_address, look_up, unsettled};

pub(super) use endpoint_targets::Site;

/// Makes Service and slices what `discovery` asks for, gone included, and adds the outcome to the report.
///
/// # Errors
/// What `discovery` asks for cannot be.
pub(super) async fn register<K: Object>(
    object: &K,
    discovery: Option<&Discovery>,
    sites: &[Site],
    cx: &Context,
    report: &mut Report<K::Status>,
) -> Result<(), Error> {
    match settle(object, discovery, sites, cx, report).await {
        Err(error) if error.condition().is_none() => {
            unsettled(object, error, report);
            Ok(())
        }
        settled => settled,
    }
}

async fn settle<K: Object>(
    object: &K,
    discovery: Option<&Discovery>,
    sites: &[Site],
    cx: &Context,
    report: &mut Report<K::Status>,
) -> Result<(), Error> {
    let (uid, namespace) = (object.uid().unwrap_or_default(), object.namespace().unwrap_or_default());
    let asked = discovery.and_then(|asked| Some((asked, asked.service(&object.name_any())?)));
    let name = asked.as_ref().map(|(_, name)| name.as_str());
    cx.registry.withdraw(&namespace, std::slice::from_ref(&uid), name, &cx.fence).await?;
    let (Some((asked, service)), Some(owner)) = (asked, object.controller_owner_ref(&())) else {
        return Ok(());
    };
    check(asked, &service, sites)?;
    let found = look_up(sites.iter().map(|site| site.host.as_str()), cx).await;
    report.requeue_within(found.valid.unwrap_or(Duration::MAX).min(asked.refresh_interval.get()));
    // What is registered is only of use where a name is silent: to read it is to look through the slices of all.
    let registered = if found.unanswered.is_some() {
        report.requeue_within(RETRY);
        cx.registry.endpoints(&namespace, &service)
    } else {
        Vec::new()
    };
    let backend = match asked.mode {
        DiscoveryMode::ExternalName => ServiceBackend::Name(sites[0].host.clone()),
        _ => ServiceBackend::Endpoints {
            ports: sites.first().map(|site| site.port.clone()).into_iter().collect(),
            wanted: found.wanted(sites, registered, &cx.egress),
            drain: Drain { time: Duration::from_secs(asked.drain_seconds.into()), ..Drain::default() },
        },
    };
    let registration = PublishedService {
        namespace,
        service: service.clone(),
        // Not blocking: some clusters allow that only with rights on the owner's finalizers.
        owners: vec![OwnerReference { block_owner_deletion: None, ..owner }],
        predecessors: Vec::new(),
        backend,
        server_name: sites.iter().map(|site| &site.host).find(|host| !is_address(host)).cloned(),
    };
    let settled = cx.registry.settle(&registration, &cx.fence).await?;
    match &settled {
        PublishOutcome::Done { next, .. } => {
            report.requeue_within(next.unwrap_or(Duration::MAX));
            report.status.common_mut().service_ref = Some(ServiceStatus { name: service.clone() });
        }
        PublishOutcome::Conflict(_) | PublishOutcome::Refused(_) => report.requeue_within(RETRY),
    }
    report.verdicts.push(found.verdict(&settled, &service));
    Ok(())
}

/// What no schema rule can tell.
fn check(asked: &Discovery, service: &str, sites: &[Site]) -> Result<(), Error> {
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
                    "ExternalName backend to one host: use Endpoints for several".to_owned(),
                );
            }
        }
    }
    Ok(())
}
