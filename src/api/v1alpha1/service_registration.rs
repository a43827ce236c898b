//! `ServiceRegistration`: one instance of a service that runs outside of the cluster.

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

/// One instance of a service: probed, and found by its clients in the cluster through a Service that all instances of the
/// service share.
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
    .message("healthCheck.portName must be the name of one of ports"))]
#[x_kube(validation = Rule::new("self.healthCheck.type != 'Http' || \
        !self.ports.exists(port, has(port.appProtocol) && port.appProtocol == 'https' && \
            port.name == (has(self.healthCheck.portName) ? self.healthCheck.portName : self.ports[0].name))")
    .message("healthCheck.type Http is asked without TLS, and the port is one of https: use type Tcp, or the healthCheck.portName of another port"))]
#[x_kube(validation = Rule::new("!has(self.load) || self.healthCheck.type == 'Http'")
    .message("load is read from the answer to a probe: it needs healthCheck.type Http"))]
#[x_kube(validation = Rule::new("!has(self.load) || !has(self.load.jsonPointer) || \
        !has(self.healthCheck.http) || self.healthCheck.http.method != 'HEAD'")
    .message("an answer to HEAD has no body: use load.fromHeader, or another healthCheck.http.method"))]
pub struct ServiceRegistrationSpec {
    /// The service, and the name of the Service that leads to its instances; it cannot be changed.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("serviceName cannot be changed: create a new ServiceRegistration"))]
    pub service_name: String,

    /// Tells the instances of a service apart; of two objects with the same one, the older has it. It cannot be changed.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("instanceId cannot be changed: create a new ServiceRegistration"))]
    pub instance_id: String,

    /// Where the instance is: addresses, and host names, which are resolved again when their TTL is over. Each of them
    /// is probed.
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

    /// On which it serves, at every address. The Service has those of the oldest instance, and leads to those
    /// of the others that have the same names.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<ServicePort>,

    /// What discovery is asked by, in the form of Kubernetes' own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32),
        inner(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"))
    )]
    #[x_kube(validation = Rule::new("self.all(key, key.size() <= 127 && \
            key.matches('^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))")
        .message("a key of labels must be a name such as version or example.com/version"))]
    pub labels: BTreeMap<String, String>,

    /// Where it is, such as `eu-1`: callers in the same zone are sent to it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub zone: Option<String>,

    /// Its share of the calls through the gateway, relative to the other instances'; 0 for none.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u16,

    /// Send it no new connections, whatever the probes say: it stays in the Service as terminating.
    #[serde(default)]
    pub drain: bool,

    /// A deleted instance, and an address that it has no more, is drained for so many seconds: not ready and terminating,
    /// so that open connections can end. The time of `drain` counts.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: u32,

    /// How loaded it is, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,

    /// How each address is probed.
    #[serde(default)]
    pub health_check: InstanceHealthCheck,

    /// Leave it alone: no probes. `Ready` and its place in the Service stay as they are.
    #[serde(default)]
    pub suspend: bool,
}

fn default_weight() -> u16 {
    100
}
fn default_drain_seconds() -> u32 {
    30
}

/// A port on which an instance serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name, the same at all instances.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What is spoken there, such as `http`, `https` or `kubernetes.io/h2c`.
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

    /// Its endpoints: they are drained before it goes.
    const HAS_EXTERNAL_STATE: bool = true;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut HealthCheck> {
        Some(&mut self.spec.health_check.schedule)
    }

    /// One that is left alone sees to nothing, and need not hear of it.
    fn references(&self) -> Vec<Reference> {
        let service = (!self.spec.suspend).then(|| Reference::Service(self.spec.service_name.clone()));
        service.into_iter().collect()
    }
}

impl ServiceRegistration {
    /// The port that is probed. The schema lets no registration without ports through.
    #[must_use]
    pub fn probed_port(&self) -> Option<&ServicePort> {
        let named = |name: &String| self.spec.ports.iter().find(|port| port.name == *name);
        match &self.spec.health_check.port_name {
            Some(name) => named(name),
            None => self.spec.ports.first(),
        }
    }
}
