//! `Webhook`: an HTTP endpoint that receives events.

mod delivery;
mod signing;
mod status;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Kind, Managed,
    shared::{CaRef, HealthCheck, Reference, SecretRef, SecretValueRef},
};

pub use delivery::{Backoff, Delivery, DisableAfter, Ordering, RateLimit};
pub use signing::{KeyType, Rotation, Scheme, Signing, SigningKeyRef, SingleSignature};
pub use status::{
    BreakerStatus, DeliveryCounts, EndpointState, HandledRequests, LastFailure, LastSuccess,
    SigningKeyStatus, SigningStatus, VerificationStatus, WebhookStatus,
};

/// Set to a new value, it enables a disabled webhook again.
pub const ENABLE_ANNOTATION: &str = "authlink.dev/enable";

/// Set to a new time (RFC 3339), it replays the failed and skipped deliveries of the events accepted since then.
pub const REPLAY_ANNOTATION: &str = "authlink.dev/replay-since";

/// Set to a new value, it replaces the generated signing key.
pub const ROTATE_ANNOTATION: &str = "authlink.dev/rotate-key";

/// An HTTP endpoint that receives events. Deliveries are signed and retried, and kept as dead letters if they
/// fail.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "Webhook",
    namespaced,
    status = "WebhookStatus",
    shortname = "whk",
    category = "auth-integrations",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "DELIVERED", type_ = "integer", json_path = ".status.deliveries.delivered"),
    printcolumn(name = "PENDING", type_ = "integer", json_path = ".status.deliveries.pending"),
    printcolumn(name = "DEAD", type_ = "integer", json_path = ".status.deliveries.dead"),
    printcolumn(name = "LAST-SUCCESS", type_ = "date", json_path = ".status.lastSuccess.time"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
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
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlSecretRef)")
    .message("exactly one of url and urlSecretRef must be set"))]
#[x_kube(validation = Rule::new("!has(self.url) || self.url.startsWith('https://') || self.verification.allowHttp")
    .message("url must be https, unless verification.allowHttp is true"))]
#[x_kube(validation = Rule::new("!has(self.url) || self.url.startsWith('https://') || \
        !(has(self.tls.caRef) || has(self.tls.serverName) || has(self.tls.clientCertRef))")
    .message("tls has no effect on http: use an https url, or remove tls"))]
pub struct WebhookSpec {
    /// URL of the endpoint, such as `https://hooks.example.com/auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/?#]*@')")
        .message("url must not have a user or password: set the header Authorization in headers, from a Secret"))]
    #[x_kube(validation = Rule::new("!self.contains('#')")
        .message("url must not have a fragment: remove # and the text after it"))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]+$')")
        .message("url must be ASCII without spaces: use the xn-- form of international host names and percent-encoding"))]
    #[x_kube(validation = Rule::new("isURL(self) && self.matches('^https?://[^/?#]') && !self.matches('^https?://[^/?#]*:0*(/|[?]|$)')")
        .message("url must be an http or https URL with a host, such as https://hooks.example.com/auth"))]
    #[x_kube(validation = Rule::new("!self.matches('^https?://([^/?#]*[.])?[^./?#:]{64}')")
        .message("url must have a host name whose labels have at most 63 characters"))]
    pub url: Option<String>,

    /// The Secret key with the URL, for URLs that contain a token, such as those of chat services. Only the host is shown in the
    /// status and in logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretValueRef>,

    /// Event types to deliver. `*` matches one or more segments at the end, and one segment elsewhere: `user.*` matches
    /// `user.created` and `user.role.added`, `*.created` matches `user.created`, and `*` matches every type.
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(min = 1, max = 256),
            regex(pattern = r"^([A-Za-z0-9_:/-]+|[*])([.]([A-Za-z0-9_:/-]+|[*]))*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<String>,

    /// A CEL expression that selects events, such as `event.data.tenant == "acme"`. The fields of `event` are `id`, `type`, `source`,
    /// `subject`, `time` (a string, RFC 3339 in UTC), `data` and `extensions`. Functions: `has`, `size`, `contains`, `startsWith`,
    /// `endsWith`, `matches` (the pattern must be a literal), `string`, `int`, `uint`, `double`, `all`, `exists`, `exists_one`, `map` and
    /// `filter`. Events for which the expression fails are held until it is corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub filter: Option<String>,

    /// Additional request headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other.name.lowerAscii() == one.name.lowerAscii()))")
        .message("headers must not have the same name twice; names are case-insensitive"))]
    pub headers: Vec<Header>,

    /// Value of the header `User-Agent`.
    #[serde(default = "default_user_agent")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    pub user_agent: String,

    /// How requests are signed.
    #[serde(default)]
    pub signing: Signing,

    /// Retries, timeout, concurrency and rate of deliveries.
    #[serde(default)]
    pub delivery: Delivery,

    /// How the endpoint is verified before events are delivered.
    #[serde(default)]
    pub verification: Verification,

    /// How the endpoint is probed once it is verified: by a connection and a TLS handshake, without a request.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// Where dead letters are delivered: events without attempts left, or too old. They can be replayed in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_ref: Option<DeadLetterRef>,

    /// The request body.
    #[serde(default)]
    pub payload: Payload,

    /// TLS settings for an https url.
    #[serde(default)]
    pub tls: Tls,

    /// Stops deliveries and probes; events are held meanwhile. `Ready` keeps its last value.
    #[serde(default)]
    pub suspend: bool,
}

fn default_user_agent() -> String {
    "Auth-Service-Webhook/1.0".to_owned()
}

/// A request header. Headers that authlink sets itself are not allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueRef)")
    .message("exactly one of headers.value and headers.valueRef must be set"))]
pub struct Header {
    /// Header name.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    #[x_kube(validation = Rule::new("!(self.lowerAscii() in ['host', 'content-length', 'content-type', 'content-encoding', \
            'transfer-encoding', 'connection', 'keep-alive', 'te', 'trailer', 'upgrade', 'expect', 'http2-settings', \
            'x-webhook-signature', 'x-webhook-id', 'x-hub-signature', 'x-hub-signature-256', 'x-github-event', \
            'x-github-delivery']) && !self.lowerAscii().matches('^(webhook|ce|proxy)-')")
        .message("headers.name must not be a header that authlink sets itself, or a hop-by-hop header"))]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'user-agent'")
        .message("headers.name must not be User-Agent: set userAgent instead"))]
    pub name: String,
    /// Header value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^[\t -~]*$"))]
    pub value: Option<String>,
    /// The Secret key with the header value. A trailing line break is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_ref: Option<SecretValueRef>,
}

/// How the endpoint is verified before events are delivered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The request that verifies the endpoint. It is sent once, and again when the URL changes.
    #[serde(default)]
    pub mode: VerificationMode,
    /// Allows an http URL. Without TLS the events can be read and changed on the network.
    #[serde(default)]
    pub allow_http: bool,
}

/// The request that verifies an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum VerificationMode {
    /// No request; the endpoint is not probed either.
    None,
    /// A HEAD request; any response is accepted.
    #[default]
    HeadRequest,
    /// A POST of `{"type":"webhook.challenge","challenge":"VALUE"}`. The response must be 2xx with the body `VALUE` or
    /// `{"challenge":"VALUE"}`.
    Challenge,
}

impl VerificationMode {
    /// The word that users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::HeadRequest => "HeadRequest",
            Self::Challenge => "Challenge",
        }
    }
}

/// Where dead letters are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterRef {
    /// Kind of the target.
    #[serde(default)]
    pub kind: DeadLetterKind,
    /// Name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kind of a dead letter target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeadLetterKind {
    /// Another Webhook in the same namespace.
    #[default]
    Webhook,
}

/// The request body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.template) || self.form == 'Standard'")
    .message("payload.template replaces the body: it needs payload.form Standard"))]
pub struct Payload {
    /// Format of the body.
    #[serde(default)]
    pub form: PayloadForm,
    /// A CEL expression whose result is sent as the JSON body, such as `{"text": event.type + " " + event.data.name}`. It has the same
    /// variables and functions as `filter`. Events for which it fails are held until it is corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub template: Option<String>,
}

/// Format of the request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PayloadForm {
    /// `{"id": .., "type": .., "timestamp": .., "data": ..}`, as Standard Webhooks recommends.
    #[default]
    Standard,
    /// `CloudEvents` 1.0, structured mode: one JSON document.
    CloudEventsStructured,
    /// `CloudEvents` 1.0, binary mode: the data is the body, the attributes are headers.
    CloudEventsBinary,
}

/// TLS settings for an https url. CA and host name are always verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The CA certificates to trust; defaults to the public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Server name (SNI) to verify in the certificate, instead of the host in the url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// A Secret of type kubernetes.io/tls with the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

impl Managed for Webhook {
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::UrlValid,
        ConditionType::SecretValid,
        ConditionType::EndpointReachable,
        ConditionType::Enabled,
        ConditionType::BreakerClosed,
        ConditionType::Durable,
    ];

    /// Without `BreakerClosed`, since an open breaker closes by itself and no event is lost meanwhile, and without `Durable`, since
    /// events are delivered all the same, and evaluations run without a persistent volume on purpose.
    const READY_WHEN: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::UrlValid,
        ConditionType::SecretValid,
        ConditionType::EndpointReachable,
        ConditionType::Enabled,
    ];

    /// Its deliveries are in the store.
    const HAS_EXTERNAL_STATE: bool = true;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut HealthCheck> {
        Some(&mut self.spec.health_check)
    }

    fn references(&self) -> Vec<Reference> {
        let spec = &self.spec;
        let headers = spec.headers.iter().filter_map(|header| header.value_ref.as_ref());
        let values = spec.url_secret_ref.iter().chain(headers).map(|reference| reference.name.clone());
        let key = spec.signing.secret_ref.as_ref().map(|reference| reference.name.clone());
        let certificate = spec.tls.client_cert_ref.as_ref().map(|reference| reference.name.clone());
        let secrets = values.chain(key).chain(certificate).chain([self.signing_secret_name()]);
        let dead_letter = spec.dead_letter_ref.as_ref().map(DeadLetterRef::reference);
        let ca = spec.tls.ca_ref.as_ref().map(CaRef::reference);
        secrets.map(Reference::Secret).chain(ca).chain(dead_letter).collect()
    }
}

impl Webhook {
    /// The name of the Secret with the signing keys in use.
    #[must_use]
    pub fn signing_secret_name(&self) -> String {
        const SUFFIX: &str = "-signing-keys";
        const LONGEST: usize = 253;
        let name = self.name_any();
        if name.len() + SUFFIX.len() <= LONGEST {
            return name + SUFFIX;
        }
        // Long names with the same prefix get different Secrets.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let ending = format!("-{hash:016x}{SUFFIX}");
        let kept: String = name.chars().take(LONGEST - ending.len()).collect();
        format!("{}{ending}", kept.trim_end_matches(['.', '-']))
    }
}

impl DeadLetterRef {
    /// As a reference to watch.
    #[must_use]
    pub fn reference(&self) -> Reference {
        match self.kind {
            DeadLetterKind::Webhook => Reference::Resource(Kind::Webhook, self.name.clone()),
        }
    }
}
