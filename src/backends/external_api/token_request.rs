//! One request to a token endpoint, and its response (RFC 6749, sections 4.4.2, 5.1 and 5.2).

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::{
    ClientAuthentication, ClientCredentials, USER_AGENT_VALUE, client_assertion::AssertionSigner,
    header_values,
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{AnswerBody, Body},
    },
};

/// The lifetime of a token whose response does not tell it.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(5);

/// Largest token response, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// The characters that `application/x-www-form-urlencoded` does not encode.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The requests of one client.
pub(super) struct TokenRequest {
    uri: Uri,
    /// The form, without an assertion. It may hold the client's secret.
    form: SecretString,
    authorization: Option<HeaderValue>,
    signer: Option<AssertionSigner>,
    /// The word of `clientAuth`, for errors.
    client_auth: &'static str,
}

/// A token, as the value of `Authorization`.
pub(super) struct AccessToken {
    pub(super) header: HeaderValue,
    pub(super) lifetime: Duration,
}

impl TokenRequest {
    /// # Errors
    /// A URL, a secret or a key that cannot be used.
    pub(super) fn new(client: &ClientCredentials) -> Result<Self, Fault> {
        let uri = client.token_url.parse().map_err(|_| {
            let problem =
                "auth.oauth2.tokenUrl is not a valid URL, or contains characters that must be percent-encoded";
            Fault::new(Reason::InvalidSpec, problem)
        })?;
        let mut form = "grant_type=client_credentials".to_owned();
        if !client.scopes.is_empty() {
            push(&mut form, "scope", &client.scopes.join(" "));
        }
        if let Some(audience) = &client.audience {
            push(&mut form, "audience", audience);
        }
        client.params.iter().for_each(|(name, value)| push(&mut form, name, value));
        let (mut authorization, mut signer) = (None, None);
        match &client.authentication {
            ClientAuthentication::Basic(secret) => {
                // Section 2.3.1: both are form-encoded before they are joined.
                let secret = SecretString::from(encoded(secret.expose_secret()));
                authorization = Some(header_values::basic(&encoded(&client.client_id), &secret)?);
            }
            ClientAuthentication::Post(secret) => {
                push(&mut form, "client_id", &client.client_id);
                push(&mut form, "client_secret", secret.expose_secret());
            }
            ClientAuthentication::PrivateKeyJwt { key, key_id, audience } => {
                push(&mut form, "client_id", &client.client_id);
                push(
                    &mut form,
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                );
                let audience = audience.as_ref().unwrap_or(&client.token_url);
                let client_id = client.client_id.clone();
                signer = Some(AssertionSigner::new(key, key_id.clone(), client_id, audience.clone())?);
            }
        }
        let client_auth = client.authentication.name();
        Ok(Self { uri, form: form.into(), authorization, signer, client_auth })
    }

    /// The token endpoint.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The next request; each has an assertion of its own.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn build(&self) -> Result<Request<Body>, Fault> {
        let mut form = self.form.expose_secret().to_owned();
        if let Some(signer) = &self.signer {
            push(&mut form, "client_assertion", &signer.sign(Timestamp::now())?);
        }
        let mut request = Request::new(Body::whole(form));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.uri);
        let headers = request.headers_mut();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        Ok(request)
    }

    /// The token of a response.
    ///
    /// # Errors
    /// The server refused the client or the request, or the response is no token response.
    pub(super) async fn read(&self, response: Response<AnswerBody>) -> Result<AccessToken, Fault> {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE)
            .collect()
            .await
            .map_err(|error| error.downcast::<Fault>().map_or_else(|_| no_token(), |fault| *fault))?;
        // Not the parser's error: it could quote the token.
        let parsed = serde_json::from_slice::<TokenResponse>(&body.to_bytes()).ok();
        match parsed {
            // Some servers tell of errors with status 200.
            Some(TokenResponse { access_token: None, error: Some(code), .. }) => {
                Err(self.refusal(status, Some(&code)))
            }
            _ if !status.is_success() => Err(self.refusal(status, None)),
            Some(TokenResponse { access_token: Some(token), token_type, expires_in, .. }) => {
                if !token_type.is_none_or(|kind| is_bearer(&kind)) {
                    return Err(Fault::new(Reason::ProtocolError, "the token_type is not Bearer"));
                }
                let header = header_values::bearer(&token).map_err(|_| no_token())?;
                Ok(AccessToken { header, lifetime: lifetime(&expires_in) })
            }
            _ => Err(no_token()),
        }
    }

    /// The fault of an error response. Of its texts only the code is repeated, if it is a registered one.
    fn refusal(&self, status: StatusCode, code: Option<&str>) -> Fault {
        let reason = match (code, status.as_u16()) {
            (Some("invalid_client"), _) => Reason::AuthenticationFailed,
            (Some("unauthorized_client" | "invalid_scope" | "invalid_target" | "access_denied"), _) => {
                Reason::PermissionDenied
            }
            (Some("invalid_request" | "invalid_grant" | "unsupported_grant_type"), _) => {
                Reason::ProtocolError
            }
            (_, 401) => {
                return Fault::new(Reason::AuthenticationFailed, self.client_refused("401 Unauthorized"));
            }
            (_, 403) => {
                return Fault::new(Reason::PermissionDenied, "the client was refused (403 Forbidden)");
            }
            (_, 429 | 500..) => return Fault::new(Reason::Unavailable, format!("got status {status}")),
            _ => return Fault::new(Reason::ProtocolError, format!("got status {status}")),
        };
        let code = code.unwrap_or_default();
        let detail = if reason == Reason::AuthenticationFailed {
            self.client_refused(code)
        } else {
            format!("the request was refused ({code}); check auth.oauth2.scopes, audience and params")
        };
        Fault::new(reason, detail)
    }

    fn client_refused(&self, why: &str) -> String {
        format!("the client was refused ({why}) with auth.oauth2.clientAuth {}", self.client_auth)
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

/// Adds a parameter to a form.
fn push(form: &mut String, name: &str, value: &str) {
    form.extend(["&", &encoded(name), "=", &encoded(value)]);
}

/// Sections 5.1 and 5.2.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<SecretString>,
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Value,
    error: Option<String>,
}

/// `Bearer`, and what some servers send in its place, such as `BearerToken` and `bearer_token`.
fn is_bearer(token_type: &str) -> bool {
    token_type.get(.."bearer".len()).is_some_and(|start| start.eq_ignore_ascii_case("bearer"))
}

/// A number of seconds, which some servers send with a fraction or as a string. What is not above zero tells nothing.
fn lifetime(expires_in: &Value) -> Duration {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let known = seconds.filter(|seconds| *seconds > 0.0);
    known.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(DEFAULT_LIFETIME)
}

fn no_token() -> Fault {
    Fault::new(Reason::ProtocolError, "the response is not a token response of OAuth 2.0")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lifetime_is_read_however_it_is_written() {
        let seconds = |value: Value| lifetime(&value).as_secs_f64();
        for (written, read) in [
            (json!(3600), 3600.0),
            (json!(3600.0), 3600.0),
            (json!(0.5), 0.5),
            (json!("3599"), 3599.0),
            (json!(" 3599.0 "), 3599.0),
        ] {
            assert!((seconds(written.clone()) - read).abs() < f64::EPSILON, "{written}");
        }
        for nothing in
            [json!(null), json!(0), json!(-1), json!("-1"), json!(1e300), json!("soon"), json!([60])]
        {
            assert_eq!(lifetime(&nothing), DEFAULT_LIFETIME, "{nothing}");
        }
    }

    #[test]
    fn bearer_is_recognized_by_its_first_word() {
        assert!(["Bearer", "bearer", "BEARER", "BearerToken", "bearer_token"].into_iter().all(is_bearer));
        assert!(!["", "mac", "DPoP", "N_A", "bear"].into_iter().any(is_bearer));
    }

    #[test]
    fn a_refusal_repeats_the_code_and_no_other_text_of_the_server() {
        let client = ClientCredentials::new("http://localhost", "a", ClientAuthentication::Post("s".into()));
        let request = TokenRequest::new(&client).unwrap();
        let refused = |status, code| request.refusal(StatusCode::from_u16(status).unwrap(), code);
        let known = refused(400, Some("invalid_client"));
        let detail = "the client was refused (invalid_client) with auth.oauth2.clientAuth Post";
        assert_eq!(known, Fault::new(Reason::AuthenticationFailed, detail));
        let target = refused(400, Some("invalid_target"));
        assert_eq!(target.reason, Reason::PermissionDenied);
        assert!(target.detail.contains("check auth.oauth2.scopes, audience and params"), "{target}");
        let unknown = refused(401, Some("no such secret: hunter2"));
        assert_eq!(unknown.reason, Reason::AuthenticationFailed);
        assert!(!unknown.detail.contains("hunter2"), "{unknown}");
        assert_eq!(refused(503, None).reason, Reason::Unavailable);
        assert_eq!(refused(302, None).reason, Reason::ProtocolError);
    }
}
