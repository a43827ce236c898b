//! Services, from what is to be published.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use serde_json::{Value, json};

use crate::{
    api::FIELD_MANAGER,
    domain::endpoint_slices::{DesiredEndpoint, Drain, Port},
};

/// The host name that the servers' certificates are for: what a client should verify, whatever name it connected to.
const SERVER_NAME: &str = "authlink.dev/server-name";

/// So many owners of a Service are written down: more would only make it larger, since whoever registers many objects as
/// one Service sees to their going.
const OWNERS: usize = 16;

/// What is published under one name.
pub struct PublishedService {
    /// The namespace of its owners.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The objects that it stands for; with the last of them it goes. The first 16 are written into it.
    pub owners: Vec<OwnerReference>,
    /// The uids of objects that may have owned it before.
    pub predecessors: Vec<String>,
    /// Where it routes to.
    pub backend: ServiceBackend,
    /// The host name that the servers' certificates are for.
    pub server_name: Option<String>,
}

/// Where a Service routes to.
pub enum ServiceBackend {
    /// To addresses.
    Endpoints {
        /// The Service's own ports.
        ports: Vec<Port>,
        /// The addresses.
        desired: Vec<DesiredEndpoint>,
        /// How addresses that leave are drained.
        drain: Drain,
    },
    /// To another name, by CNAME.
    Name(String),
}

/// The Service as the API server gets it.
pub(super) fn write(published: &PublishedService) -> Service {
    let spec = match &published.backend {
        ServiceBackend::Name(name) => ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(name.clone()),
            ..ServiceSpec::default()
        },
        ServiceBackend::Endpoints { ports, .. } => ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(ports.iter().map(port).collect()),
            // By default a Service has one family only, and nobody reaches the addresses of another one through it.
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        },
    };
    let server_name = published.server_name.clone().map(|name| (SERVER_NAME.to_owned(), name));
    Service {
        metadata: ObjectMeta {
            name: Some(published.service.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
            annotations: Some(server_name.into_iter().collect()),
            owner_references: Some(published.owners.iter().take(OWNERS).cloned().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Service::default()
    }
}

/// As a merge patch (RFC 7396) that also removes what it does not have any more.
pub(super) fn replacing(desired: &Service) -> Value {
    let mut patch = json!(desired);
    for (part, field) in [("spec", "externalName"), ("spec", "ports"), ("annotations", SERVER_NAME)] {
        let part = if part == "spec" { &mut patch[part] } else { &mut patch["metadata"][part] };
        if part.get(field).is_none() {
            part[field] = Value::Null;
        }
    }
    for port in patch["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port.get("appProtocol").is_none() {
            port["appProtocol"] = Value::Null;
        }
    }
    patch
}

fn port(port: &Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: port.port.into(),
        target_port: Some(IntOrString::Int(port.port.into())),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
        ..ServicePort::default()
    }
}

/// Whether one of the objects that it stands for owns it, or one that they follow.
pub(super) fn is_ours(meta: &ObjectMeta, published: &PublishedService) -> bool {
    let ours = |uid: &String| {
        published.owners.iter().any(|owner| owner.uid == *uid) || published.predecessors.contains(uid)
    };
    meta.owner_references.iter().flatten().any(|owner| ours(&owner.uid))
}

/// Who owns it, as users read it.
pub(super) fn owner_of(meta: &ObjectMeta) -> String {
    match meta.owner_references.iter().flatten().next() {
        Some(owner) => format!("the {} {}", owner.kind, owner.name),
        None => "somebody else".to_owned(),
    }
}
