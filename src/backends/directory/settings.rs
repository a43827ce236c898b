//! Connection settings as plain values.

use std::{fmt, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::backends::{
    Fault,
    digest::{self, part},
    transport::{self, TlsSettings},
};

/// Everything that it takes to reach a directory.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Its servers, the one to prefer first.
    pub servers: Vec<ServerUrl>,
    /// How connections are protected.
    pub protection: Protection,
    /// How certificates are checked, and the one that is shown.
    pub tls: TlsSettings,
    /// What a server's certificate must name instead of its host.
    pub server_name: Option<String>,
    /// Whether passwords may be sent over a connection that is not encrypted.
    pub insecure: bool,
    /// Who asks.
    pub login: Login,
    /// How long it may take to connect and to log in, for each server.
    pub connect_timeout: Duration,
    /// How long a server may be silent while it answers.
    pub answer_timeout: Duration,
}

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    None,
    /// By TLS, which is asked for before anything else (RFC 4511, section 4.14). Where it is refused nothing more is sent.
    StartTls,
    /// By TLS from the first byte.
    #[default]
    Ldaps,
}

/// Who asks a directory.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Nobody: on purpose, and only for what the directory shows to everybody.
    #[default]
    Anonymous,
    /// By name and password. The name is sent as it is: a DN, or what else the server takes (`user@domain`, `DOMAIN\user`).
    Simple {
        /// The name.
        name: String,
        /// The password; never empty.
        password: SecretString,
    },
    /// By the client certificate (SASL EXTERNAL).
    External,
}

impl Login {
    /// 16 bits of a salted SHA-256 over it and the client certificate: enough to see a change, too little to guess from.
    #[must_use]
    pub fn fingerprint(&self, tls: &TlsSettings, salt: &str) -> String {
        digest::fingerprint(salt, |hash| {
            self.feed(hash);
            tls.feed_client(hash);
        })
    }

    fn feed(&self, hash: &mut Sha256) {
        match self {
            Self::Anonymous => part(hash, None),
            Self::Simple { name, password } => {
                part(hash, Some(name));
                part(hash, Some(password.expose_secret()));
            }
            Self::External => part(hash, Some("EXTERNAL")),
        }
    }
}

/// A server: `ldap://host:port` or `ldaps://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A URL that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a URL such as ldaps://ldap.example.com:636 is needed, without a path")]
pub struct InvalidUrl;

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl)?;
        let port = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => 389,
            "ldaps" => 636,
            _ => return Err(InvalidUrl),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: http::uri::Authority = rest.parse().map_err(|_| InvalidUrl)?;
        let host = uri.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || rest.contains('@') {
            return Err(InvalidUrl);
        }
        // `Authority::port` takes one that is too large for none.
        let port = match rest.strip_prefix(uri.host()).unwrap_or_default() {
            "" => port,
            given => given.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(InvalidUrl)?,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&transport::endpoint(&self.host, self.port))
    }
}

impl DirectorySettings {
    /// Equal for settings that reach the same servers with the same login: it is a digest of secrets, and must not leave the process.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.hash_servers(&mut hash);
        self.login.feed(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The same without the login: unchanged by a rotated password.
    #[must_use]
    pub fn servers_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.hash_servers(&mut hash);
        hash.finalize().into()
    }

    fn hash_servers(&self, hash: &mut Sha256) {
        let Self { servers, protection, server_name, insecure, connect_timeout, answer_timeout, .. } = self;
        let text = format!("{servers:?} {protection:?} {insecure} {connect_timeout:?} {answer_timeout:?}");
        part(hash, Some(&text));
        part(hash, server_name.as_deref());
        part(hash, self.tls.ca.as_deref());
    }

    /// Takes the secrets out of a fault's text.
    #[must_use]
    pub fn redact(&self, fault: Fault) -> Fault {
        let password = match &self.login {
            Login::Simple { password, .. } => Some(password),
            Login::Anonymous | Login::External => None,
        };
        fault.redacted(password.into_iter().chain(self.tls.client.as_ref().map(|(_, key)| key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server() {
        let rows = [
            ("ldap://ldap.example.com", "ldap.example.com:389"),
            ("LDAPS://ldap.example.com/", "ldap.example.com:636"),
            ("ldaps://10.0.0.1:3269", "10.0.0.1:3269"),
            ("ldap://[2001:db8::1]:1389", "[2001:db8::1]:1389"),
        ];
        for (url, server) in rows {
            assert_eq!(url.parse::<ServerUrl>().map(|it| it.to_string()).as_deref(), Ok(server));
        }
        for url in
            ["", "ldap.example.com", "http://x", "ldap://", "ldap://x/dc=x", "ldap://u:p@x", "ldap://x:99999"]
        {
            assert_eq!(url.parse::<ServerUrl>(), Err(InvalidUrl), "{url}");
        }
    }

    #[test]
    fn a_fingerprint_changes_with_the_login() {
        let tls = TlsSettings::default();
        let simple =
            |name: &str, password: &str| Login::Simple { name: name.to_owned(), password: password.into() };
        let all = [Login::Anonymous, Login::External, simple("a", "b"), simple("a", "c"), simple("ab", "")];
        let mut prints: Vec<_> = all.iter().map(|login| login.fingerprint(&tls, "salt")).collect();
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), all.len());
    }
}
