//! `ServiceRegistration`: an instance of a service that runs outside of the cluster.

mod health;
mod status;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Managed,
    shared::{HealthCheck, Reference},
};

pub use health::{InstanceHealthCheck, Load};
pub use status::{ResolvedHost, ServiceRegistrationStatus};

/// An instance of a service that runs outside of the cluster: it is probed, and clients reach it through a Service
/// that all instances share.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "ServiceRegistration",
    namespaced,
    status = "ServiceRegistrationStatus",
    shortname = "sreg",
    category = "auth-integrations",
    selectable = ".spec.serviceName",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "HEALTHY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].status"#
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "SERVICE", type_ = "string", json_path = ".spec.serviceName"),
    printcolumn(name = "INSTANCE", type_ = "string", json_path = ".spec.instanceId"),
    printcolumn(
        name = "LAST-CHANGE",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ADDRESS", type_ = "string", json_path = ".spec.addresses[0]", priority = 1),
    printcolumn(name = "LOAD", type_ = "string", json_path = ".status.load", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.healthCheck.portName) || self.ports.exists(port, port.name == self.healthCheck.portName)")
    .message("healthCheck.portName must be the name of an entry in ports"))]
#[x_kube(validation = Rule::new("!has(self.load) || self.healthCheck.type == 'Http'")
    .message("load is read from the response of a probe: it needs healthCheck.type Http"))]
#[x_kube(validation = Rule::new("!has(self.load) || !has(self.load.jsonPointer) || \
        !has(self.healthCheck.http) || self.healthCheck.http.method != 'HEAD'")
    .message("load.jsonPointer cannot be used with method HEAD, whose responses have no body: use load.fromHeader, or healthCheck.http.method GET"))]
pub struct ServiceRegistrationSpec {
    /// Name of the service and of its Kubernetes Service. Immutable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("serviceName is immutable: create a new ServiceRegistration"))]
    pub service_name: String,

    /// ID of the instance, unique within the service. Of two objects with the same ID, the older one is registered.
    /// Immutable.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("instanceId is immutable: create a new ServiceRegistration"))]
    pub instance_id: String,

    /// IP addresses and host names of the instance. Host names are resolved again when their TTL expires. Each
    /// address is probed.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 1, max = 253),
            regex(
                pattern = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?|[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$"
            )
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,

    /// The ports of the instance, the same at every address. The Service has the port names of the oldest instance;
    /// an instance whose port names differ is not reachable through it.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<ServicePort>,

    /// Labels to filter instances by in the discovery API of the gateway, with the syntax of Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32),
        inner(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"))
    )]
    #[x_kube(validation = Rule::new("self.all(key, key.size() <= 127 && \
            key.matches('^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))")
        .message("labels must have keys such as version or example.com/version"))]
    pub labels: BTreeMap<String, String>,

    /// Topology zone, such as `eu-1`. Clients in the same zone prefer this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub zone: Option<String>,

    /// Weight in the discovery API of the gateway, relative to the other instances; 0 for no calls.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u16,

    /// Drains the instance: it stays in the Service as terminating and gets no new connections, even if its probes
    /// succeed.
    #[serde(default)]
    pub drain: bool,

    /// Time in seconds for which a deleted instance or a removed address stays in the Service as not ready and
    /// terminating, so that open connections can finish. The time since `drain` was set counts.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: u32,

    /// Where probes read the load that the instance reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,

    /// How each address is probed.
    #[serde(default)]
    pub health_check: InstanceHealthCheck,

    /// Stops probes. `Ready` and the endpoints in the Service keep their last values.
    #[serde(default)]
    pub suspend: bool,
}

fn default_weight() -> u16 {
    100
}
fn default_drain_seconds() -> u32 {
    30
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the port, the same for all instances.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Application protocol, such as `http`, `https` or `kubernetes.io/h2c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub app_protocol: Option<String>,
}

impl Managed for ServiceRegistration {
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::Accepted, ConditionType::Connected, ConditionType::Healthy];

    const READY_WHEN: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::Connected,
        ConditionType::Healthy,
        ConditionType::Registered,
    ];

    /// Its endpoints are drained before the object is removed.
    const HAS_EXTERNAL_STATE: bool = true;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut HealthCheck> {
        Some(&mut self.spec.health_check.schedule)
    }

    /// A suspended object does not repair its Service.
    fn references(&self) -> Vec<Reference> {
        let service = (!self.spec.suspend).then(|| Reference::Service(self.spec.service_name.clone()));
        service.into_iter().collect()
    }
}

impl ServiceRegistration {
    /// The port that is probed. Some for every valid object, since the schema requires a port.
    #[must_use]
    pub fn probed_port(&self) -> Option<&ServicePort> {
        let named = |name: &String| self.spec.ports.iter().find(|port| port.name == *name);
        match &self.spec.health_check.port_name {
            Some(name) => named(name),
            None => self.spec.ports.first(),
        }
    }
}
