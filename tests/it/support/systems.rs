//! The real servers: those that all tests share, and private ones for tests that break them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{
    environment::{test_dir, variable},
    free_port,
    manifests::Spec,
    processes,
};

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Postgresql,
    Mariadb,
    Redis,
    Ferretdb,
    /// In front of a PostgreSQL; only as a server of one's own.
    Pgbouncer,
    /// A directory.
    Slapd,
    /// An Active Directory, on an address of its own; only as a server of one's own.
    Samba,
}

impl System {
    pub(crate) const ALL: [Self; 4] = [Self::Postgresql, Self::Mariadb, Self::Redis, Self::Ferretdb];

    /// Its script in `e2e/systems`.
    fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Ferretdb => "ferretdb",
            Self::Pgbouncer => "pgbouncer",
            Self::Slapd => "slapd",
            Self::Samba => "samba",
        }
    }

    /// `spec.type`.
    pub(crate) fn engine(self) -> &'static str {
        match self {
            Self::Postgresql | Self::Pgbouncer => "postgresql",
            Self::Mariadb => "mysql",
            Self::Redis => "redis",
            Self::Ferretdb => "mongodb",
            Self::Slapd | Self::Samba => panic!("a directory is no database"),
        }
    }

    /// The plain port of the server that all tests share.
    pub(crate) fn port(self) -> u16 {
        let address = variable(&format!("AUTHLINK_TEST_{}", self.name().to_uppercase()));
        address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT")
    }

    /// The port that takes TLS, given the plain one.
    pub(crate) fn tls_port(self, port: u16) -> u16 {
        match self {
            Self::Postgresql | Self::Mariadb | Self::Pgbouncer | Self::Samba => port,
            Self::Redis | Self::Ferretdb | Self::Slapd => port + 1,
        }
    }

    /// The shared server, as the user `app` over TLS: `Namespace::create` makes the Secret and the CA.
    pub(crate) fn spec(self) -> Spec {
        self.spec_on(self.port())
    }

    /// The same for a server on this plain port.
    pub(crate) fn spec_on(self, port: u16) -> Spec {
        let spec = Spec::from(json!({
            "type": self.engine(),
            "host": "localhost",
            "port": self.tls_port(port),
            "credentialsRef": { "name": "login" },
            "tls": { "caRef": { "name": "ca" } },
        }));
        if self == Self::Redis { spec } else { spec.with(&json!({ "database": "app" })) }
    }
}

/// A server of one's own, gone with the value.
pub(crate) struct Server {
    pub(crate) system: System,
    pub(crate) port: u16,
    dir: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Server {
    /// A server that answers.
    pub(crate) fn start(system: System) -> Self {
        Self::start_with(system, &[])
    }

    /// The same, with settings of `e2e/systems`, such as `CERT`.
    pub(crate) fn start_with(system: System, settings: &[(&'static str, &str)]) -> Self {
        let port = free_port();
        let dir = test_dir().join("systems").join(format!("{}-{port}-{}", system.name(), std::process::id()));
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let server = Self { system, port, dir, settings };
        server.resume();
        server
    }

    /// Starts it again, with the data that it had.
    pub(crate) fn resume(&self) {
        self.run("start");
    }

    /// Where it keeps its data.
    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// Crashes it.
    pub(crate) fn kill(&self) {
        self.run("kill");
    }

    /// Lets it answer nothing, without closing anything.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).expect("the id of the server's process");
        let pid = pid.split_whitespace().next().expect("an id");
        processes::signal(signal, pid);
    }

    /// Crashes it, and puts a new server without history into its place.
    pub(crate) fn replace(&self) {
        self.kill();
        std::fs::remove_dir_all(&self.dir).expect("the server's folder");
        self.resume();
    }

    /// Restarts it with another value of this setting.
    pub(crate) fn restart_with(&mut self, setting: &'static str, value: &str) {
        self.run("stop");
        self.settings.retain(|(name, _)| *name != setting);
        self.settings.push((setting, value.to_owned()));
        self.resume();
    }

    /// Runs a command on a Redis.
    pub(crate) fn redis(&self, command: &[&str]) {
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string(), "--no-auth-warning", "-a", "admin-secret"]).args(command);
        let output = client.output().expect("redis-cli");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK", "{command:?}");
    }

    /// The user `app` over TLS.
    pub(crate) fn spec(&self) -> Spec {
        self.system.spec_on(self.port)
    }

    fn run(&self, verb: &str) {
        run_script(self.system.name(), &self.dir, self.port, verb, &self.settings);
    }
}

/// Runs a script of `e2e/systems`.
pub(super) fn run_script(
    system: &str,
    dir: &Path,
    port: u16,
    verb: &str,
    settings: &[(&'static str, String)],
) {
    let mut command = Command::new(PathBuf::from(variable("AUTHLINK_E2E")).join("systems").join(system));
    command.arg(dir).arg(port.to_string()).arg(verb).envs(settings.iter().cloned());
    // Nothing but files: a server that inherits a pipe would keep whoever reads it waiting.
    let log = std::fs::File::create(dir.with_extension("start")).expect("the test folder can be written to");
    command.stdout(log.try_clone().expect("a file")).stderr(log).stdin(std::process::Stdio::null());
    let status = command.status().expect("a script of e2e/systems");
    let said = || std::fs::read_to_string(dir.with_extension("start")).unwrap_or_default();
    assert!(status.success(), "{verb} of {system} failed: {}", said());
}

impl Drop for Server {
    fn drop(&mut self) {
        // A kill, since nobody needs the data any more; not asserted, since a panic here would hide the test's own.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.kill()));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
