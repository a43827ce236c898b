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

/// Everything that it takes to reach one server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The product.
    pub engine: Engine,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name (or for Redis the number) of the database.
    pub database: Option<String>,
    /// Who logs in.
    pub credential: Credential,
    /// The database that knows the user (MongoDB's `authSource`).
    pub auth_source: Option<String>,
    /// How the connection is protected.
    pub tls: TlsSettings,
    /// The pool's bounds.
    pub pool: PoolSettings,
    /// How long connecting and one probe may take.
    pub timeout: Duration,
}

/// Who logs in.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
}

impl Credential {
    /// 16 bits of a salted SHA-256 over it and the client certificate: enough to see a change, too little to guess from.
    #[must_use]
    pub fn fingerprint(&self, tls: &TlsSettings, salt: &str) -> String {
        digest::fingerprint(salt, |hash| {
            self.feed(hash);
            tls.feed_client(hash);
        })
    }

    fn feed(&self, hash: &mut Sha256) {
        part(hash, self.username.as_deref());
        part(hash, self.password.as_ref().map(ExposeSecret::expose_secret));
    }
}

/// The pool's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections at the most.
    pub max: u32,
    /// Connections that stay open.
    pub min: u32,
    /// How long a caller waits.
    pub acquire_timeout: Duration,
    /// When an unused connection is closed.
    pub idle_timeout: Duration,
    /// When any connection is closed.
    pub max_lifetime: Duration,
    /// How often the pool is tended.
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
        self.feed_target(&mut hash);
        self.credential.feed(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The same for everything but the credential: what stays alike when a password is rotated.
    #[must_use]
    pub fn target_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.feed_target(&mut hash);
        hash.finalize().into()
    }

    /// The same for settings with which the same user logs in to the same server, whatever for.
    #[must_use]
    pub fn login_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        part(&mut hash, Some(&format!("{:?} {} {}", self.engine, self.host, self.port)));
        part(&mut hash, self.knows_user());
        self.credential.feed(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The database that knows the user, where there are several that may.
    pub(super) fn knows_user(&self) -> Option<&str> {
        let own = self.database.as_deref().unwrap_or("admin");
        (self.engine == Engine::Mongodb).then(|| self.auth_source.as_deref().unwrap_or(own))
    }

    fn feed_target(&self, hash: &mut Sha256) {
        let plain = format!(
            "{:?} {} {} {:?} {:?} {:?} {:?}",
            self.engine, self.host, self.port, self.auth_source, self.tls.mode, self.pool, self.timeout
        );
        part(hash, Some(&plain));
        part(hash, self.database.as_deref());
        part(hash, self.tls.ca.as_deref());
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        transport::endpoint(&self.host, self.port)
    }

    /// Takes the secrets out of a fault's text.
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
    fn what_the_same_user_logs_in_for_is_no_other_login() {
        let settings = |engine, database: &str, password| ServerSettings {
            engine,
            host: "db.example".to_owned(),
            port: 5432,
            database: Some(database.to_owned()),
            credential: credential("app", password),
            auth_source: None,
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
