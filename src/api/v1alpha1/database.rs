//! `Database`: an external PostgreSQL, MySQL/MariaDB, MongoDB or Redis server.

mod credentials;
mod param_type;
mod pool;
mod status;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ConditionType, Managed,
    shared::{CaRef, Discovery, Duration, HealthCheck, Reference, SecretKeyRef, SecretRef},
};

pub use credentials::CredentialsRef;
pub use param_type::ParamType;
pub use pool::Pool;
pub use status::{DatabaseStatus, InvalidQuery, PoolStatus, ServerStatus, TlsStatus};

/// A database server: probed with its own protocol, registered as a Service, and available to applications through a
/// binding Secret and through the declared queries of the gateway.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "authlink.dev",
    version = "v1alpha1",
    kind = "Database",
    namespaced,
    status = "DatabaseStatus",
    shortname = "adb",
    category = "auth-integrations",
    label("servicebinding.io/provisioned-service", "true"),
    selectable = ".spec.type",
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
    printcolumn(name = "ENGINE", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".status.server.version"),
    printcolumn(name = "POOL", type_ = "string", json_path = ".status.pool.summary"),
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
#[x_kube(validation = Rule::new("[has(self.host), has(self.hosts), has(self.uriSecretRef)].filter(x, x).size() == 1")
    .message("set exactly one of host, hosts and uriSecretRef"))]
#[x_kube(validation = Rule::new("!has(self.uriSecretRef) || (!has(self.credentialsRef) && !has(self.port) && !has(self.database) && !has(self.authSource))")
    .message("credentialsRef, port, database and authSource are part of the URI in uriSecretRef: remove them"))]
#[x_kube(validation = Rule::new("self.type != 'redis' || !has(self.database) || self.database.matches('^[0-9]{1,4}$')")
    .message("database must be a number for type redis, such as \"0\""))]
#[x_kube(validation = Rule::new("self.type == 'mongodb' || !has(self.authSource)")
    .message("authSource is only for type mongodb"))]
pub struct DatabaseSpec {
    /// The database engine. Immutable.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type is immutable: create a new Database"))]
    pub engine: Engine,

    /// Host name or IP address of the server, without a port. Set exactly one of host, hosts and uriSecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9.:])?$')")
        .message("must be a host name or address without a port"))]
    pub host: Option<String>,

    /// Several servers of one cluster, such as a primary and its replicas. Each is probed, and the status shows its
    /// role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub hosts: Option<Vec<Host>>,

    /// TCP port; defaults to the port of the engine: 5432, 3306, 27017 or 6379.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// A key of a Secret with the connection URI, including user and password. Options that authlink does not need are
    /// ignored, and listed in the condition `ResolvedRefs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret_ref: Option<SecretKeyRef>,

    /// Name of the database. For redis its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,

    /// For mongodb: the authentication database, in which the user is defined, often `admin`. Defaults to `database`, or
    /// else `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub auth_source: Option<String>,

    /// A Secret, of any type, with user name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<CredentialsRef>,

    /// TLS settings of the connection.
    #[serde(default)]
    pub tls: Tls,

    /// Connection pool settings, per server.
    #[serde(default)]
    pub pool: Pool,

    /// Defaults for the limits of the queries.
    #[serde(default)]
    pub query: QueryLimits,

    /// Statements that callers of the gateway run by name. They are prepared, but not run, to validate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub queries: Vec<Query>,

    /// The binding Secret for applications (Service Binding specification): type, provider, host, port, database,
    /// username, password and uri; with a client certificate also certificates and private-key. The key ca.crt has the
    /// CA of `tls.caRef`.
    #[serde(default)]
    pub binding: Binding,

    /// How the servers are probed.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// A Service for the servers; no Service if unset. With several hosts, replicas are ready only while no primary
    /// is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,

    /// Stops probes and closes connections. `Ready` keeps its last value.
    #[serde(default)]
    pub suspend: bool,
}

/// The database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// MongoDB.
    Mongodb,
    /// Redis and Valkey.
    Redis,
}

impl Engine {
    /// The value of `spec.type`, and the `<type>` in `servicebinding.io/<type>`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
        }
    }

    /// The port that IANA assigns to the engine.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Postgresql => 5432,
            Self::Mysql => 3306,
            Self::Mongodb => 27017,
            Self::Redis => 6379,
        }
    }
}

/// A server of `spec.hosts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Host name or IP address, without a port.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9.:])?$')")
        .message("must be a host name or address without a port"))]
    pub host: String,
    /// TCP port; defaults to `spec.port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// TLS settings of the connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caRef) || !has(self.mode) || self.mode in ['VerifyCa', 'VerifyFull']")
    .message("tls.caRef needs tls.mode VerifyCa or VerifyFull"))]
#[x_kube(validation = Rule::new("!has(self.clientCertRef) || !has(self.mode) || self.mode != 'None'")
    .message("tls.clientCertRef needs a tls.mode other than None"))]
pub struct Tls {
    /// How the server certificate is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// The CA certificates to trust, and no others; defaults to the public CAs (Mozilla's list). A self-signed server
    /// certificate is trusted if it is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// A Secret of type kubernetes.io/tls with the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

/// `VerifyFull`: the server certificate must be issued by a trusted CA and match the host name. `VerifyCa`: the host
/// name is not verified. `Require`: the certificate is not verified, which does not protect against an active
/// attacker. `None`: no TLS. If unset, the mode in the URI of `uriSecretRef` applies, or else `VerifyFull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS: passwords and data are sent in clear text.
    None,
    /// TLS without verification of the certificate: no protection against an active attacker.
    Require,
    /// The certificate must be issued by a trusted CA; the host name is not verified.
    VerifyCa,
    /// The certificate must be issued by a trusted CA and match the host name.
    #[default]
    VerifyFull,
}

/// Defaults for the limits of the queries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryLimits {
    /// Timeout of a query, including the transfer of the rows. A query that times out is also cancelled on the
    /// server.
    #[serde(default = "query_timeout")]
    pub timeout: Duration,
    /// Maximum number of rows in a response. If there are more, the response says that it is truncated. Without
    /// `readOnly`, a statement on postgresql and mysql still runs to its end.
    #[serde(default = "query_max_rows")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: u32,
}

fn query_timeout() -> Duration {
    Duration::from_secs(5)
}
fn query_max_rows() -> u32 {
    1000
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { timeout: query_timeout(), max_rows: query_max_rows() }
    }
}

/// A statement that callers of the gateway run by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// Name of the query.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z][a-zA-Z0-9_-]*$"))]
    pub name: String,
    /// A single statement. postgresql: SQL with the placeholders $1, $2, ..., run in its own transaction. mysql: SQL
    /// with the placeholder ?, run in its own transaction. redis: a command with the quoting of redis-cli; $1 is a
    /// placeholder if it is a whole unquoted argument. mongodb: a command document as JSON; "$1" is a placeholder if
    /// it is a whole value. There, a text parameter that starts with $ is accepted in filters and documents, but in
    /// expressions only within {"$literal": "$1"}.
    #[schemars(length(min = 1, max = 8192))]
    pub statement: String,
    /// The types of the parameters, in order. Values of another type are rejected. integer: 64-bit, as a JSON number
    /// or string. number: decimal with up to 1000 digits, as a JSON number or string. timestamp: RFC 3339 string with
    /// at most microseconds (mongodb: milliseconds). bytes: base64 string. null is valid for every type, except on
    /// redis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub params: Vec<ParamType>,
    /// Restricts the query to reading. postgresql and mysql: it runs in a read-only transaction, must return rows,
    /// and stops at `maxRows`. redis: the server must flag the command as readonly. mongodb: it must be a reading
    /// command, such as find, or aggregate without $out and $merge.
    #[serde(default)]
    pub read_only: bool,
    /// Overrides `spec.query.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Overrides `spec.query.maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: Option<u32>,
}

/// The binding Secret for applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Whether the Secret is written. If set back to false, the Secret is deleted.
    #[serde(default)]
    pub enabled: bool,
    /// Name of the Secret; defaults to `<name>-binding`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253), regex(pattern = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"))]
    pub secret_name: String,
}

impl Managed for Database {
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Connected,
        ConditionType::Healthy,
        ConditionType::PoolHealthy,
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

    fn health_check_mut(&mut self) -> Option<&mut HealthCheck> {
        Some(&mut self.spec.health_check)
    }

    fn references(&self) -> Vec<Reference> {
        let secrets = self.secrets().cloned().chain(self.binding_name()).map(Reference::Secret);
        let service = self.service_name().map(Reference::Service);
        secrets.chain(self.spec.tls.ca_ref.as_ref().map(CaRef::reference)).chain(service).collect()
    }
}

impl Database {
    /// The names of the Secrets with the credentials.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let DatabaseSpec { uri_secret_ref, credentials_ref, tls, .. } = &self.spec;
        let names = [
            uri_secret_ref.as_ref().map(|reference| &reference.name),
            credentials_ref.as_ref().map(|reference| &reference.name),
            tls.client_cert_ref.as_ref().map(|reference| &reference.name),
        ];
        names.into_iter().flatten()
    }

    /// The name of the Service; none without `spec.discovery`.
    #[must_use]
    pub fn service_name(&self) -> Option<String> {
        self.spec.discovery.as_ref()?.service(&self.name_any())
    }

    /// The name of the binding Secret; none if it is disabled.
    #[must_use]
    pub fn binding_name(&self) -> Option<String> {
        let binding = &self.spec.binding;
        let default = || format!("{}-binding", self.name_any());
        binding.enabled.then(|| {
            Some(binding.secret_name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(default)
        })
    }
}
