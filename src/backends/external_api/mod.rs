//! One endpoint of an HTTP API, with one credential: calls and probes.

mod auth;
mod base;
mod client_assertion;
mod client_credentials;
mod header_values;
mod reference;
mod settings;
mod token_request;
mod tokens;

use http::uri::PathAndQuery;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{
    Fault,
    http::{self as client, AnswerBody, Body, Client, Connections, Egress, Failure, Stage},
};
use crate::api::Reason;

pub use base::Base;
pub use client_credentials::{ClientAuthentication, ClientCredentials};
pub use reference::Reference;
pub use settings::{ApiKey, Authorization, Check, Credential, EndpointSettings, Expectation};

use auth::Authenticator;

/// The header `User-Agent` of probes and token requests.
const USER_AGENT_VALUE: &str = concat!("authlink/", env!("CARGO_PKG_VERSION"));

/// How much of a response body a probe reads, in bytes.
const MAX_READ: usize = 64 * 1024;

/// One endpoint with one credential.
pub struct HttpEndpoint {
    settings: EndpointSettings,
    auth: Authenticator,
    calls: Client,
    probes: Client,
}

/// What a probe finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When the server's certificate expires; of several behind one name, the earliest. None without TLS.
    pub not_after: Option<Timestamp>,
    /// Whether it negotiates HTTP/2.
    pub http2: bool,
    /// Why there is no access token for calls, where they need one (OAuth 2.0).
    pub token_fault: Option<Fault>,
}

impl HttpEndpoint {
    /// Connects at the first probe or call.
    ///
    /// # Errors
    /// A credential, a certificate or a URL that cannot be used.
    pub fn new(settings: EndpointSettings, egress: &Egress) -> Result<Self, Fault> {
        let tls = client::tls(&settings.tls)?;
        let auth = Authenticator::new(&settings, egress.clone(), &tls)?;
        let (server, name) = (settings.base.server()?, settings.server_name.as_deref());
        let client = |connections| Client::new(&server, egress.clone(), &tls, name, connections);
        let (calls, probes) =
            (client(Connections::Pooled), client(Connections::Fresh(settings.timeout * 9 / 10)));
        Ok(Self { settings, auth, calls, probes })
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.settings.endpoint()
    }

    /// Its base URL.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.settings.base
    }

    /// Runs the health check over a new connection, so that name, address and certificate are checked each time.
    ///
    /// # Errors
    /// Why there is no response, or `UnexpectedStatus`, `UnexpectedBody`; with the credential also `AuthenticationFailed` (401)
    /// and `PermissionDenied` (403).
    pub async fn probe(&self) -> Result<Facts, Fault> {
        self.probe_and_read(|_, _| ()).await
    }

    /// The same, and passes the headers and the first 64 KiB of the body of an expected response to `read`, which is not called
    /// where the health check sends no request.
    ///
    /// # Errors
    /// As above.
    pub async fn probe_and_read(&self, read: impl FnOnce(&HeaderMap, &[u8]) + Send) -> Result<Facts, Fault> {
        // Longer than the timeout of connecting and shorter than that of the whole probe: so the fault always names the same
        // stage, and an unchanged status has the same text.
        let deadline = Instant::now() + self.settings.timeout * 19 / 20;
        let checked = async {
            match &self.settings.check {
                Check::None => Ok(()),
                Check::Tcp => timeout_at(deadline, self.probes.check_connect())
                    .await
                    .unwrap_or_else(|_| Err(Fault::new(Reason::Timeout, "the TCP connection timed out"))),
                Check::Http(expectation) => {
                    self.check(expectation, deadline).await.map(|(headers, body)| read(&headers, &body))
                }
            }
        };
        let (checked, token) = tokio::join!(checked, self.token(deadline));
        checked.map_err(|fault| self.settings.redact(fault))?;
        let token_fault = token.err().map(|fault| self.settings.redact(fault));
        let peer = self.probes.peer();
        let (not_after, http2) = (peer.and_then(|it| it.not_after), peer.is_some_and(|it| it.http2));
        Ok(Facts { not_after, http2, token_fault })
    }

    /// Whether calls have an access token, where they need one: no call succeeds without the token endpoint.
    async fn token(&self, deadline: Instant) -> Result<(), Fault> {
        match self.settings.check {
            Check::None => Ok(()),
            _ => timeout_at(deadline, self.auth.check()).await.unwrap_or_else(|_| Err(token_timed_out())),
        }
    }

    async fn check(
        &self,
        expectation: &Expectation,
        deadline: Instant,
    ) -> Result<(HeaderMap, Vec<u8>), Fault> {
        let path = expectation.path.parse().map_err(|_| {
            Fault::new(
                Reason::InvalidSpec,
                "healthCheck.http.path contains characters that must be percent-encoded",
            )
        })?;
        let mut request = Request::new(client::Body::empty());
        *request.method_mut() = Method::from_bytes(expectation.method.as_str().as_bytes())
            .map_err(|_| Fault::new(Reason::InvalidSpec, "healthCheck.http.method is not a valid method"))?;
        *request.uri_mut() = self.settings.probe_base(expectation)?.join(&path)?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        for (name, value) in &expectation.headers {
            let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let problem = || format!("healthCheck.http.headers: {name} is not a valid header");
            let (name, value) = header.ok_or_else(|| Fault::new(Reason::InvalidSpec, problem()))?;
            headers.insert(name, value);
        }
        let mut token = None;
        if expectation.authenticated {
            token = self.credential(request.headers_mut(), deadline).await?;
        }
        let response = self.probes.send(request, deadline).await?;
        self.note_refusal(&response, token.as_ref());
        evaluate(expectation, response).await
    }

    /// Sends a request whose URI is a path, relative to the endpoint's URL, and returns the response once its head has arrived.
    /// `Host` and the credential replace those of the request; everything else is sent as it is. Redirects are not followed,
    /// and no status is a fault.
    ///
    /// # Errors
    /// Why there is no response; `Timeout` at the deadline, which holds for the response's body too.
    pub async fn call(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let token = self.prepare(&mut request, deadline).await?;
        self.finish(self.calls.send(request, deadline).await, token.as_ref())
    }

    /// The same for a request with the header `Upgrade`. With status 101 the connection is had by [`hyper::upgrade::on`] the
    /// response.
    ///
    /// # Errors
    /// As above.
    pub async fn upgrade(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let token = self.prepare(&mut request, deadline).await?;
        self.finish(self.calls.upgrade(request, deadline).await, token.as_ref())
    }

    /// Sets URI, host and credential.
    async fn prepare(
        &self,
        request: &mut Request<Body>,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Failure> {
        let at = |stage| move |fault| Failure { stage, fault };
        let root = PathAndQuery::from_static("/");
        let uri = self.settings.base.join(request.uri().path_and_query().unwrap_or(&root));
        *request.uri_mut() = uri.map_err(at(Stage::Connect))?;
        // The connection decides on the version, and the host is that of the URI.
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(HOST);
        let credential = self.credential(request.headers_mut(), deadline).await;
        credential.map_err(at(Stage::Credential))
    }

    fn finish(
        &self,
        response: Result<Response<AnswerBody>, Failure>,
        token: Option<&HeaderValue>,
    ) -> Result<Response<AnswerBody>, Failure> {
        let redacted = |failure: Failure| Failure { fault: self.settings.redact(failure.fault), ..failure };
        let response = response.map_err(redacted)?;
        self.note_refusal(&response, token);
        Ok(response)
    }

    async fn credential(
        &self,
        headers: &mut HeaderMap,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Fault> {
        timeout_at(deadline, self.auth.apply(headers)).await.unwrap_or_else(|_| Err(token_timed_out()))
    }

    fn note_refusal(&self, response: &Response<AnswerBody>, token: Option<&HeaderValue>) {
        if let (StatusCode::UNAUTHORIZED, Some(token)) = (response.status(), token) {
            self.auth.refused(token);
        }
    }
}

fn token_timed_out() -> Fault {
    Fault::new(Reason::Timeout, "token endpoint: waiting for the response timed out")
}

/// Whether the response is as the health check expects. Its body is read too, since a server that closes the connection in the
/// middle of it is not healthy.
async fn evaluate(
    expectation: &Expectation,
    response: Response<AnswerBody>,
) -> Result<(HeaderMap, Vec<u8>), Fault> {
    let status = response.status();
    if !expectation.statuses.iter().any(|expected| expected.contains(&status.as_u16())) {
        return Err(unexpected(status, expectation.authenticated));
    }
    let (head, body) = response.into_parts();
    let body = body.first(MAX_READ).await?;
    match &expectation.body {
        Some(text) if !contains(&body, text.as_bytes()) => {
            Err(Fault::new(Reason::UnexpectedBody, "the response body does not contain the expected text"))
        }
        _ => Ok((head.headers, body)),
    }
}

fn unexpected(status: StatusCode, authenticated: bool) -> Fault {
    let reason = match status {
        StatusCode::UNAUTHORIZED if authenticated => Reason::AuthenticationFailed,
        StatusCode::FORBIDDEN if authenticated => Reason::PermissionDenied,
        _ => Reason::UnexpectedStatus,
    };
    let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Fault::new(reason, format!("the health check got status {status}{redirect}"))
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len().max(1)).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_anywhere_in_a_body() {
        assert!(contains(b"ok", b"ok") && contains(b"not ok", b"ok") && contains(b"ok then", b"ok"));
        assert!(!contains(b"", b"ok") && !contains(b"o", b"ok") && !contains(b"o k", b"ok"));
    }

    #[test]
    fn only_a_check_with_the_credential_blames_the_credential() {
        let reason = |status, authenticated| unexpected(status, authenticated).reason;
        assert_eq!(reason(StatusCode::UNAUTHORIZED, true), Reason::AuthenticationFailed);
        assert_eq!(reason(StatusCode::FORBIDDEN, true), Reason::PermissionDenied);
        assert_eq!(reason(StatusCode::UNAUTHORIZED, false), Reason::UnexpectedStatus);
        let redirect = unexpected(StatusCode::FOUND, true);
        assert_eq!(redirect.reason, Reason::UnexpectedStatus);
        assert_eq!(redirect.detail, "the health check got status 302 Found, and redirects are not followed");
    }
}
