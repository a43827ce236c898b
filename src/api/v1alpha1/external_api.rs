//! `ExternalApi`: an HTTP API that exists outside of authlink, at one or several places.

mod auth;
mod health;
mod policy;
mod status;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Managed,
    shared::{CaRef, Discovery, Duration, Reference, SecretRef},
};

pub use auth::{ApiKey, Auth, AuthType, Basic, Bearer, OAuth2};
pub use health::{ApiHealthCheck, CheckMethod, CheckType, HttpCheck};
pub use policy::{Allow, Backoff, CircuitBreaker, Method, RateLimit, Retry, RetryOn, Scope};
pub use status::{CertificateStatus, ExternalApiStatus};

/// An HTTP API that applications call: probed at each of its endpoints, and called through the gateway with its
/// credential, its limits and its retries.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "ExternalApi",
    namespaced,
    status = "ExternalApiStatus",
    shortname = "eapi",
    category = "auth-integrations",
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
    printcolumn(name = "ENDPOINTS", type_ = "string", json_path = ".status.endpointsSummary"),
    printcolumn(
        name = "LAST-CHANGE",
        type_ = "date",
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "ENDPOINT",
        type_ = "string",
        json_path = ".status.endpoints[0].address",
        priority = 1
    ),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.endpoints.exists(endpoint, endpoint.weight > 0)")
    .message("no endpoint would be called: give at least one of endpoints a weight above 0"))]
#[x_kube(validation = Rule::new("self.auth.type != 'Mtls' || has(self.tls.clientCertRef)")
    .message("auth.type Mtls needs tls.clientCertRef"))]
#[x_kube(validation = Rule::new("!has(self.tls.clientCertRef) || self.endpoints.all(endpoint, endpoint.url.startsWith('https://'))")
    .message("tls.clientCertRef needs https in the url of every endpoint"))]
#[x_kube(validation = Rule::new("!(has(self.tls.caRef) || has(self.tls.serverName)) || \
        self.endpoints.exists(endpoint, endpoint.url.startsWith('https://')) || \
        (has(self.auth.oauth2) && self.auth.oauth2.tokenUrl.startsWith('https://'))")
    .message("tls.caRef and tls.serverName say nothing of http: use https in the url of an endpoint, or remove them"))]
pub struct ExternalApiSpec {
    /// Where the API is; every one of them offers all of it.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["url".into()]))]
    pub endpoints: Vec<Endpoint>,

    /// The credential that calls carry. Callers neither have nor see it.
    #[serde(default)]
    pub auth: Auth,

    /// How the endpoints with https are checked.
    #[serde(default)]
    pub tls: Tls,

    /// How each endpoint is probed.
    #[serde(default)]
    pub health_check: ApiHealthCheck,

    /// How many calls are let through; without it any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,

    /// When an endpoint that fails is left alone for a while; without it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// Which failed calls are tried again; without it none. Only those with an idempotent method or an `Idempotency-Key` ever are,
    /// and those that were never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// How long a call may take, all of its attempts included.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// What may be called through the gateway; without it nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow: Vec<Allow>,

    /// A Service that leads to the endpoints; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,

    /// Leave it alone: no probes, no connections. `Ready` keeps its last value.
    #[serde(default)]
    pub suspend: bool,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

/// One place where the API is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What the paths of calls and probes are appended to, such as `https://billing.example.com/v2`.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#@ ]+(/[^?# ]*)?$')")
        .message("url must be http or https with a host and maybe a port and a path, and without user, query and fragment, \
                  such as https://billing.example.com/v2"))]
    pub url: String,
    /// Its share of the calls, relative to the other endpoints'; 0 for none.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u16,
    /// Where it is, such as `eu-1`: callers in the same zone are sent to it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub zone: Option<String>,
}

fn default_weight() -> u16 {
    100
}

/// How the endpoints with https are checked: always in full, authority and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The authorities to trust, for `auth.oauth2.tokenUrl` too; without it the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// The name that the endpoints' certificates must have, instead of the host of the url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// A Secret of type kubernetes.io/tls with the certificate to show in every handshake: by calls, by probes and to
    /// `auth.oauth2.tokenUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

impl Managed for ExternalApi {
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::Healthy,
    ];

    const READY_WHEN: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::Healthy,
        ConditionType::Registered,
    ];

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut crate::api::shared::HealthCheck> {
        Some(&mut self.spec.health_check.schedule)
    }

    fn references(&self) -> Vec<Reference> {
        let secrets = self.secrets().cloned().map(Reference::Secret);
        let service = self.service_name().map(Reference::Service);
        secrets.chain(self.spec.tls.ca_ref.as_ref().map(CaRef::reference)).chain(service).collect()
    }
}

impl ExternalApi {
    /// The names of the Secrets that hold what logs in.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let certificate = self.spec.tls.client_cert_ref.as_ref();
        self.spec.auth.secrets().chain(certificate.map(|reference| &reference.name))
    }

    /// The name of the Service; none where none is asked for.
    #[must_use]
    pub fn service_name(&self) -> Option<String> {
        self.spec.discovery.as_ref()?.service(&self.name_any())
    }
}
