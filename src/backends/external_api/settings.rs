//! An endpoint's settings as plain values.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{Base, ClientCredentials};
use crate::{
    api::{
        Reason,
        v1alpha1::external_api::{ApiHealthCheck, CheckMethod, CheckType, HttpCheck},
    },
    backends::{
        Fault,
        digest::{self, part},
        transport::TlsSettings,
    },
};

/// All settings for reaching one endpoint of an API.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Its URL.
    pub base: Base,
    /// The credential of calls.
    pub credential: Credential,
    /// How its certificate is checked, and the client certificate.
    pub tls: TlsSettings,
    /// The name that its certificate must be valid for, instead of the URL's host.
    pub server_name: Option<String>,
    /// The health check.
    pub check: Check,
    /// Timeout of a probe, connecting included.
    pub timeout: Duration,
}

/// The credential of calls.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// The header `Authorization`.
    pub authorization: Authorization,
    /// An API key in a header of its own.
    pub api_key: Option<ApiKey>,
}

/// An API key in a header.
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
    /// A static token (RFC 6750).
    Bearer(SecretString),
    /// User name and password (RFC 7617).
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// Access tokens of the client credentials grant.
    OAuth2(ClientCredentials),
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Sends a request.
    Http(Expectation),
    /// Connects, with a TLS handshake where the URL is https.
    Tcp,
    /// Nothing.
    None,
}

/// A request, and the response that it must get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The method.
    pub method: CheckMethod,
    /// Path and query, relative to the endpoint's URL.
    pub path: String,
    /// The `Host` header, instead of that of calls.
    pub host: Option<String>,
    /// More headers.
    pub headers: BTreeMap<String, String>,
    /// Healthy statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// A text that the body must contain.
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
    /// From the spec of a health check; `authenticated` ones carry the credential.
    #[must_use]
    pub fn new(check_type: CheckType, http: Option<&HttpCheck>, authenticated: bool) -> Self {
        match check_type {
            CheckType::None => Self::None,
            CheckType::Tcp => Self::Tcp,
            CheckType::Http => {
                let HttpCheck { path, method, host, headers, expected_statuses, expected_body, .. } =
                    http.cloned().unwrap_or_default();
                Self::Http(Expectation {
                    method,
                    path,
                    host,
                    headers,
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
    /// 16 bits of a salted SHA-256 over it and the client certificate: enough to see a change, too few to guess the secret from.
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
            Authorization::Bearer(secret) | Authorization::Basic { password: secret, .. } => Some(secret),
            Authorization::OAuth2(client) => Some(client.authentication.secret()),
        };
        authorization.into_iter().chain(self.api_key.as_ref().map(|api_key| &api_key.key))
    }

    /// Hashes the parts that come from Secrets.
    fn feed(&self, hash: &mut Sha256) {
        let username = match &self.authorization {
            Authorization::Basic { username, .. } => Some(username.as_str()),
            _ => None,
        };
        part(hash, username);
        self.secrets().for_each(|secret| part(hash, Some(secret.expose_secret())));
    }

    /// Hashes the parts that come from the spec.
    fn feed_spec(&self, hash: &mut Sha256) {
        match &self.authorization {
            Authorization::None => part(hash, None),
            Authorization::Bearer(_) => part(hash, Some("Bearer")),
            Authorization::Basic { .. } => part(hash, Some("Basic")),
            Authorization::OAuth2(client) => client.feed_spec(hash),
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
        self.credential.feed_spec(hash);
    }

    /// The base URL of probes, which may name another host than calls.
    ///
    /// # Errors
    /// `InvalidSpec` for an invalid host.
    pub(super) fn probe_base(&self, expectation: &Expectation) -> Result<Base, Fault> {
        let Some(host) = &expectation.host else { return Ok(self.base.clone()) };
        self.base
            .clone()
            .with_request_host(host)
            .map_err(|problem| Fault::new(Reason::InvalidSpec, format!("healthCheck.http.host {problem}")))
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.base.endpoint()
    }

    /// Removes the secrets from a fault's text.
    #[must_use]
    pub fn redact(&self, fault: Fault) -> Fault {
        fault.redacted(self.credential.secrets().chain(self.tls.client.as_ref().map(|(_, key)| key)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ClientAuthentication, *};

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
        let secret = ClientAuthentication::Basic(secret.into());
        Authorization::OAuth2(ClientCredentials::new("https://login.example.com", id, secret))
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
        let base = one.base.clone().with_request_host("b.example").unwrap();
        others.push(EndpointSettings { base, ..one.clone() });
        let Authorization::OAuth2(client) = one.credential.authorization.clone() else { panic!("OAuth2") };
        let audience = ClientCredentials { audience: Some("urn:api".to_owned()), ..client };
        others.push(settings(Authorization::OAuth2(audience)));
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
        let fault = Fault::new(Reason::Unavailable, "sent back: hunter2, hunter3");
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
