//! `ExternalApi`: how to reach each of its endpoints, and what calls carry.

use kube::ResourceExt;
use secrecy::ExposeSecret;

use super::{Lookup, Resolved, Unresolved, source, text};
use crate::{
    api::{
        shared::{SecretRef, SecretValueRef},
        v1alpha1::{
            ExternalApi,
            database::TlsMode,
            external_api::{Auth, Basic, OAuth2, Tls},
        },
    },
    backends::{
        external_api::{ApiKey, Authorization, Base, Check, ClientCredentials, Credential, EndpointSettings},
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
    api: &ExternalApi,
    references: &dyn References,
) -> Result<Resolved<EndpointSettings>, Unresolved> {
    let spec = &api.spec;
    let lookup = Lookup { references, namespace: &api.namespace().unwrap_or_default() };
    let Tls { ca_ref, client_cert_ref, .. } = &spec.tls;
    let tls = lookup.tls(TlsMode::VerifyFull, ca_ref.as_ref(), client_cert_ref.as_ref()).await?;
    let credential = credential(lookup, &spec.auth).await?;
    let source = source(lookup, api.secrets(), |salt| credential.fingerprint(&tls, salt)).await?;
    let check = Check::from(&spec.health_check);
    let timeout = spec.health_check.schedule.timeout.get();
    let mut targets = Vec::new();
    for endpoint in &spec.endpoints {
        let base = Base::parse(&endpoint.url).map_err(|problem| Unresolved::Invalid {
            field: format!("spec.endpoints url {}", endpoint.url),
            problem: problem.to_owned(),
        })?;
        targets.push(EndpointSettings {
            // What http would carry in the clear, and nobody would check.
            tls: if base.encrypted() { tls.clone() } else { TlsSettings { client: None, ..tls.clone() } },
            base,
            credential: credential.clone(),
            server_name: spec.tls.server_name.clone(),
            check: check.clone(),
            timeout,
        });
    }
    Ok(Resolved { targets, schedule: Schedule::from(&spec.health_check.schedule), source })
}

async fn credential(lookup: Lookup<'_>, auth: &Auth) -> Result<Credential, Unresolved> {
    let authorization = if let Some(bearer) = &auth.bearer {
        Authorization::Bearer(value(lookup, &bearer.token_ref).await?)
    } else if let Some(Basic { secret_ref }) = &auth.basic {
        let (username, password) = user(lookup, secret_ref).await?;
        Authorization::Basic { username, password }
    } else if let Some(OAuth2 { token_url, client_id, client_secret_ref, scopes }) = &auth.oauth2 {
        Authorization::OAuth2(ClientCredentials {
            token_url: token_url.clone(),
            client_id: client_id.clone(),
            client_secret: value(lookup, client_secret_ref).await?,
            scopes: scopes.clone(),
        })
    } else {
        Authorization::None
    };
    let api_key = match &auth.api_key {
        Some(key) => Some(ApiKey { header: key.header.clone(), key: value(lookup, &key.key_ref).await? }),
        None => None,
    };
    Ok(Credential { authorization, api_key })
}

async fn value(lookup: Lookup<'_>, reference: &SecretValueRef) -> Result<secrecy::SecretString, Unresolved> {
    let secret = lookup.secret(&reference.name).await?;
    text(&secret, &reference.name, &reference.key)
}

async fn user(
    lookup: Lookup<'_>,
    reference: &SecretRef,
) -> Result<(String, secrecy::SecretString), Unresolved> {
    let name = &reference.name;
    let secret = lookup.secret(name).await?;
    if !["Opaque", "kubernetes.io/basic-auth"].contains(&secret.type_.as_str()) {
        return Err(Unresolved::SecretWrongType {
            name: name.clone(),
            type_: secret.type_.clone(),
            wanted: "kubernetes.io/basic-auth or Opaque",
        });
    }
    let username = text(&secret, name, "username")?.expose_secret().to_owned();
    Ok((username, text(&secret, name, "password")?))
}
