//! From a spec with references to plain connection settings.

use std::sync::Arc;

use kube::ResourceExt;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    api::{
        shared::{CaKind, CaRef, HealthCheck, SecretKeyRef, SecretRef},
        v1alpha1::{
            Database,
            database::{DatabaseSpec, Engine, TlsMode},
        },
    },
    backends::{
        database::{Credential, PoolSettings, Settings, uri},
        transport::{self, TlsSettings},
    },
    cluster::references::{References, SecretContent},
    controllers::Error,
    probing::Schedule,
};

/// A spec with everything that it names.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// How to reach each server; at least one.
    pub servers: Vec<Settings>,
    /// When they are probed.
    pub schedule: Schedule,
    /// The Secret that the credential came from.
    pub credential_secret: Option<CredentialSecret>,
}

/// The Secret that a credential came from.
#[derive(Clone, Debug)]
pub struct CredentialSecret {
    /// Its name.
    pub name: String,
    /// Its uid, which salts fingerprints.
    pub uid: String,
}

impl Resolved {
    /// The same servers with the same credential.
    pub(super) fn same_login(&self, other: &Self) -> bool {
        self.servers.iter().map(Settings::key).eq(other.servers.iter().map(Settings::key))
    }

    /// What users see of the credential; none where the spec names no Secret for it.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let salt = &self.credential_secret.as_ref()?.uid;
        Some(self.servers.first()?.credential.fingerprint(salt))
    }

    /// The same servers, maybe with another credential.
    pub(super) fn same_target(&self, other: &Self) -> bool {
        self.servers.iter().map(Settings::target_key).eq(other.servers.iter().map(Settings::target_key))
    }
}

/// Looks up everything that the spec names.
///
/// # Errors
/// The first thing that is missing or cannot serve, by name.
pub async fn resolve(database: &Database, references: &dyn References) -> Result<Resolved, Error> {
    let spec = &database.spec;
    let lookup = Lookup { references, namespace: database.namespace().unwrap_or_default() };
    let mut tls = lookup.tls(spec).await?;
    let target = match &spec.uri_secret_ref {
        Some(reference) => lookup.uri(spec.engine, reference).await?,
        None => lookup.declared(spec).await?,
    };
    // An explicit mode wins; a URI speaks where the spec keeps its default.
    if let (TlsMode::VerifyFull, Some(mode)) = (spec.tls.mode, target.tls) {
        tls.mode = mode;
    }
    let servers = target
        .hosts
        .into_iter()
        .map(|(host, port)| Settings {
            engine: spec.engine,
            host,
            port,
            database: target.database.clone(),
            credential: target.credential.clone(),
            auth_source: target.auth_source.clone(),
            tls: tls.clone(),
            pool: PoolSettings::from(&spec.pool),
            timeout: spec.health_check.timeout.get(),
        })
        .collect();
    Ok(Resolved { servers, schedule: Schedule::from(&spec.health_check), credential_secret: target.secret })
}

/// Where, what and who, from a URI or from fields.
struct Where {
    hosts: Vec<(String, u16)>,
    database: Option<String>,
    credential: Credential,
    auth_source: Option<String>,
    tls: Option<TlsMode>,
    secret: Option<CredentialSecret>,
}

struct Lookup<'a> {
    references: &'a dyn References,
    namespace: String,
}

impl Lookup<'_> {
    async fn declared(&self, spec: &DatabaseSpec) -> Result<Where, Error> {
        let port = |own: Option<u16>| own.or(spec.port).unwrap_or(spec.engine.default_port());
        let hosts = match (&spec.host, &spec.hosts) {
            (Some(host), _) => vec![(host.clone(), port(None))],
            (None, Some(hosts)) => hosts.iter().map(|host| (host.host.clone(), port(host.port))).collect(),
            (None, None) => Vec::new(),
        };
        let (credential, secret) = match &spec.credentials_ref {
            Some(reference) => self.credential(reference, spec.engine).await?,
            None => (Credential::default(), None),
        };
        Ok(Where { hosts, database: spec.database.clone(), credential, auth_source: None, tls: None, secret })
    }

    async fn uri(&self, engine: Engine, reference: &SecretKeyRef) -> Result<Where, Error> {
        let secret = self.secret(&reference.name).await?;
        let text = text(&secret, &reference.name, &reference.key)?;
        let parsed =
            uri::parse(engine, text.expose_secret()).map_err(|problem| Error::SecretInvalidValue {
                name: format!("the Secret {}", reference.name),
                key: reference.key.clone(),
                problem: format!("is not a URI for {}: it {problem}", engine.as_str()),
            })?;
        Ok(Where {
            hosts: parsed.hosts,
            database: parsed.database,
            credential: parsed.credential,
            auth_source: parsed.auth_source,
            tls: parsed.tls,
            secret: Some(CredentialSecret { name: reference.name.clone(), uid: secret.uid.clone() }),
        })
    }

    async fn credential(
        &self,
        reference: &SecretRef,
        engine: Engine,
    ) -> Result<(Credential, Option<CredentialSecret>), Error> {
        let name = &reference.name;
        let secret = self.secret(name).await?;
        let known = ["Opaque", "kubernetes.io/basic-auth"].contains(&secret.type_.as_str());
        if !known && !secret.type_.starts_with("servicebinding.io/") {
            return Err(Error::SecretWrongType {
                name: name.clone(),
                type_: secret.type_.clone(),
                wanted: "kubernetes.io/basic-auth, servicebinding.io/* or Opaque",
            });
        }
        // Redis knows logins without a user name (`requirepass`).
        let username = match text(&secret, name, "username") {
            Ok(username) => Some(username.expose_secret().to_owned()),
            Err(Error::SecretMissingKeys { .. }) if engine == Engine::Redis => None,
            Err(error) => return Err(error),
        };
        let password = text(&secret, name, "password")?;
        let secret = CredentialSecret { name: name.clone(), uid: secret.uid.clone() };
        Ok((Credential { username, password: Some(password) }, Some(secret)))
    }

    async fn tls(&self, spec: &DatabaseSpec) -> Result<TlsSettings, Error> {
        let ca = match &spec.tls.ca_ref {
            Some(reference) => Some(self.ca(reference).await?),
            None => None,
        };
        let client = match &spec.tls.client_cert_ref {
            Some(reference) => Some(self.client_certificate(reference).await?),
            None => None,
        };
        Ok(TlsSettings { mode: spec.tls.mode, ca, client })
    }

    async fn ca(&self, reference: &CaRef) -> Result<String, Error> {
        let CaRef { kind, name, key } = reference;
        let (holder, pem) = match kind {
            CaKind::Secret => {
                let secret = self.secret(name).await?;
                (format!("the Secret {name}"), text(&secret, name, key)?.expose_secret().to_owned())
            }
            CaKind::ConfigMap => {
                let map = self.references.config_map(&self.namespace, name).await?;
                let map = map.ok_or_else(|| Error::RefNotFound { what: format!("the ConfigMap {name}") })?;
                let pem = map.get(key).cloned();
                let missing =
                    || Error::RefNotFound { what: format!("the key {key} of the ConfigMap {name}") };
                (format!("the ConfigMap {name}"), pem.ok_or_else(missing)?)
            }
        };
        transport::trusted(&pem).map_err(|fault| Error::SecretInvalidValue {
            name: holder,
            key: key.clone(),
            problem: format!("is no CA certificate: {}", fault.detail),
        })?;
        Ok(pem)
    }

    async fn client_certificate(&self, reference: &SecretRef) -> Result<(String, SecretString), Error> {
        let name = &reference.name;
        let secret = self.secret(name).await?;
        let certificate = text(&secret, name, "tls.crt")?.expose_secret().to_owned();
        transport::certificates(&certificate).map_err(|fault| Error::SecretInvalidValue {
            name: format!("the Secret {name}"),
            key: "tls.crt".to_owned(),
            problem: format!("is no client certificate: {}", fault.detail),
        })?;
        Ok((certificate, text(&secret, name, "tls.key")?))
    }

    async fn secret(&self, name: &str) -> Result<Arc<SecretContent>, Error> {
        let secret = self.references.secret(&self.namespace, name).await?;
        secret.ok_or_else(|| Error::SecretNotFound { name: name.to_owned() })
    }
}

/// A key's value as text. A final line break, which `kubectl create --from-file` brings along, is no part of it.
fn text(secret: &SecretContent, name: &str, key: &str) -> Result<SecretString, Error> {
    let missing = || Error::SecretMissingKeys { name: name.to_owned(), keys: key.to_owned() };
    let bytes = secret.data.get(key).ok_or_else(missing)?.expose_secret();
    let text = std::str::from_utf8(bytes).map_err(|_| Error::SecretInvalidValue {
        name: format!("the Secret {name}"),
        key: key.to_owned(),
        problem: "is not UTF-8 text".to_owned(),
    })?;
    Ok(SecretString::from(text.strip_suffix('\n').unwrap_or(text)))
}

impl From<&HealthCheck> for Schedule {
    fn from(check: &HealthCheck) -> Self {
        Self {
            interval: check.interval.get(),
            timeout: check.timeout.get(),
            jitter_percent: check.jitter_percent,
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
        }
    }
}
