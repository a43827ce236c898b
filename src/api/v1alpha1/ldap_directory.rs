//! `LdapDirectory`: an LDAP directory or Active Directory, whose users are synced and log in.

mod search;
mod status;
mod sync;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Managed,
    shared::{CaRef, Discovery, HealthCheck, Reference, SecretRef},
};

pub use search::{
    GroupAttributes, GroupSearch, MemberValue, Preset, Referrals, Scope, UserAttributes, UserSearch,
};
pub use status::{
    HeldLosses, LastRun, LdapDirectoryStatus, PlanStatus, PlanStep, RunningSync, SyncFailure, SyncStatus,
    TestStatus, TlsStatus, UserCounts,
};
pub use sync::{DeletionGuard, GroupMatch, LinkMode, LinkPolicy, PurgeAfter, RoleMapping, Sync, SyncMode};

/// Set to a new value, it starts a sync at once, and reads everything.
pub const SYNC_ANNOTATION: &str = "authlink.dev/sync-now";

/// Set to `status.plan.hash`, it approves that plan, once.
pub const APPROVE_ANNOTATION: &str = "authlink.dev/approve-deletions";

/// An LDAP directory or Active Directory: its users and groups are synced to the store, and its users log in through the gateway.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "LdapDirectory",
    plural = "ldapdirectories",
    namespaced,
    status = "LdapDirectoryStatus",
    shortname = "ldap",
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
    printcolumn(name = "USERS", type_ = "integer", json_path = ".status.sync.known.active"),
    printcolumn(name = "LAST-SYNC", type_ = "date", json_path = ".status.sync.lastRun.ended"),
    printcolumn(name = "RESULT", type_ = "string", json_path = ".status.sync.lastRun.outcome"),
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
#[x_kube(validation = Rule::new("self.urls.all(url, url.lowerAscii().startsWith('ldaps://')) || self.urls.all(url, url.lowerAscii().startsWith('ldap://'))")
    .message("urls must all be ldap:// or all be ldaps://"))]
#[x_kube(validation = Rule::new("!has(self.tls.mode) || (self.tls.mode == 'Ldaps') == self.urls.all(url, url.lowerAscii().startsWith('ldaps://'))")
    .message("tls.mode Ldaps needs ldaps:// urls; StartTls and None need ldap:// urls"))]
#[x_kube(validation = Rule::new("self.insecure || self.bind.mode == 'Anonymous' || !has(self.tls.mode) || self.tls.mode != 'None'")
    .message("tls.mode None sends passwords in clear text: use StartTls or Ldaps, or set insecure to true"))]
#[x_kube(validation = Rule::new("self.bind.mode != 'External' || (has(self.tls.clientCertRef) && (!has(self.tls.mode) || self.tls.mode != 'None'))")
    .message("bind.mode External needs tls.clientCertRef, and a tls.mode other than None"))]
#[x_kube(validation = Rule::new("!has(self.sync) || !has(self.sync.roleMappings) || size(self.sync.roleMappings) == 0 || has(self.groupSearch)")
    .message("sync.roleMappings needs groupSearch"))]
pub struct LdapDirectorySpec {
    /// URLs of the servers, such as `ldaps://ldap.example.com`, in order of preference. They must serve the same entries: another one is
    /// used while the first does not respond. The port defaults to 389 (ldap) or 636 (ldaps).
    #[schemars(length(min = 1, max = 8), inner(length(min = 8, max = 300)))]
    #[x_kube(validation = Rule::new("self.all(url, url.matches('^(?i)ldaps?://([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?/?$'))")
        .message("urls must have a scheme, a host and an optional port, such as ldaps://ldap.example.com:636"))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other.lowerAscii() == one.lowerAscii()))")
        .message("urls must not have the same server twice"))]
    pub urls: Vec<String>,

    /// How authlink authenticates to search the directory.
    pub bind: Bind,

    /// TLS settings of the connection.
    #[serde(default)]
    pub tls: Tls,

    /// Allows `tls.mode` None with passwords. They, and those of the users who log in, can then be read on the network.
    #[serde(default)]
    pub insecure: bool,

    /// Defaults for filters and attributes, and the meaning of account flags.
    #[serde(default)]
    pub preset: Preset,

    /// Where users are.
    pub user_search: UserSearch,

    /// Where groups are; without it groups are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_search: Option<GroupSearch>,

    /// How users log in.
    #[serde(default)]
    pub authentication: Authentication,

    /// A user that is searched to test the spec. The result is in `status.test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestUser>,

    /// What references to other servers (continuation references, RFC 4511, section 4.5.3) mean. They are never followed. Defaults to
    /// `Ignore` for ActiveDirectory, whose references are to other naming contexts, and to `Incomplete` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrals: Option<Referrals>,

    /// Number of entries of a page (RFC 2696).
    #[serde(default = "default_page_size")]
    #[schemars(range(min = 1, max = 10000))]
    pub page_size: u32,

    /// Trusts a server without paged results (RFC 2696) to return all entries in one response. Without that control, nothing tells a
    /// complete listing from a truncated one.
    #[serde(default)]
    pub allow_unpaged: bool,

    /// The user sync; without it users are added to the store when they log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,

    /// How the servers are probed: by a connection, a bind and a read of the root DSE.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// A Service for the servers; no Service if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,

    /// Stops probes and syncs, and refuses logins. `Ready` keeps its last value.
    #[serde(default)]
    pub suspend: bool,
}

const fn default_page_size() -> u32 {
    1000
}

/// How authlink authenticates to search the directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'Simple') == has(self.secretRef)")
    .message("bind.secretRef must be set for bind.mode Simple, and only for it"))]
pub struct Bind {
    /// The kind of bind.
    #[serde(default)]
    pub mode: BindMode,
    /// The Secret with the keys `username` (a DN, or another name that the server accepts, such as `reader@example.com`) and
    /// `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// The kind of bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindMode {
    /// Name and password.
    #[default]
    Simple,
    /// The client certificate (SASL EXTERNAL).
    External,
    /// No bind: only what the directory shows to everybody can be read.
    Anonymous,
}

/// TLS settings of the connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.mode) || self.mode != 'None' || !(has(self.caRef) || has(self.serverName) || has(self.clientCertRef))")
    .message("tls.caRef, tls.serverName and tls.clientCertRef have no effect with tls.mode None: remove them"))]
pub struct Tls {
    /// How connections are encrypted; defaults to Ldaps for ldaps:// urls, and to `StartTls` for ldap:// urls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// The CA certificates to trust, and no others; defaults to the public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Name to verify in the certificate (and SNI), instead of the host in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// A Secret of type kubernetes.io/tls with the client certificate. It is presented in every bind mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

/// How connections are encrypted. The certificate is always verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS.
    None,
    /// `StartTLS` (RFC 4511, section 4.14). If the server refuses it, nothing else is sent.
    StartTls,
    /// TLS from the first byte.
    Ldaps,
}

/// How users log in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'DnTemplate') == has(self.dnTemplate)")
    .message("authentication.dnTemplate must be set for authentication.mode DnTemplate, and only for it"))]
pub struct Authentication {
    /// How the user name leads to an entry.
    #[serde(default)]
    pub mode: AuthenticationMode,
    /// The name to bind with, in which `{}` is replaced by the user name: a DN such as `uid={},ou=people,dc=example,dc=org`, in which it
    /// is escaped (RFC 4514), or `{}@example.org`. The entry must also match `userSearch` after the bind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 1024))]
    #[x_kube(validation = Rule::new("self.contains('{}')").message("dnTemplate must contain {}, the place of the user name"))]
    pub dn_template: Option<String>,
}

/// How the user name leads to an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthenticationMode {
    /// `userSearch` must find exactly one entry, to which the password is bound.
    #[default]
    SearchThenBind,
    /// The name is made from `dnTemplate`.
    DnTemplate,
}

/// A user that is searched to test the spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestUser {
    /// A user name, as it is typed at a login.
    #[schemars(length(min = 1, max = 256))]
    pub username: String,
}

impl Managed for LdapDirectory {
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::BindValid,
        ConditionType::Healthy,
        ConditionType::SearchBaseFound,
        ConditionType::TestSearchPassed,
        ConditionType::MappingValid,
        ConditionType::Synced,
        ConditionType::DeletionGuard,
    ];

    /// Without `Synced` and `DeletionGuard`: users log in whatever becomes of a sync.
    const READY_WHEN: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::BindValid,
        ConditionType::Healthy,
        ConditionType::SearchBaseFound,
        ConditionType::TestSearchPassed,
        ConditionType::MappingValid,
        ConditionType::Registered,
    ];

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn health_check_mut(&mut self) -> Option<&mut HealthCheck> {
        Some(&mut self.spec.health_check)
    }

    fn references(&self) -> Vec<Reference> {
        let spec = &self.spec;
        let secrets = spec.bind.secret_ref.iter().chain(&spec.tls.client_cert_ref);
        let secrets = secrets.map(|reference| Reference::Secret(reference.name.clone()));
        let ca = spec.tls.ca_ref.iter().map(CaRef::reference);
        let service = spec.discovery.as_ref().and_then(|discovery| discovery.service(&self.name_any()));
        let links = spec.sync.iter().filter_map(|sync| sync.link_policy.config_map_ref.as_ref());
        let links = links.map(|reference| Reference::ConfigMap(reference.name.clone()));
        secrets.chain(ca).chain(service.map(Reference::Service)).chain(links).collect()
    }
}
