//! Between EndpointSlices and the domain's own.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::domain::endpoint_slices::{self, Family, Port, Slice};

/// The Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

/// Since when each address that leaves is drained, as JSON: a slice has no room for it, and a restart must not start anew.
const LEAVING: &str = "authlink.dev/draining-since";

/// The name of the Service that a slice belongs to.
pub(super) fn service(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE).map(String::as_str)
}

/// The same by the name of the slice, which is all that is left of one that went.
#[must_use]
pub fn service_of(slice: &str) -> &str {
    slice.rsplitn(3, '-').nth(2).unwrap_or(slice)
}

/// A slice as it was written by [`write`]; what cannot be read is none of ours, and is written anew.
pub(super) fn read(slice: &EndpointSlice) -> Option<Slice> {
    let family = [Family::V4, Family::V6].into_iter().find(|family| family.as_str() == slice.address_type)?;
    let ports = slice.ports.iter().flatten().map(|port| {
        Some(Port {
            name: port.name.clone()?,
            port: u16::try_from(port.port?).ok()?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let conditions = endpoint.conditions.as_ref()?;
        Some(endpoint_slices::Endpoint {
            address: endpoint.addresses.first()?.parse().ok()?,
            healthy: conditions.serving?,
            draining: conditions.terminating?,
            zone: endpoint.zone.clone(),
        })
    });
    let leaving = slice.annotations().get(LEAVING).and_then(|text| serde_json::from_str(text).ok());
    Some(Slice {
        name: slice.name_any(),
        family,
        ports: ports.collect::<Option<_>>()?,
        endpoints: endpoints.collect::<Option<_>>()?,
        draining_since: leaving.unwrap_or_default(),
    })
}

/// The slice as the API server gets it.
pub(super) fn write(slice: &Slice, service: &str, owner: &OwnerReference) -> EndpointSlice {
    let labels = [
        (SERVICE, service),
        ("endpointslice.kubernetes.io/managed-by", "authlink.dev"),
        ("app.kubernetes.io/managed-by", crate::api::FIELD_MANAGER),
    ];
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(slice.name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some(leaving(&slice.draining_since)),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: slice.family.as_str().to_owned(),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
        ports: Some(slice.ports.iter().map(port).collect()),
    }
}

/// As a merge patch (RFC 7396), which replaces the lists, and removes what is not there any more.
pub(super) fn replacing(desired: &EndpointSlice) -> Value {
    let mut patch = json!(desired);
    let annotations = &mut patch["metadata"]["annotations"];
    if annotations.get(LEAVING).is_none() {
        annotations[LEAVING] = Value::Null;
    }
    patch
}

/// As a patch after which no endpoint is ready; none where none is.
pub(super) fn not_ready_patch(slice: &EndpointSlice) -> Option<Value> {
    let ready = |endpoint: &Endpoint| {
        endpoint.conditions.as_ref().is_some_and(|it| it.ready == Some(true) || it.serving == Some(true))
    };
    if !slice.endpoints.iter().any(ready) {
        return None;
    }
    let mut endpoints = slice.endpoints.clone();
    for conditions in endpoints.iter_mut().filter_map(|endpoint| endpoint.conditions.as_mut()) {
        (conditions.ready, conditions.serving) = (Some(false), Some(false));
    }
    Some(json!({ "endpoints": endpoints }))
}

fn leaving(since: &BTreeMap<IpAddr, Timestamp>) -> BTreeMap<String, String> {
    let text = (!since.is_empty()).then(|| serde_json::to_string(since).ok()).flatten();
    text.into_iter().map(|text| (LEAVING.to_owned(), text)).collect()
}

fn endpoint(endpoint: &endpoint_slices::Endpoint) -> Endpoint {
    Endpoint {
        addresses: vec![endpoint.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(endpoint.healthy && !endpoint.draining),
            serving: Some(endpoint.healthy),
            terminating: Some(endpoint.draining),
        }),
        zone: endpoint.zone.clone(),
        ..Endpoint::default()
    }
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port.into()),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}
