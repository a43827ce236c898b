//! `Database`: a PostgreSQL, MySQL/MariaDB, MongoDB or Redis server that exists outside of authlink.

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

pub use param_type::ParamType;
pub use pool::Pool;
pub use status::{DatabaseStatus, InvalidQuery, PoolStatus, ServerStatus};

/// A database server that applications use: probed by its own protocol, pooled, and offered by a binding Secret.
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
#[x_kube(validation = Rule::new("!has(self.uriSecretRef) || (!has(self.credentialsRef) && !has(self.port) && !has(self.database))")
    .message("the URI of uriSecretRef says it all: remove credentialsRef, port and database"))]
#[x_kube(validation = Rule::new("self.type != 'redis' || !has(self.database) || self.database.matches('^[0-9]{1,4}$')")
    .message("database of a redis is its number, such as \"0\""))]
#[x_kube(validation = Rule::new("self.type != 'mongodb' || !has(self.tls.mode) || self.tls.mode != 'VerifyCa'")
    .message("tls.mode VerifyCa is not offered for mongodb, whose driver always checks the host name: use VerifyFull"))]
pub struct DatabaseSpec {
    /// The engine; it cannot be changed.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type cannot be changed: create a new Database"))]
    pub engine: Engine,

    /// Host name or address of the server. Exactly one of host, hosts and uriSecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9.:])?$")
    )]
    pub host: Option<String>,

    /// Several servers of one system, such as a primary and its replicas: each is probed, and its role shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub hosts: Option<Vec<Host>>,

    /// TCP port; by default the engine's own: 5432, 3306, 27017 or 6379.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// A Secret's key with the whole connection URI, user and password included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret_ref: Option<SecretKeyRef>,

    /// Name of the database; for redis its number; for mongodb also the one to log in to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,

    /// A Secret of type kubernetes.io/basic-auth, servicebinding.io/* or Opaque with the keys username and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,

    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,

    /// The connections that authlink keeps, for each server.
    #[serde(default)]
    pub pool: Pool,

    /// Bounds for queries that do not set their own.
    #[serde(default)]
    pub query: QueryLimits,

    /// The statements that may be run by name. Each is prepared, never run, to check it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub queries: Vec<Query>,

    /// A Secret that applications mount, in the form of the Service Binding specification.
    #[serde(default)]
    pub binding: Binding,

    /// How the server is probed.
    #[serde(default)]
    pub health_check: HealthCheck,

    /// A Service that leads to the servers; without it there is none. Of several servers those that follow another one
    /// are ready only while none of them is known as a primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,

    /// Leave it alone: no probes, no connections. `Ready` keeps its last value.
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
    /// As users write it; also the `<type>` of `servicebinding.io/<type>`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
        }
    }

    /// The port that IANA lists for it.
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

/// One of several servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Host name or address.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9.:])?$")
    )]
    pub host: String,
    /// TCP port; by default `spec.port`, else the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// How the connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caRef) || !has(self.mode) || self.mode in ['VerifyCa', 'VerifyFull']")
    .message("tls.caRef needs tls.mode VerifyCa or VerifyFull"))]
#[x_kube(validation = Rule::new("!has(self.clientCertRef) || !has(self.mode) || self.mode != 'None'")
    .message("tls.clientCertRef needs a tls.mode other than None"))]
pub struct Tls {
    /// How much of the server's certificate is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// The authorities to trust; without it the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// A Secret of type kubernetes.io/tls with the certificate to show to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<SecretRef>,
}

/// `VerifyFull`: the server's certificate must come from a trusted authority and name the host. `VerifyCa`: its names are not checked.
/// `Require`: nothing is checked, so there is no protection against an active attacker. `None`: no TLS. By default what the URI of
/// `uriSecretRef` says, else `VerifyFull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS: passwords and data travel in the clear.
    None,
    /// TLS without any check of the certificate: no protection against an active attacker.
    Require,
    /// The certificate must come from a trusted authority; its names are not checked.
    VerifyCa,
    /// The certificate must come from a trusted authority and name the host.
    #[default]
    VerifyFull,
}

/// Bounds for queries that do not set their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryLimits {
    /// How long a query may run, its answer included. Then it is ended, on the server as well.
    #[serde(default = "query_timeout")]
    pub timeout: Duration,
    /// Rows that a query may return; the answer says so when there were more. It bounds neither what a statement changes nor,
    /// without `readOnly`, what postgresql and mysql read for it.
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

/// A statement that may be run by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z][a-zA-Z0-9_-]*$"))]
    pub name: String,
    /// One statement, which on postgresql and mysql runs in a transaction of its own. Placeholders are $1 for postgresql and ?
    /// for mysql. For redis it is a command: arguments stand apart by blanks, quotes are those of redis-cli, and $1 is a
    /// placeholder where it is a whole argument without quotes. For mongodb it is a command document as JSON, and the string
    /// "$1" is a placeholder where it is a whole value; a text that begins with $ is taken in filters and documents, and
    /// elsewhere only within {"$literal": "$1"}.
    #[schemars(length(min = 1, max = 8192))]
    pub statement: String,
    /// The types of the parameters, in order. A caller's value that does not fit is refused. An integer has 64 bits and a
    /// number up to 1000 digits, and both may be given as strings; a timestamp is a string by RFC 3339, to the microsecond
    /// (mongodb: millisecond); bytes are a string in base64. Null fits all types, except that redis has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub params: Vec<ParamType>,
    /// Whether it only reads. On postgresql and mysql it then runs in a read-only transaction, must give rows, and ends when
    /// enough of them were read; on redis
    /// the server must call the command readonly; on mongodb it must be a command that is known to read, such as find, or
    /// aggregate without $out and $merge.
    #[serde(default)]
    pub read_only: bool,
    /// How long it may run, instead of `spec.query.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Rows that it may return, instead of `spec.query.maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: Option<u32>,
}

/// A Secret that applications mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Whether to write it. Switched off, the Secret is removed.
    #[serde(default)]
    pub enabled: bool,
    /// Its name; by default `<name>-binding`.
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
    /// The names of the Secrets that hold what logs in.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        let DatabaseSpec { uri_secret_ref, credentials_ref, tls, .. } = &self.spec;
        let names = [
            uri_secret_ref.as_ref().map(|reference| &reference.name),
            credentials_ref.as_ref().map(|reference| &reference.name),
            tls.client_cert_ref.as_ref().map(|reference| &reference.name),
        ];
        names.into_iter().flatten()
    }

    /// The name of the Service; none where none is asked for.
    #[must_use]
    pub fn service_name(&self) -> Option<String> {
        self.spec.discovery.as_ref()?.service(&self.name_any())
    }

    /// The name of the binding Secret; none while it is switched off.
    #[must_use]
    pub fn binding_name(&self) -> Option<String> {
        let binding = &self.spec.binding;
        let default = || format!("{}-binding", self.name_any());
        binding.enabled.then(|| {
            Some(binding.secret_name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(default)
        })
    }
}
