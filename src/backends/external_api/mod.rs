//! One endpoint of an HTTP API, with one credential: what can be asked of it.

mod auth;
mod base;
mod settings;
mod tokens;

use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, HOST, HeaderValue, USER_AGENT},
};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{
    Fault,
    http::{self as client, AnswerBody, Body, Client, Connections, Egress, Failure, Stage},
};
use crate::api::Reason;

pub use base::Base;
pub use settings::{
    ApiKey, Authorization, Check, ClientCredentials, Credential, EndpointSettings, Expectation,
};

use auth::Authenticator;

/// Who probes, and who fetches tokens.
const USER: &str = concat!("authlink/", env!("CARGO_PKG_VERSION"));

/// How much of an answer a probe reads, in bytes.
const MAX_READ: usize = 64 * 1024;

/// One endpoint with one credential.
pub struct HttpEndpoint {
    settings: EndpointSettings,
    auth: Authenticator,
    calls: Client,
    probes: Client,
}

/// What a probe learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When the server's certificate expires, of several behind one name the first that does; none without TLS.
    pub not_after: Option<Timestamp>,
    /// Whether it speaks HTTP/2 with us.
    pub http2: bool,
}

impl HttpEndpoint {
    /// Prepares everything, and connects at the first probe or call.
    ///
    /// # Errors
    /// A credential, a certificate or a URL that cannot be used.
    pub fn new(settings: EndpointSettings, egress: &Egress) -> Result<Self, Fault> {
        let tls = client::tls(&settings.tls)?;
        let auth = Authenticator::new(&settings, egress.clone(), &tls)?;
        let reach =
            |connections| Client::new(egress.clone(), &tls, settings.server_name.as_deref(), connections);
        let (calls, probes) =
            (reach(Connections::Pooled), reach(Connections::Fresh(settings.timeout * 9 / 10)));
        Ok(Self { settings, auth, calls, probes })
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.settings.endpoint()
    }

    /// Asks what the health check says, over a connection of its own: name, address, certificate and server are all
    /// looked at anew.
    ///
    /// # Errors
    /// What kept the answer from coming, or `UnexpectedStatus`, `UnexpectedBody`; with the credential also
    /// `AuthenticationFailed` (401) and `PermissionDenied` (403).
    pub async fn probe(&self) -> Result<Facts, Fault> {
        self.probe_and_read(|_, _| ()).await
    }

    /// The same, and lets `read` see the head and the first 64 KiB of the body of an answer that is as expected; there is
    /// none where the health check asks no request.
    ///
    /// # Errors
    /// As above.
    pub async fn probe_and_read(&self, read: impl FnOnce(&HeaderMap, &[u8]) + Send) -> Result<Facts, Fault> {
        // Sooner than whoever waits for the probe gives up, and later than connecting does: so it is always the same of
        // the three that says what was waited for, and a status that nothing changed has the same text.
        let deadline = Instant::now() + self.settings.timeout * 19 / 20;
        let asked = match &self.settings.check {
            Check::None => return Ok(Facts::default()),
            Check::Tcp => {
                let root = self.settings.base.join(&PathAndQuery::from_static("/"))?;
                timeout_at(deadline, self.probes.check_connect(&root))
                    .await
                    .unwrap_or_else(|_| Err(Fault::new(Reason::Timeout, "the server did not answer in time")))
            }
            Check::Http(expectation) => {
                self.ask(expectation, deadline).await.map(|(head, body)| read(&head, &body))
            }
        };
        asked.map_err(|fault| self.settings.redact(fault))?;
        let peer = self.probes.peer();
        Ok(Facts { not_after: peer.and_then(|it| it.not_after), http2: peer.is_some_and(|it| it.http2) })
    }

    async fn ask(&self, expectation: &Expectation, deadline: Instant) -> Result<(HeaderMap, Vec<u8>), Fault> {
        let path = expectation.path.parse().map_err(|_| {
            Fault::new(Reason::InvalidSpec, "healthCheck.http.path has characters that must be escaped")
        })?;
        let mut request = Request::new(client::Body::empty());
        *request.method_mut() = Method::from_bytes(expectation.method.as_str().as_bytes())
            .map_err(|_| Fault::new(Reason::InvalidSpec, "healthCheck.http.method is no method"))?;
        *request.uri_mut() = self.settings.base.join(&path)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(USER));
        let mut token = None;
        if expectation.authenticated {
            token = self.credential(request.headers_mut(), deadline).await?;
        }
        let answer = self.probes.send(request, deadline).await?;
        self.look(&answer, token.as_ref());
        judge(expectation, answer).await
    }

    /// Sends a request whose URI is a path, relative to the endpoint's URL, and gives the answer once its head has
    /// arrived. The host and the credential are set, whatever the request says of them; everything else is sent as it
    /// is. No redirect is followed, and no status is a fault.
    ///
    /// # Errors
    /// What kept the answer from coming; `Timeout` at the deadline, which goes for the answer's body too.
    pub async fn call(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let at = |stage| move |fault| Failure { stage, fault };
        let root = PathAndQuery::from_static("/");
        let uri = self.settings.base.join(request.uri().path_and_query().unwrap_or(&root));
        *request.uri_mut() = uri.map_err(at(Stage::Connect))?;
        // The connection's own version counts, and its host is that of the URI.
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(HOST);
        let credential = self.credential(request.headers_mut(), deadline).await;
        let token = credential.map_err(at(Stage::Credential))?;
        let answer = self.calls.send(request, deadline).await;
        let answer = answer.map_err(|failure| at(failure.stage)(self.settings.redact(failure.fault)))?;
        self.look(&answer, token.as_ref());
        Ok(answer)
    }

    async fn credential(
        &self,
        headers: &mut HeaderMap,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Fault> {
        timeout_at(deadline, self.auth.apply(headers)).await.unwrap_or_else(|_| {
            Err(Fault::new(Reason::Timeout, "the token server: it did not answer in time"))
        })
    }

    fn look(&self, answer: &Response<AnswerBody>, token: Option<&HeaderValue>) {
        if let (StatusCode::UNAUTHORIZED, Some(token)) = (answer.status(), token) {
            self.auth.refused(token);
        }
    }
}

/// Whether the answer is what the health check expects. Its body is read too, since a server that breaks off in the
/// middle of it is not healthy.
async fn judge(
    expectation: &Expectation,
    answer: Response<AnswerBody>,
) -> Result<(HeaderMap, Vec<u8>), Fault> {
    let status = answer.status();
    if !expectation.statuses.iter().any(|expected| expected.contains(&status.as_u16())) {
        return Err(unexpected(status, expectation.authenticated));
    }
    let (head, body) = answer.into_parts();
    let body = read(body).await?;
    match &expectation.body {
        Some(text) if !contains(&body, text.as_bytes()) => {
            Err(Fault::new(Reason::UnexpectedBody, "the answer does not have the expected text"))
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
    Fault::new(reason, format!("the health check is answered by {status}{redirect}"))
}

/// The first `MAX_READ` bytes.
async fn read(mut body: AnswerBody) -> Result<Vec<u8>, Fault> {
    let mut read = Vec::new();
    while read.len() < MAX_READ {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            let room = data.len().min(MAX_READ - read.len());
            read.extend_from_slice(&data[..room]);
        }
    }
    Ok(read)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len().max(1)).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        assert!(contains(b"ok", b"ok") && contains(b"not ok", b"ok") && contains(b"ok then", b"ok"));
        assert!(!contains(b"", b"ok") && !contains(b"o", b"ok") && !contains(b"o k", b"ok"));
    }

    #[test]
    fn a_refused_credential_is_told_from_a_check_that_brings_none() {
        let reason = |status, authenticated| unexpected(status, authenticated).reason;
        assert_eq!(reason(StatusCode::UNAUTHORIZED, true), Reason::AuthenticationFailed);
        assert_eq!(reason(StatusCode::FORBIDDEN, true), Reason::PermissionDenied);
        assert_eq!(reason(StatusCode::UNAUTHORIZED, false), Reason::UnexpectedStatus);
        let redirect = unexpected(StatusCode::FOUND, true);
        assert_eq!(redirect.reason, Reason::UnexpectedStatus);
        assert_eq!(
            redirect.detail,
            "the health check is answered by 302 Found, and redirects are not followed"
        );
    }
}
