//! The flags of `authlink run`; each is also an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

use super::leader::Election;
use crate::{
    cluster::watches::Scope,
    controllers::engine,
    domain::addresses::{Egress, Learned},
    telemetry::log,
};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Makes the manifests true and reports in their status.
    Operator,
    /// Calls what the manifests describe, for callers that have the right to.
    Gateway,
}

/// Settings of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it does.
    pub roles: Vec<Role>,
    /// Which namespaces; none means all.
    pub watch_namespaces: Vec<String>,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub http_addr: SocketAddr,
    /// Where the gateway listens.
    pub gateway_addr: SocketAddr,
    /// Files with the gateway's certificate and key.
    pub gateway_tls: Option<(PathBuf, PathBuf)>,
    /// Whether to take part in the election.
    pub leader_elect: bool,
    /// Namespace and name of the Lease.
    pub lease: (String, String),
    /// How long the Lease holds.
    pub lease_duration: Duration,
    /// Who this process is, in the Lease and in Events.
    pub identity: String,
    /// Where what must outlive a process is kept: a URL, maybe with a password.
    pub store: SecretString,
    /// How often gateways write into the store, and the operator reads from it.
    pub store_interval: Duration,
    /// The failure domain that this process is in.
    pub zone: Option<String>,
    /// Which addresses may be reached.
    pub egress: Egress,
    /// DNS servers and search domains.
    pub resolv_conf: PathBuf,
    /// Of the engine.
    pub engine: engine::EngineConfig,
}

impl Settings {
    /// One scope for each namespace, or one for all.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        if self.watch_namespaces.is_empty() {
            return vec![Scope::Cluster];
        }
        self.watch_namespaces.iter().cloned().map(Scope::Namespace).collect()
    }

    /// The election to take part in.
    #[must_use]
    pub fn lease(&self) -> Election {
        let (namespace, name) = self.lease.clone();
        Election { namespace, name, identity: self.identity.clone(), duration: self.lease_duration }
    }
}

/// The flags.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// What this process does
    #[arg(long, env = "AUTHLINK_ROLES", value_delimiter = ',', default_value = "operator")]
    roles: Vec<Role>,

    /// Namespaces to watch, separated by commas; all of them when empty
    #[arg(long, env = "AUTHLINK_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,

    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "AUTHLINK_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,

    /// Address of the gateway, with --roles gateway
    #[arg(long, env = "AUTHLINK_GATEWAY_ADDR", default_value = "0.0.0.0:8081")]
    gateway_addr: SocketAddr,

    /// File with the gateway's certificate, as PEM; without it the gateway speaks no TLS
    #[arg(long, env = "AUTHLINK_GATEWAY_TLS_CERT", requires = "gateway_tls_key")]
    gateway_tls_cert: Option<PathBuf>,

    /// File with the key of the gateway's certificate
    #[arg(long, env = "AUTHLINK_GATEWAY_TLS_KEY", requires = "gateway_tls_cert")]
    gateway_tls_key: Option<PathBuf>,

    /// How log lines look
    #[arg(long, env = "AUTHLINK_LOG_FORMAT", default_value = "text")]
    pub log_format: log::Format,

    /// What is logged: a level, or levels by module such as authlink=debug,kube=warn
    #[arg(long, env = "AUTHLINK_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Whether to work only while holding the Lease; false for a process that is alone
    #[arg(long, env = "AUTHLINK_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,

    /// Name of the Lease
    #[arg(long, env = "AUTHLINK_LEASE_NAME", default_value = "authlink-operator")]
    lease_name: String,

    /// Namespace of the Lease
    #[arg(long, env = "AUTHLINK_LEASE_NAMESPACE", default_value = "default")]
    lease_namespace: String,

    /// How long the Lease holds; after a leader died another one works when it has ended, and a fifth of it later at the latest
    #[arg(long, env = "AUTHLINK_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,

    /// Who this process is, in the Lease and in Events; by default the host name and the process id
    #[arg(long, env = "AUTHLINK_IDENTITY", default_value_t = default_identity())]
    identity: String,

    /// The store: sqlite:///path/file.db, sqlite::memory: (kept only as long as this process) or
    /// postgres://user:password@host/database, for one installation alone. What holds a password belongs into the environment;
    /// a password may also come by PGPASSWORD
    #[arg(long, env = "AUTHLINK_STORE", hide_env_values = true, default_value = "sqlite::memory:")]
    store: SecretString,

    /// How often gateways write into the store, and the operator reads from it
    #[arg(long, env = "AUTHLINK_STORE_INTERVAL", default_value = "15s", value_parser = duration)]
    store_interval: Duration,

    /// Address ranges of the cluster's own Services and Pods, which are never registered as something outside of it. An operator
    /// that watches all namespaces finds out those of the Services by itself, from Kubernetes 1.33 on
    #[arg(long, env = "AUTHLINK_CLUSTER_CIDRS", value_delimiter = ',')]
    cluster_cidrs: Vec<IpNet>,

    /// Address ranges that are not public, and that HTTP targets may have all the same
    #[arg(long, env = "AUTHLINK_EGRESS_ALLOW_CIDRS", value_delimiter = ',')]
    egress_allow_cidrs: Vec<IpNet>,

    /// The zone of the gateway: endpoints of an ExternalApi in the same one are called first
    #[arg(long, env = "AUTHLINK_ZONE")]
    zone: Option<String>,

    /// The DNS servers and search domains to use, in the form of resolv.conf(5)
    ///
    /// Databases of mysql and mongodb are found by the system's all the same: their drivers do that by themselves.
    #[arg(long, env = "AUTHLINK_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,

    /// Reconciles at the same time, of one kind
    #[arg(long, env = "AUTHLINK_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// How long one reconcile may take
    #[arg(long, env = "AUTHLINK_RECONCILE_TIMEOUT", default_value = "60s", value_parser = duration)]
    reconcile_timeout: Duration,

    /// The numbers in a status are at most this old; 0s: they only ride along with changes
    #[arg(long, env = "AUTHLINK_STATUS_REFRESH", default_value = "30m", value_parser = duration)]
    status_refresh: Duration,

    /// After finalizing has failed for so long, a deleted object goes all the same
    #[arg(long, env = "AUTHLINK_FINALIZE_TIMEOUT", default_value = "5m", value_parser = duration)]
    finalize_timeout: Duration,
}

impl RunArgs {
    /// The settings that the flags ask for.
    ///
    /// # Errors
    /// The flag and what is wrong with it.
    pub fn settings(self) -> Result<Settings, String> {
        if self.lease_duration < Duration::from_secs(1) {
            return Err("--lease-duration: at least 1s is needed".to_owned());
        }
        if self.store_interval < Duration::from_secs(1) {
            return Err("--store-interval: at least 1s is needed".to_owned());
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
            store: self.store,
            store_interval: self.store_interval,
            zone: self.zone.filter(|zone| !zone.is_empty()),
            egress: Egress {
                cluster: self.cluster_cidrs,
                services: Learned::default(),
                allowed: self.egress_allow_cidrs,
                // Each Pod is told so.
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
        text.parse().map_err(|error| format!("{error}, as in 30s or 1h30m"))?;
    if parsed.is_negative() {
        return Err("must not be negative".to_owned());
    }
    Ok(parsed.into())
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "authlink".to_owned());
    format!("{}-{}", host.trim(), std::process::id())
}
