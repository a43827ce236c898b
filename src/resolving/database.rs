//! `Database`: how to reach each of its servers.

use kube::ResourceExt;
use secrecy::ExposeSecret;

use super::{Lookup, Resolved, Source, Unresolved, text};
use crate::{
    api::{
        shared::{SecretKeyRef, SecretRef},
        v1alpha1::{
            Database,
            database::{DatabaseSpec, Engine, TlsMode},
        },
    },
    backends::{
        database::{Credential, PoolSettings, Settings, uri},
        transport::TlsSettings,
    },
    cluster::references::References,
    domain::schedule::Schedule,
};

/// Looks up everything that the spec names.
///
/// # Errors
/// The first thing that is missing or cannot serve, by name.
pub async fn resolve(
    database: &Database,
    references: &dyn References,
) -> Result<Resolved<Settings>, Unresolved> {
    let spec = &database.spec;
    let lookup = Lookup { references, namespace: &database.namespace().unwrap_or_default() };
    let mut tls = tls(lookup, spec).await?;
    let target = match &spec.uri_secret_ref {
        Some(reference) => from_uri(lookup, spec.engine, reference).await?,
        None => declared(lookup, spec).await?,
    };
    // An explicit mode wins; a URI speaks where the spec keeps its default.
    if let (TlsMode::VerifyFull, Some(mode)) = (spec.tls.mode, target.tls) {
        tls.mode = mode;
    }
    let targets = target
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
    Ok(Resolved { targets, schedule: Schedule::from(&spec.health_check), source: target.source })
}

/// Where, what and who, from a URI or from fields.
struct Where {
    hosts: Vec<(String, u16)>,
    database: Option<String>,
    credential: Credential,
    auth_source: Option<String>,
    tls: Option<TlsMode>,
    source: Option<Source>,
}

async fn declared(lookup: Lookup<'_>, spec: &DatabaseSpec) -> Result<Where, Unresolved> {
    let port = |own: Option<u16>| own.or(spec.port).unwrap_or(spec.engine.default_port());
    let hosts = match (&spec.host, &spec.hosts) {
        (Some(host), _) => vec![(host.clone(), port(None))],
        (None, Some(hosts)) => hosts.iter().map(|host| (host.host.clone(), port(host.port))).collect(),
        (None, None) => Vec::new(),
    };
    let (credential, source) = match &spec.credentials_ref {
        Some(reference) => login(lookup, reference, spec.engine).await?,
        None => (Credential::default(), None),
    };
    Ok(Where { hosts, database: spec.database.clone(), credential, auth_source: None, tls: None, source })
}

async fn from_uri(lookup: Lookup<'_>, engine: Engine, reference: &SecretKeyRef) -> Result<Where, Unresolved> {
    let secret = lookup.secret(&reference.name).await?;
    let text = text(&secret, &reference.name, &reference.key)?;
    let parsed =
        uri::parse(engine, text.expose_secret()).map_err(|problem| Unresolved::SecretInvalidValue {
            name: format!("the Secret {}", reference.name),
            key: reference.key.clone(),
            problem: format!("is not a URI for {}: it {problem}", engine.as_str()),
        })?;
    let fingerprint = parsed.credential.fingerprint(&secret.uid);
    Ok(Where {
        hosts: parsed.hosts,
        database: parsed.database,
        credential: parsed.credential,
        auth_source: parsed.auth_source,
        tls: parsed.tls,
        source: Some(Source { secret: reference.name.clone(), fingerprint }),
    })
}

async fn login(
    lookup: Lookup<'_>,
    reference: &SecretRef,
    engine: Engine,
) -> Result<(Credential, Option<Source>), Unresolved> {
    let name = &reference.name;
    let secret = lookup.secret(name).await?;
    let known = ["Opaque", "kubernetes.io/basic-auth"].contains(&secret.type_.as_str());
    if !known && !secret.type_.starts_with("servicebinding.io/") {
        return Err(Unresolved::SecretWrongType {
            name: name.clone(),
            type_: secret.type_.clone(),
            wanted: "kubernetes.io/basic-auth, servicebinding.io/* or Opaque",
        });
    }
    // Redis knows logins without a user name (`requirepass`).
    let username = match text(&secret, name, "username") {
        Ok(username) => Some(username.expose_secret().to_owned()),
        Err(Unresolved::SecretMissingKeys { .. }) if engine == Engine::Redis => None,
        Err(error) => return Err(error),
    };
    let password = text(&secret, name, "password")?;
    let credential = Credential { username, password: Some(password) };
    let source = Source { secret: name.clone(), fingerprint: credential.fingerprint(&secret.uid) };
    Ok((credential, Some(source)))
}

async fn tls(lookup: Lookup<'_>, spec: &DatabaseSpec) -> Result<TlsSettings, Unresolved> {
    let ca = match &spec.tls.ca_ref {
        Some(reference) => Some(lookup.ca(reference).await?),
        None => None,
    };
    let client = match &spec.tls.client_cert_ref {
        Some(reference) => Some(lookup.client_certificate(reference).await?),
        None => None,
    };
    Ok(TlsSettings { mode: spec.tls.mode, ca, client })
}
