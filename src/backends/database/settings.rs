//! Connection settings as plain values.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::{
    api::v1alpha1::database::{Engine, Pool},
    backends::{
        Fault,
        digest::{self, part},
        transport::{self, TlsSettings},
    },
};

/// Everything needed to connect to one server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The engine.
    pub engine: Engine,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name (or for Redis the number) of the database.
    pub database: Option<String>,
    /// The credential.
    pub credential: Credential,
    /// The database in which the user is defined (MongoDB's `authSource`).
    pub auth_source: Option<String>,
    /// Options that clients need to log in as well (PostgreSQL's `options`, MongoDB's `authMechanism`), from a URI.
    pub options: Vec<(String, String)>,
    /// The names of the URI's options that are ignored.
    pub ignored_options: Vec<String>,
    /// TLS settings.
    pub tls: TlsSettings,
    /// The pool's bounds.
    pub pool: PoolSettings,
    /// The timeout of one probe, connecting included.
    pub timeout: Duration,
}

/// User name and password.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
}

impl Credential {
    /// Empty texts are absent.
    #[must_use]
    pub fn new(username: String, password: String) -> Self {
        let present = |text: String| Some(text).filter(|text| !text.is_empty());
        Self { username: present(username), password: present(password).map(SecretString::from) }
    }

    /// 16 bits of a salted SHA-256 over it and the client certificate: enough to detect a change, too few to guess the secret.
    #[must_use]
    pub fn fingerprint(&self, tls: &TlsSettings, salt: &str) -> String {
        digest::fingerprint(salt, |hash| {
            self.hash_into(hash);
            tls.feed_client(hash);
        })
    }

    fn hash_into(&self, hash: &mut Sha256) {
        part(hash, self.username.as_deref());
        part(hash, self.password.as_ref().map(ExposeSecret::expose_secret));
    }
}

/// The pool's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Maximum number of connections.
    pub max: u32,
    /// Connections kept open while idle.
    pub min: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// Any connection is closed at this age.
    pub max_lifetime: Duration,
    /// How often the pool is maintained.
    pub monitor_interval: Duration,
}

impl From<&Pool> for PoolSettings {
    fn from(pool: &Pool) -> Self {
        Self {
            max: pool.max,
            min: pool.min,
            acquire_timeout: pool.acquire_timeout.get(),
            idle_timeout: pool.idle_timeout.get(),
            max_lifetime: pool.max_lifetime.get(),
            monitor_interval: pool.monitor_interval.get(),
        }
    }
}

impl ServerSettings {
    /// Two settings with the same key reach the same server as the same user, and can share one pool. The key holds
    /// a digest of the secrets, and must not leave the process.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.hash_target(&mut hash);
        self.credential.hash_into(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The same without the credential: unchanged by a rotated password.
    #[must_use]
    pub fn target_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.hash_target(&mut hash);
        hash.finalize().into()
    }

    /// Equal for settings with which the same user logs in to the same server.
    #[must_use]
    pub fn login_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        part(&mut hash, Some(&format!("{:?} {} {}", self.engine, self.host, self.port)));
        part(&mut hash, self.effective_auth_source());
        self.credential.hash_into(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The database in which the user is looked up; none for engines with server-wide users.
    pub(super) fn effective_auth_source(&self) -> Option<&str> {
        let own = self.database.as_deref().unwrap_or("admin");
        (self.engine == Engine::Mongodb).then(|| self.auth_source.as_deref().unwrap_or(own))
    }

    fn hash_target(&self, hash: &mut Sha256) {
        let plain = format!(
            "{:?} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.engine,
            self.host,
            self.port,
            self.auth_source,
            self.options,
            self.ignored_options,
            self.tls.mode,
            self.pool,
            self.timeout
        );
        part(hash, Some(&plain));
        part(hash, self.database.as_deref());
        part(hash, self.tls.ca.as_deref());
    }

    /// The value of an option of the URI.
    #[must_use]
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// `host:port`, as shown to users.
    #[must_use]
    pub fn endpoint(&self) -> String {
        transport::endpoint(&self.host, self.port)
    }

    /// Redacts secrets in a fault's text.
    #[must_use]
    pub fn redact(&self, fault: Fault) -> Fault {
        fault.redacted(self.credential.password.iter().chain(self.tls.client.as_ref().map(|(_, key)| key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(username: &str, password: &str) -> Credential {
        Credential { username: Some(username.to_owned()), password: Some(password.into()) }
    }

    #[test]
    fn the_login_key_depends_on_server_and_user_alone() {
        let settings = |engine, database: &str, password| ServerSettings {
            engine,
            host: "db.example".to_owned(),
            port: 5432,
            database: Some(database.to_owned()),
            credential: credential("app", password),
            auth_source: None,
            options: Vec::new(),
            ignored_options: Vec::new(),
            tls: TlsSettings::default(),
            pool: PoolSettings::from(&Pool::default()),
            timeout: Duration::from_secs(5),
        };
        let one = settings(Engine::Postgresql, "one", "secret");
        let more = ServerSettings {
            timeout: Duration::from_secs(9),
            ..settings(Engine::Postgresql, "two", "secret")
        };
        assert_ne!(one.key(), more.key());
        assert_eq!(one.login_key(), more.login_key());
        assert_ne!(one.login_key(), ServerSettings { port: 5433, ..one.clone() }.login_key());
        assert_ne!(one.login_key(), settings(Engine::Postgresql, "one", "other").login_key());
        let [one, two] = ["one", "two"].map(|database| settings(Engine::Mongodb, database, "secret"));
        assert_ne!(one.login_key(), two.login_key(), "each database has users of its own");
        let [one, two] = [one, two].map(|it| ServerSettings { auth_source: Some("admin".to_owned()), ..it });
        assert_eq!(one.login_key(), two.login_key());
    }

    #[test]
    fn a_fingerprint_changes_with_the_password_the_certificate_and_the_salt() {
        let plain = TlsSettings::default();
        let certified = TlsSettings { client: Some(("pem".to_owned(), "key".into())), ..plain.clone() };
        let one = credential("app", "one");
        assert_eq!(one.fingerprint(&plain, "salt"), credential("app", "one").fingerprint(&plain, "salt"));
        assert_ne!(one.fingerprint(&plain, "salt"), credential("app", "two").fingerprint(&plain, "salt"));
        assert_ne!(one.fingerprint(&plain, "salt"), one.fingerprint(&certified, "salt"));
        assert_ne!(one.fingerprint(&plain, "salt"), one.fingerprint(&plain, "pepper"));
        assert_ne!(
            credential("ab", "c").fingerprint(&plain, ""),
            credential("a", "bc").fingerprint(&plain, "")
        );
    }
}
