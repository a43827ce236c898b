//! The credential, put into the headers of a request.

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

use super::{Authorization, EndpointSettings, tokens::Tokens};
use crate::{
    api::Reason,
    backends::{Fault, http::Egress, transport::Tls},
};

/// The credential as headers.
pub(super) struct Authenticator {
    /// Those that never change.
    fixed: Vec<(HeaderName, HeaderValue)>,
    tokens: Option<Tokens>,
}

impl Authenticator {
    /// # Errors
    /// `SecretInvalidValue` for a value that a header cannot carry, `InvalidSpec` for a token URL that is none.
    pub(super) fn new(settings: &EndpointSettings, egress: Egress, tls: &Tls) -> Result<Self, Fault> {
        let mut fixed = Vec::new();
        let mut tokens = None;
        match &settings.credential.authorization {
            Authorization::None => {}
            Authorization::Bearer(token) => fixed.push((AUTHORIZATION, bearer(token)?)),
            Authorization::Basic { username, password } => {
                fixed.push((AUTHORIZATION, basic(username, password)?));
            }
            Authorization::OAuth2(client) => tokens = Some(Tokens::new(client, egress, tls)?),
        }
        if let Some(api_key) = &settings.credential.api_key {
            let name = HeaderName::try_from(&api_key.header)
                .map_err(|_| Fault::new(Reason::InvalidSpec, "the API key's header has no valid name"))?;
            fixed.push((name, sensitive(api_key.key.expose_secret(), "API key")?));
        }
        Ok(Self { fixed, tokens })
    }

    /// Puts the credential in place of whatever the headers have of their names. Gives the token that may turn out to
    /// be refused.
    ///
    /// # Errors
    /// What the token server says.
    pub(super) async fn apply(&self, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Fault> {
        for (name, value) in &self.fixed {
            headers.insert(name, value.clone());
        }
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let token = tokens.get().await?;
        headers.insert(AUTHORIZATION, token.clone());
        Ok(Some(token))
    }

    /// The server refused this token: the next request gets another one.
    pub(super) fn refused(&self, token: &HeaderValue) {
        if let Some(tokens) = &self.tokens {
            tokens.refused(token);
        }
    }
}

/// `Bearer` with a token (RFC 6750, section 2.1).
///
/// # Errors
/// A token that a header cannot carry.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, Fault> {
    sensitive(&format!("Bearer {}", token.expose_secret()), "token")
}

/// `Basic` with user and password (RFC 7617, section 2).
///
/// # Errors
/// A user name that has a colon, where the password would begin.
pub(super) fn basic(username: &str, password: &SecretString) -> Result<HeaderValue, Fault> {
    if username.contains(':') {
        return Err(Fault::new(Reason::SecretInvalidValue, "the user name must not have a colon"));
    }
    let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose_secret()));
    sensitive(&format!("Basic {pair}"), "password")
}

/// Neither logged nor put into HTTP/2's table of headers.
fn sensitive(text: &str, what: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        let problem = format!("the {what} has characters that a header cannot carry, such as a line break");
        Fault::new(Reason::SecretInvalidValue, problem)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_base64_of_utf_8() {
        // The second example of RFC 7617, section 2.1.
        assert_eq!(basic("test", &"123£".into()).unwrap(), "Basic dGVzdDoxMjPCow==");
        assert_eq!(basic("a:b", &"c".into()).unwrap_err().reason, Reason::SecretInvalidValue);
    }

    #[test]
    fn a_token_that_would_end_its_header_is_refused_without_being_told() {
        let fault = bearer(&"hunter2\r\nX-Admin: yes".into()).unwrap_err();
        assert_eq!(fault.reason, Reason::SecretInvalidValue);
        assert!(!fault.detail.contains("hunter2"), "{fault}");
        assert!(!format!("{:?}", bearer(&"hunter2".into()).unwrap()).contains("hunter2"));
    }
}
