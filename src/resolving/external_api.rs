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
            external_api::{Auth, Basic, ClientAuth, Endpoint, OAuth2, Tls},
        },
    },
    backends::{
        external_api::{
            ApiKey, Authorization, Base, Check, ClientAuthentication, ClientCredentials, Credential,
            EndpointSettings,
        },
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
        let base = base(endpoint, spec.tls.server_name.as_deref())?;
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

/// The base URL of an endpoint, and the host that requests name.
fn base(endpoint: &Endpoint, server_name: Option<&str>) -> Result<Base, Unresolved> {
    let invalid = |field: &str, problem: &str| Unresolved::Invalid {
        field: format!("spec.endpoints {field} {}", endpoint.url),
        problem: problem.to_owned(),
    };
    let base = Base::parse(&endpoint.url).map_err(|problem| invalid("url", problem))?;
    let named = server_name.filter(|_| base.encrypted()).map(|name| base.host_of(name));
    match endpoint.host.clone().or(named) {
        Some(host) => base.with_request_host(&host).map_err(|problem| invalid("host of", problem)),
        None => Ok(base),
    }
}

async fn credential(lookup: Lookup<'_>, auth: &Auth) -> Result<Credential, Unresolved> {
    let authorization = if let Some(bearer) = &auth.bearer {
        Authorization::Bearer(value(lookup, &bearer.token_ref).await?)
    } else if let Some(Basic { secret_ref }) = &auth.basic {
        let (username, password) = user(lookup, secret_ref).await?;
        Authorization::Basic { username, password }
    } else if let Some(oauth2) = &auth.oauth2 {
        Authorization::OAuth2(client(lookup, oauth2).await?)
    } else {
        Authorization::None
    };
    let api_key = match &auth.api_key {
        Some(key) => Some(ApiKey { header: key.header.clone(), key: value(lookup, &key.key_ref).await? }),
        None => None,
    };
    Ok(Credential { authorization, api_key })
}

async fn client(lookup: Lookup<'_>, oauth2: &OAuth2) -> Result<ClientCredentials, Unresolved> {
    let authentication = match (oauth2.client_auth, &oauth2.client_secret_ref, &oauth2.private_key_jwt) {
        (ClientAuth::Basic, Some(secret), _) => ClientAuthentication::Basic(value(lookup, secret).await?),
        (ClientAuth::Post, Some(secret), _) => ClientAuthentication::Post(value(lookup, secret).await?),
        (ClientAuth::PrivateKeyJwt, _, Some(jwt)) => ClientAuthentication::PrivateKeyJwt {
            key: value(lookup, &jwt.key_ref).await?,
            key_id: jwt.key_id.clone(),
            audience: jwt.audience.clone(),
        },
        // The schema lets nothing else through.
        _ => {
            let problem =
                "has neither a secret nor a private key that fits auth.oauth2.clientAuth".to_owned();
            return Err(Unresolved::Invalid { field: "spec.auth.oauth2".to_owned(), problem });
        }
    };
    let ca = match &oauth2.ca_ref {
        Some(reference) => Some(lookup.ca(reference).await?),
        None => None,
    };
    Ok(ClientCredentials {
        scopes: oauth2.scopes.clone(),
        audience: oauth2.audience.clone(),
        params: oauth2.params.clone(),
        ca,
        ..ClientCredentials::new(&oauth2.token_url, &oauth2.client_id, authentication)
    })
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
