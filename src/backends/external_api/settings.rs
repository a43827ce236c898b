//! An endpoint's settings as plain values.

use std::{ops::RangeInclusive, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::Base;
use crate::{
    api::v1alpha1::external_api::{ApiHealthCheck, CheckMethod, CheckType, HttpCheck},
    backends::{
        Fault,
        digest::{self, part},
        transport::TlsSettings,
    },
};

/// Everything that it takes to reach one endpoint of an API.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Where it is.
    pub base: Base,
    /// What calls carry.
    pub credential: Credential,
    /// How its certificate is checked, and the one that is shown to it in every handshake.
    pub tls: TlsSettings,
    /// What its certificate must name instead of its host.
    pub server_name: Option<String>,
    /// What a probe asks.
    pub check: Check,
    /// How long a probe may take, connecting included.
    pub timeout: Duration,
}

/// What calls carry.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// The header `Authorization`.
    pub authorization: Authorization,
    /// A header of its own.
    pub api_key: Option<ApiKey>,
}

/// A key in a header.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Name of the header.
    pub header: String,
    /// Its value.
    pub key: SecretString,
}

/// The header `Authorization`.
#[derive(Clone, Debug, Default)]
pub enum Authorization {
    /// It is not sent.
    #[default]
    None,
    /// A token.
    Bearer(SecretString),
    /// A user (RFC 7617).
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// Tokens that are fetched.
    OAuth2(ClientCredentials),
}

/// A client that fetches its tokens (RFC 6749, section 4.4).
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretString,
    /// What the tokens are asked to allow.
    pub scopes: Vec<String>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A request.
    Http(Expectation),
    /// A connection, and with https the TLS handshake.
    Tcp,
    /// Nothing.
    None,
}

/// A request, and the answer that it must get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The method.
    pub method: CheckMethod,
    /// Path and query, relative to the endpoint's URL.
    pub path: String,
    /// Statuses that mean health.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// A text that the answer must have.
    pub body: Option<String>,
    /// Whether it carries the credential.
    pub authenticated: bool,
}

impl From<&ApiHealthCheck> for Check {
    fn from(check: &ApiHealthCheck) -> Self {
        Self::new(check.check_type, check.http.as_ref(), check.authenticated)
    }
}

impl Check {
    /// What the spec of a health check says; `authenticated` ones carry the credential.
    #[must_use]
    pub fn new(check_type: CheckType, http: Option<&HttpCheck>, authenticated: bool) -> Self {
        match check_type {
            CheckType::None => Self::None,
            CheckType::Tcp => Self::Tcp,
            CheckType::Http => {
                let HttpCheck { path, method, expected_statuses, expected_body } =
                    http.cloned().unwrap_or_default();
                Self::Http(Expectation {
                    method,
                    path,
                    // The schema lets nothing else through.
                    statuses: expected_statuses.iter().filter_map(|text| statuses(text)).collect(),
                    body: expected_body,
                    authenticated,
                })
            }
        }
    }
}

/// `204` or `200-299`.
fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
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

    fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        let authorization = match &self.authorization {
            Authorization::None => None,
            Authorization::Bearer(secret)
            | Authorization::Basic { password: secret, .. }
            | Authorization::OAuth2(ClientCredentials { client_secret: secret, .. }) => Some(secret),
        };
        authorization.into_iter().chain(self.api_key.as_ref().map(|api_key| &api_key.key))
    }

    /// What a Secret says of it.
    fn feed(&self, hash: &mut Sha256) {
        let username = match &self.authorization {
            Authorization::Basic { username, .. } => Some(username.as_str()),
            _ => None,
        };
        part(hash, username);
        self.secrets().for_each(|secret| part(hash, Some(secret.expose_secret())));
    }

    /// What the spec says of it.
    fn feed_kind(&self, hash: &mut Sha256) {
        match &self.authorization {
            Authorization::None => part(hash, None),
            Authorization::Bearer(_) => part(hash, Some("Bearer")),
            Authorization::Basic { .. } => part(hash, Some("Basic")),
            Authorization::OAuth2(client) => {
                part(hash, Some(&client.token_url));
                part(hash, Some(&client.client_id));
                part(hash, Some(&client.scopes.join(" ")));
            }
        }
        part(hash, self.api_key.as_ref().map(|api_key| api_key.header.as_str()));
    }
}

impl EndpointSettings {
    /// Two settings with the same key reach the same endpoint in the same way with the same credential, and can share
    /// one `HttpEndpoint`. The key holds a digest of the secrets, and must not leave the process.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.feed_target(&mut hash);
        self.credential.feed(&mut hash);
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }

    /// The same for everything but what Secrets hold: what stays alike when a credential is rotated.
    #[must_use]
    pub fn target_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.feed_target(&mut hash);
        hash.finalize().into()
    }

    fn feed_target(&self, hash: &mut Sha256) {
        part(hash, Some(&self.base.text()));
        part(hash, Some(&format!("{:?} {:?} {:?}", self.tls.mode, self.check, self.timeout)));
        part(hash, self.tls.ca.as_deref());
        part(hash, self.server_name.as_deref());
        self.credential.feed_kind(hash);
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.base.endpoint()
    }

    /// Takes the secrets out of a fault's text.
    #[must_use]
    pub fn redact(&self, fault: Fault) -> Fault {
        fault.without(self.credential.secrets().chain(self.tls.client.as_ref().map(|(_, key)| key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(authorization: Authorization) -> EndpointSettings {
        EndpointSettings {
            base: Base::parse("https://api.example.com/v2").unwrap(),
            credential: Credential { authorization, api_key: None },
            tls: TlsSettings::default(),
            server_name: None,
            check: Check::from(&ApiHealthCheck::default()),
            timeout: Duration::from_secs(5),
        }
    }

    fn client(id: &str, secret: &str) -> Authorization {
        Authorization::OAuth2(ClientCredentials {
            token_url: "https://login.example.com".to_owned(),
            client_id: id.to_owned(),
            client_secret: secret.into(),
            scopes: Vec::new(),
        })
    }

    #[test]
    fn a_rotated_secret_changes_the_key_and_not_the_target() {
        let [one, two] = ["one", "two"].map(|token| settings(Authorization::Bearer(token.into())));
        assert_ne!(one.key(), two.key());
        assert_eq!(one.target_key(), two.target_key());
        let [one, two] = ["one", "two"].map(|secret| settings(client("a", secret)));
        assert_ne!(one.key(), two.key());
        assert_eq!(one.target_key(), two.target_key());
    }

    #[test]
    fn whatever_else_changes_is_another_target() {
        let one = settings(client("a", "s"));
        let mut others = vec![settings(client("b", "s")), settings(Authorization::Bearer("s".into()))];
        others.push(EndpointSettings { server_name: Some("b.example".to_owned()), ..one.clone() });
        others
            .push(EndpointSettings { base: Base::parse("https://api.example.com").unwrap(), ..one.clone() });
        others.push(EndpointSettings { check: Check::Tcp, ..one.clone() });
        let api_key = Some(ApiKey { header: "X-Key".to_owned(), key: "k".into() });
        others.push(EndpointSettings {
            credential: Credential { api_key, ..one.credential.clone() },
            ..one.clone()
        });
        for other in others {
            assert_ne!(one.target_key(), other.target_key(), "{other:?}");
            assert_ne!(one.key(), other.key(), "{other:?}");
        }
    }

    #[test]
    fn the_secrets_are_in_no_text() {
        let api_key = Some(ApiKey { header: "X-Key".to_owned(), key: "hunter3".into() });
        let mut all = settings(client("app", "hunter2"));
        all.credential.api_key = api_key;
        assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
        let fault = Fault::new(crate::api::Reason::Unavailable, "sent back: hunter2, hunter3");
        assert_eq!(all.redact(fault).detail, "sent back: [redacted], [redacted]");
    }

    #[test]
    fn a_health_check_that_says_nothing_is_a_get_of_the_root() {
        let Check::Http(expectation) = Check::from(&ApiHealthCheck::default()) else { panic!("http") };
        assert_eq!((expectation.method, expectation.path.as_str()), (CheckMethod::Get, "/"));
        assert_eq!((expectation.statuses, expectation.authenticated), (vec![200..=299], false));
    }

    #[test]
    fn statuses_are_single_ones_and_ranges() {
        assert_eq!([statuses("204"), statuses("200-299")], [Some(204..=204), Some(200..=299)]);
    }
}
