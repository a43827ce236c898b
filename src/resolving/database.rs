//! `Database`: how to reach each of its servers.

use kube::ResourceExt;
use secrecy::ExposeSecret;

use super::{Lookup, Resolved, Unresolved, source, text};
use crate::{
    api::{
        shared::SecretKeyRef,
        v1alpha1::{
            Database,
            database::{CredentialsRef, DatabaseSpec, Engine, Tls, TlsMode},
        },
    },
    backends::database::{
        Credential, PoolSettings, ServerSettings,
        uri::{self, Uri},
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
) -> Result<Resolved<ServerSettings>, Unresolved> {
    let spec = &database.spec;
    let lookup = Lookup { references, namespace: &database.namespace().unwrap_or_default() };
    let target = match &spec.uri_secret_ref {
        Some(reference) => from_uri(lookup, spec, reference).await?,
        None => from_fields(lookup, spec).await?,
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
            options: target.options.clone(),
            ignored_options: target.ignored.clone(),
            tls: tls.clone(),
            pool: PoolSettings::from(&spec.pool),
            timeout: spec.health_check.timeout.get(),
        })
        .collect();
    Ok(Resolved { targets, schedule: Schedule::from(&spec.health_check), source })
}

async fn from_fields(lookup: Lookup<'_>, spec: &DatabaseSpec) -> Result<Uri, Unresolved> {
    let port = |own: Option<u16>| own.or(spec.port).unwrap_or(spec.engine.default_port());
    let hosts = match (&spec.host, &spec.hosts) {
        (Some(host), _) => vec![(host.clone(), port(None))],
        (None, Some(hosts)) => hosts.iter().map(|host| (host.host.clone(), port(host.port))).collect(),
        (None, None) => Vec::new(),
    };
    let credential = match &spec.credentials_ref {
        Some(reference) => credential(lookup, reference, spec.engine).await?,
        None => Credential::default(),
    };
    let (database, auth_source) = (spec.database.clone(), spec.auth_source.clone());
    Ok(Uri { hosts, credential, database, auth_source, ..Uri::default() })
}

async fn from_uri(
    lookup: Lookup<'_>,
    spec: &DatabaseSpec,
    reference: &SecretKeyRef,
) -> Result<Uri, Unresolved> {
    let secret = lookup.secret(&reference.name).await?;
    let text = text(&secret, &reference.name, &reference.key)?;
    let invalid = |problem| Unresolved::SecretInvalidValue {
        name: format!("the Secret {}", reference.name),
        key: reference.key.clone(),
        problem,
    };
    let uri = uri::parse(spec.engine, text.expose_secret())
        .map_err(|problem| invalid(format!("is not a URI for {}: it {problem}", spec.engine.as_str())))?;
    if let Some(field) = left_unused(&spec.tls, uri.tls) {
        return Err(invalid(format!(
            "is a URI whose TLS mode makes no use of spec.tls.{field}: change it there, or set spec.tls.mode"
        )));
    }
    contradiction(&spec.tls, &uri).map_or(Ok(uri), |problem| Err(invalid(problem)))
}

/// Options of the URI that only a field of the spec can honour, or that contradict one.
fn contradiction(tls: &Tls, uri: &Uri) -> Option<String> {
    if uri.public_ca && tls.ca_ref.is_some() {
        return Some(
            "is a URI with sslrootcert=system, and spec.tls.caRef names other authorities: remove one of them".to_owned(),
        );
    }
    let files = [
        (&uri.ca_files, tls.ca_ref.is_some(), "caRef"),
        (&uri.client_files, tls.client_cert_ref.is_some(), "clientCertRef"),
    ];
    files.into_iter().find_map(|(options, is_set, field)| {
        let option = options.first().filter(|_| !is_set)?;
        Some(format!("is a URI whose option {option} names a file, which is not read: set spec.tls.{field}"))
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

async fn credential(
    lookup: Lookup<'_>,
    reference: &CredentialsRef,
    engine: Engine,
) -> Result<Credential, Unresolved> {
    let CredentialsRef { name, username, username_key, password_key } = reference;
    let secret = lookup.secret(name).await?;
    let username_key = username_key.as_deref().unwrap_or("username");
    let username = match (username, text(&secret, name, username_key)) {
        (Some(username), _) => username.clone(),
        (None, Ok(username)) => username.expose_secret().to_owned(),
        // Redis knows logins without a user name (`requirepass`).
        (None, Err(Unresolved::SecretMissingKeys { .. })) if engine == Engine::Redis => String::new(),
        (None, Err(error)) => return Err(error),
    };
    if username.is_empty() && engine != Engine::Redis {
        return Err(Unresolved::SecretInvalidValue {
            name: format!("the Secret {name}"),
            key: username_key.to_owned(),
            problem: "is empty".to_owned(),
        });
    }
    let password = text(&secret, name, password_key.as_deref().unwrap_or("password"))?;
    Ok(Credential::new(username, password.expose_secret().to_owned()))
}
