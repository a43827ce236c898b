//! `Database`: how to reach each of its servers.

use kube::ResourceExt;
use secrecy::ExposeSecret;

use super::{Lookup, Resolved, Unresolved, source, text};
use crate::{
    api::{
        shared::{SecretKeyRef, SecretRef},
        v1alpha1::{
            Database,
            database::{DatabaseSpec, Engine, Tls, TlsMode},
        },
    },
    backends::database::{Credential, PoolSettings, ServerSettings, uri},
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
) -> Result<Resolved<ServerSettings>, Unresolved> {
    let spec = &database.spec;
    let lookup = Lookup { references, namespace: &database.namespace().unwrap_or_default() };
    let target = match &spec.uri_secret_ref {
        Some(reference) => from_uri(lookup, spec, reference).await?,
        None => declared(lookup, spec).await?,
    };
    let Tls { mode, ca_ref, client_cert_ref } = &spec.tls;
    let mode = mode.or(target.tls).unwrap_or_default();
    let tls = lookup.tls(mode, ca_ref.as_ref(), client_cert_ref.as_ref()).await?;
    let credential = target.credential;
    let source = source(lookup, database.secrets(), |salt| credential.fingerprint(&tls, salt)).await?;
    let targets = target
        .hosts
        .into_iter()
        .map(|(host, port)| ServerSettings {
            engine: spec.engine,
            host,
            port,
            database: target.database.clone(),
            credential: credential.clone(),
            auth_source: target.auth_source.clone(),
            tls: tls.clone(),
            pool: PoolSettings::from(&spec.pool),
            timeout: spec.health_check.timeout.get(),
        })
        .collect();
    Ok(Resolved { targets, schedule: Schedule::from(&spec.health_check), source })
}

/// Where, what and who, from a URI or from fields.
struct Where {
    hosts: Vec<(String, u16)>,
    database: Option<String>,
    credential: Credential,
    auth_source: Option<String>,
    tls: Option<TlsMode>,
}

async fn declared(lookup: Lookup<'_>, spec: &DatabaseSpec) -> Result<Where, Unresolved> {
    let port = |own: Option<u16>| own.or(spec.port).unwrap_or(spec.engine.default_port());
    let hosts = match (&spec.host, &spec.hosts) {
        (Some(host), _) => vec![(host.clone(), port(None))],
        (None, Some(hosts)) => hosts.iter().map(|host| (host.host.clone(), port(host.port))).collect(),
        (None, None) => Vec::new(),
    };
    let credential = match &spec.credentials_ref {
        Some(reference) => login(lookup, reference, spec.engine).await?,
        None => Credential::default(),
    };
    Ok(Where { hosts, database: spec.database.clone(), credential, auth_source: None, tls: None })
}

async fn from_uri(
    lookup: Lookup<'_>,
    spec: &DatabaseSpec,
    reference: &SecretKeyRef,
) -> Result<Where, Unresolved> {
    let secret = lookup.secret(&reference.name).await?;
    let text = text(&secret, &reference.name, &reference.key)?;
    let invalid = |problem| Unresolved::SecretInvalidValue {
        name: format!("the Secret {}", reference.name),
        key: reference.key.clone(),
        problem,
    };
    let parsed = uri::parse(spec.engine, text.expose_secret())
        .map_err(|problem| invalid(format!("is not a URI for {}: it {problem}", spec.engine.as_str())))?;
    if let Some(field) = left_unused(&spec.tls, parsed.tls) {
        return Err(invalid(format!(
            "is a URI whose TLS mode makes no use of spec.tls.{field}: change it there, or set spec.tls.mode"
        )));
    }
    Ok(Where {
        hosts: parsed.hosts,
        database: parsed.database,
        credential: parsed.credential,
        auth_source: parsed.auth_source,
        tls: parsed.tls,
    })
}

/// What the URI's mode would silently leave out, where the spec does not set the mode; with its own, its schema's rules
/// see to that.
fn left_unused(tls: &Tls, uri: Option<TlsMode>) -> Option<&'static str> {
    let mode = uri.filter(|_| tls.mode.is_none())?;
    let checked = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    if tls.ca_ref.is_some() && !checked {
        Some("caRef")
    } else if tls.client_cert_ref.is_some() && mode == TlsMode::None {
        Some("clientCertRef")
    } else {
        None
    }
}

async fn login(lookup: Lookup<'_>, reference: &SecretRef, engine: Engine) -> Result<Credential, Unresolved> {
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
    Ok(Credential { username, password: Some(password) })
}
