//! Adds the credential to the headers of a request.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use secrecy::ExposeSecret;

use super::{
    Authorization, EndpointSettings,
    header_values::{basic, bearer, sensitive},
    tokens::Tokens,
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{self, Egress},
        transport::{Tls, TlsSettings},
    },
};

/// The credential as headers.
pub(super) struct Authenticator {
    /// Headers that never change.
    fixed: Vec<(HeaderName, HeaderValue)>,
    tokens: Option<Tokens>,
}

impl Authenticator {
    /// # Errors
    /// `SecretInvalidValue` for a value that a header cannot carry, `InvalidSpec` for an invalid token URL.
    pub(super) fn new(settings: &EndpointSettings, egress: Egress, tls: &Tls) -> Result<Self, Fault> {
        let mut fixed = Vec::new();
        let mut tokens = None;
        match &settings.credential.authorization {
            Authorization::None => {}
            Authorization::Bearer(token) => fixed.push((AUTHORIZATION, bearer(token)?)),
            Authorization::Basic { username, password } => {
                fixed.push((AUTHORIZATION, basic(username, password)?));
            }
            Authorization::OAuth2(client) => {
                let own =
                    client.ca.as_ref().map(|ca| TlsSettings { ca: Some(ca.clone()), ..settings.tls.clone() });
                let own = own.map(|settings| http::tls(&settings)).transpose()?;
                tokens = Some(Tokens::new(client, egress, own.as_ref().unwrap_or(tls))?);
            }
        }
        if let Some(api_key) = &settings.credential.api_key {
            let name = HeaderName::try_from(&api_key.header).map_err(|_| {
                Fault::new(Reason::InvalidSpec, "auth.apiKey.header is not a valid header name")
            })?;
            fixed.push((name, sensitive(api_key.key.expose_secret(), "API key")?));
        }
        Ok(Self { fixed, tokens })
    }

    /// Sets the credential's headers, replacing any of the same names. Returns the access token, which the API may refuse.
    ///
    /// # Errors
    /// Why there is no access token.
    pub(super) async fn apply(&self, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Fault> {
        for (name, value) in &self.fixed {
            headers.insert(name, value.clone());
        }
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let token = tokens.get().await?;
        headers.insert(AUTHORIZATION, token.clone());
        Ok(Some(token))
    }

    /// Whether there is an access token, of a kind that is fetched.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        match &self.tokens {
            Some(tokens) => tokens.get().await.map(drop),
            None => Ok(()),
        }
    }

    /// The API refused this access token: another one is fetched.
    pub(super) fn refused(&self, token: &HeaderValue) {
        if let Some(tokens) = &self.tokens {
            tokens.refused(token);
        }
    }
}
