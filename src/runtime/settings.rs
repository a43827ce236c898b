//! The flags of `authlink run`. Each one is also an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

use super::leader::Election;
use crate::{
    cluster::watches::Scope,
    controllers::engine,
    domain::addresses::{Egress, ServiceRanges},
    store::Location,
    telemetry::log,
};

/// A role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Reconciles and probes the objects, and writes their status.
    Operator,
    /// Serves the calls of authorized callers to the targets of the objects.
    Gateway,
}

/// The settings of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The roles.
    pub roles: Vec<Role>,
    /// The namespaces to watch; empty for all.
    pub watch_namespaces: Vec<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http_addr: SocketAddr,
    /// Address of the gateway.
    pub gateway_addr: SocketAddr,
    /// Files with the gateway's certificate and key.
    pub gateway_tls: Option<(PathBuf, PathBuf)>,
    /// Whether to use leader election.
    pub leader_elect: bool,
    /// Namespace and name of the Lease.
    pub lease: (String, String),
    /// Duration of the Lease.
    pub lease_duration: Duration,
    /// Identity of this process in the Lease and in Events.
    pub identity: String,
    /// Where the store is.
    pub store: Location,
    /// Interval at which gateways write to the store and the operator reads from it.
    pub store_interval: Duration,
    /// Topology zone of this process.
    pub zone: Option<String>,
    /// Which addresses are allowed.
    pub egress: Egress,
    /// File with DNS servers and search domains.
    pub resolv_conf: PathBuf,
    /// Settings of the engine.
    pub engine: engine::EngineConfig,
}

impl Settings {
    /// One scope per watched namespace, or one for the cluster.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        if self.watch_namespaces.is_empty() {
            return vec![Scope::Cluster];
        }
        self.watch_namespaces.iter().cloned().map(Scope::Namespace).collect()
    }

    /// The leader election.
    #[must_use]
    pub fn lease(&self) -> Election {
        let (namespace, name) = self.lease.clone();
        Election { namespace, name, identity: self.identity.clone(), duration: self.lease_duration }
    }
}

/// The flags of `authlink run`.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// Roles of this process, separated by commas
    #[arg(long, env = "AUTHLINK_ROLES", value_delimiter = ',', default_value = "operator")]
    roles: Vec<Role>,

    /// Namespaces to watch, separated by commas; all namespaces if empty
    #[arg(long, env = "AUTHLINK_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,

    /// Listen address for /livez, /readyz and /metrics
    #[arg(long, env = "AUTHLINK_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,

    /// Listen address of the gateway
    #[arg(long, env = "AUTHLINK_GATEWAY_ADDR", default_value = "0.0.0.0:8081")]
    gateway_addr: SocketAddr,

    /// File with the TLS certificate of the gateway (PEM); without it the gateway serves plain HTTP
    #[arg(long, env = "AUTHLINK_GATEWAY_TLS_CERT", requires = "gateway_tls_key")]
    gateway_tls_cert: Option<PathBuf>,

    /// File with the private key of the TLS certificate (PEM)
    #[arg(long, env = "AUTHLINK_GATEWAY_TLS_KEY", requires = "gateway_tls_cert")]
    gateway_tls_key: Option<PathBuf>,

    /// Format of the log
    #[arg(long, env = "AUTHLINK_LOG_FORMAT", default_value = "text")]
    pub log_format: log::Format,

    /// Log level, or levels per module such as authlink=debug,kube=warn
    #[arg(long, env = "AUTHLINK_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Use leader election: reconcile only while holding the Lease. Set to false for a single process
    #[arg(long, env = "AUTHLINK_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,

    /// Name of the Lease
    #[arg(long, env = "AUTHLINK_LEASE_NAME", default_value = "authlink-operator")]
    lease_name: String,

    /// Namespace of the Lease
    #[arg(long, env = "AUTHLINK_LEASE_NAMESPACE", default_value = "default")]
    lease_namespace: String,

    /// Duration of the Lease. After a crash of the leader, another process takes over within 1.2 times this duration
    #[arg(long, env = "AUTHLINK_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,

    /// Identity of this process in the Lease and in Events; defaults to host name and process ID
    #[arg(long, env = "AUTHLINK_IDENTITY", default_value_t = default_identity())]
    identity: String,

    /// URL of the store: sqlite:///path/file.db, sqlite::memory: (lost when the process ends) or
    /// postgres://user:password@host/database. Installations must not share a database. Set a URL with a password by
    /// the environment variable, or set PGPASSWORD
    #[arg(long, env = "AUTHLINK_STORE", hide_env_values = true, default_value = "sqlite::memory:")]
    store: SecretString,

    /// File with the URL of the store, instead of --store. It is read again when it changes: a password can be rotated without a
    /// restart
    #[arg(long, env = "AUTHLINK_STORE_FILE", conflicts_with = "store")]
    store_file: Option<PathBuf>,

    /// Interval at which gateways write to the store and the operator reads from it
    #[arg(long, env = "AUTHLINK_STORE_INTERVAL", default_value = "15s", value_parser = duration)]
    store_interval: Duration,

    /// Service and Pod CIDRs of the cluster, which must not be registered as external targets. With all namespaces
    /// watched and Kubernetes 1.33 or newer, the Service CIDRs are discovered
    #[arg(long, env = "AUTHLINK_CLUSTER_CIDRS", value_delimiter = ',')]
    cluster_cidrs: Vec<IpNet>,

    /// Non-public CIDRs to which HTTP calls and probes are allowed
    #[arg(long, env = "AUTHLINK_EGRESS_ALLOW_CIDRS", value_delimiter = ',')]
    egress_allow_cidrs: Vec<IpNet>,

    /// Topology zone of the gateway, whose endpoints of an ExternalApi are preferred
    #[arg(long, env = "AUTHLINK_ZONE")]
    zone: Option<String>,

    /// File with DNS servers and search domains, in the format of resolv.conf(5)
    ///
    /// Host names of mysql and mongodb databases are resolved by the system resolver, which their drivers use.
    #[arg(long, env = "AUTHLINK_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,

    /// Maximum number of concurrent reconciles per kind
    #[arg(long, env = "AUTHLINK_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// Timeout of a reconcile
    #[arg(long, env = "AUTHLINK_RECONCILE_TIMEOUT", default_value = "60s", value_parser = duration)]
    reconcile_timeout: Duration,

    /// Maximum age of the numbers in a status; 0s updates them only along with other changes
    #[arg(long, env = "AUTHLINK_STATUS_REFRESH", default_value = "30m", value_parser = duration)]
    status_refresh: Duration,

    /// Timeout of the cleanup of a deleted object: if it keeps failing for this long, the finalizer is removed anyway
    #[arg(long, env = "AUTHLINK_FINALIZE_TIMEOUT", default_value = "5m", value_parser = duration)]
    finalize_timeout: Duration,
}

impl RunArgs {
    /// Converts the flags to settings.
    ///
    /// # Errors
    /// The name of an invalid flag, and what it must be.
    pub fn settings(self) -> Result<Settings, String> {
        if self.lease_duration < Duration::from_secs(1) {
            return Err("--lease-duration: must be at least 1s".to_owned());
        }
        if self.store_interval < Duration::from_secs(1) {
            return Err("--store-interval: must be at least 1s".to_owned());
        }
        Ok(Settings {
            roles: self.roles,
            watch_namespaces: self.watch_namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
            http_addr: self.http_addr,
            gateway_addr: self.gateway_addr,
            gateway_tls: self.gateway_tls_cert.zip(self.gateway_tls_key),
            leader_elect: self.leader_elect,
            lease: (self.lease_namespace, self.lease_name),
            lease_duration: self.lease_duration,
            identity: self.identity,
            store: self.store_file.map_or(Location::Url(self.store), Location::File),
            store_interval: self.store_interval,
            zone: self.zone.filter(|zone| !zone.is_empty()),
            egress: Egress {
                cluster: self.cluster_cidrs,
                services: ServiceRanges::default(),
                allowed: self.egress_allow_cidrs,
                // Kubernetes sets it in every Pod.
                api_server: std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok()),
            },
            resolv_conf: self.resolv_conf,
            engine: engine::EngineConfig {
                concurrency: self.concurrency,
                reconcile_timeout: self.reconcile_timeout,
                status_refresh: self.status_refresh,
                finalize_timeout: self.finalize_timeout,
            },
        })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration =
        text.parse().map_err(|error| format!("{error}: use a duration such as 30s or 1h30m"))?;
    if parsed.is_negative() {
        return Err("must not be negative".to_owned());
    }
    Ok(parsed.into())
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "authlink".to_owned());
    format!("{}-{}", host.trim(), std::process::id())
}
