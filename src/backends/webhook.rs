//! An endpoint that receives webhooks: how it is reached, and how it is asked whether it is there and wants them.

use std::time::Duration;

use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::{
    Fault,
    digest::{self, part},
    http::{self as client, AnswerBody, Body, Client, Connections, Egress, Failure},
    transport::{self, TlsSettings},
};
use crate::{
    api::{Reason, v1alpha1::webhook::VerificationMode},
    domain::webhook::{challenge, url::Target},
};

/// How much of an answer to a challenge is read, in bytes.
const MAX_READ: usize = 4 * 1024;

/// Everything that it takes to reach an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Where it is.
    pub target: Target,
    /// Headers that each request carries, checked.
    pub headers: Vec<(String, SecretSlice<u8>)>,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// How its certificate is checked, and the one that is shown to it.
    pub tls: TlsSettings,
    /// What its certificate must name instead of the url's host.
    pub server_name: Option<String>,
}

impl EndpointSettings {
    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        transport::endpoint(self.target.host(), self.target.port())
    }

    /// What its certificate must name, where that is not simply the url's host: a final dot is no part of a certificate's name.
    #[must_use]
    pub fn certificate_name(&self) -> Option<&str> {
        self.server_name.as_deref().or_else(|| self.target.host().strip_suffix('.'))
    }

    /// The url as requests have it.
    ///
    /// # Errors
    /// `InvalidSpec`: HTTP cannot carry it.
    pub fn uri(&self) -> Result<Uri, Fault> {
        let invalid =
            |_| Fault::new(Reason::InvalidSpec, "the URL has characters that must be percent-encoded");
        self.target.expose().parse().map_err(invalid)
    }

    /// The user's own headers, and the user agent.
    ///
    /// # Errors
    /// `InvalidSpec`: HTTP cannot carry one of them.
    pub fn header_map(&self) -> Result<HeaderMap, Fault> {
        let invalid =
            |name: &str| Fault::new(Reason::InvalidSpec, format!("the header {name} cannot be sent"));
        let mut map = HeaderMap::with_capacity(self.headers.len() + 1);
        let agent = HeaderValue::from_str(&self.user_agent).map_err(|_| invalid("User-Agent"))?;
        map.insert(USER_AGENT, agent);
        for (name, value) in &self.headers {
            let header = name.parse::<HeaderName>().map_err(|_| invalid(name))?;
            let mut value = HeaderValue::from_bytes(value.expose_secret()).map_err(|_| invalid(name))?;
            value.set_sensitive(true);
            map.insert(header, value);
        }
        Ok(map)
    }

    /// Two settings with the same key reach the same endpoint in the same way. It holds a digest of secrets, and must not leave the
    /// process.
    #[must_use]
    pub fn key(&self, salt: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        part(&mut hash, Some(salt));
        part(&mut hash, Some(self.target.expose()));
        part(&mut hash, Some(&self.user_agent));
        for (name, value) in &self.headers {
            part(&mut hash, Some(name));
            hash.update(value.expose_secret().len().to_le_bytes());
            hash.update(value.expose_secret());
        }
        part(&mut hash, self.tls.ca.as_deref());
        part(&mut hash, self.server_name.as_deref());
        self.tls.feed_client(&mut hash);
        hash.finalize().into()
    }
}

/// What tells one url from another in a status, without telling the url.
#[must_use]
pub fn url_digest(salt: &str, target: &Target) -> String {
    let mut hash = Sha256::new();
    part(&mut hash, Some(salt));
    part(&mut hash, Some(target.expose()));
    let digest = hash.finalize();
    format!("{:032x}", u128::from_be_bytes(std::array::from_fn(|at| digest[at])))
}

/// What tells one signing key from another, without telling the key.
#[must_use]
pub fn key_fingerprint(salt: &str, key: &[u8]) -> String {
    digest::fingerprint(salt, |hash| hash.update(key))
}

/// An endpoint that is asked.
pub struct Endpoint {
    settings: EndpointSettings,
    mode: VerificationMode,
    uri: Uri,
    headers: HeaderMap,
    client: Client,
    timeout: Duration,
    verified: Mutex<Option<Facts>>,
}

/// What a probe learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The status by which it answered the request that verifies it; none where an earlier process has asked.
    pub status: Option<StatusCode>,
}

impl Endpoint {
    /// Prepares everything, and connects at the first probe. `verified` is whether it was asked before.
    ///
    /// # Errors
    /// A url, a header or a certificate that cannot be used.
    pub fn new(
        settings: EndpointSettings,
        mode: VerificationMode,
        verified: bool,
        timeout: Duration,
        egress: &Egress,
    ) -> Result<Self, Fault> {
        let tls = client::tls(&settings.tls)?;
        let fresh = Connections::Fresh(timeout * 9 / 10);
        let (uri, headers) = (settings.uri()?, settings.header_map()?);
        let client = Client::new(&uri, egress.clone(), &tls, settings.certificate_name(), fresh);
        let verified = Mutex::new(verified.then(Facts::default));
        Ok(Self { settings, mode, uri, headers, client, timeout, verified })
    }

    /// Asks the endpoint what `mode` says until it has answered once, and connects from then on.
    ///
    /// # Errors
    /// What kept the answer from coming, or `ChallengeFailed`.
    pub async fn probe(&self) -> Result<Facts, Fault> {
        // Sooner than whoever waits for the probe gives up.
        let deadline = Instant::now() + self.timeout * 19 / 20;
        let verified = *self.verified.lock();
        if let Some(facts) = verified {
            let connected = timeout_at(deadline, self.client.check_connect()).await;
            let late = || Fault::new(Reason::Timeout, "the endpoint did not respond in time");
            return connected.unwrap_or_else(|_| Err(late())).map(|()| facts);
        }
        let status = match self.mode {
            VerificationMode::None => None,
            VerificationMode::HeadRequest => Some(self.head(deadline).await?),
            VerificationMode::Challenge => Some(self.challenge(deadline).await?),
        };
        let facts = Facts { status };
        *self.verified.lock() = Some(facts);
        Ok(facts)
    }

    /// Any answer proves name, address, certificate and server.
    async fn head(&self, deadline: Instant) -> Result<StatusCode, Fault> {
        let answer = self.send(Method::HEAD, Body::empty(), deadline).await.map_err(|failure| {
            let mut fault = failure.fault;
            if fault.reason == Reason::Timeout && failure.stage == client::Stage::Exchange {
                let text = "the endpoint did not respond to HEAD in time; if it supports only POST, set \
                            spec.verification.mode to None";
                text.clone_into(&mut fault.detail);
            }
            fault
        })?;
        Ok(answer.status())
    }

    async fn challenge(&self, deadline: Instant) -> Result<StatusCode, Fault> {
        let text = format!("{:032x}", rand::random::<u128>());
        let body = Body::whole(challenge::question(&text));
        let answer = self.send(Method::POST, body, deadline).await.map_err(Fault::from)?;
        let status = answer.status();
        let failed = |what: &str| {
            Err(Fault::new(
                Reason::ChallengeFailed,
                format!("the response to the challenge is {status}{what}"),
            ))
        };
        if status.is_redirection() {
            return failed(", and redirects are not followed");
        }
        if !status.is_success() {
            return failed("");
        }
        if !challenge::is_answer(&answer.into_body().first(MAX_READ).await?, &text) {
            return failed(" without the value of the challenge");
        }
        Ok(status)
    }

    async fn send(
        &self,
        method: Method,
        body: Body,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let mut request = Request::new(body);
        if method == Method::POST {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        request.headers_mut().extend(self.headers.clone());
        self.client.send(request, deadline).await
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.settings.endpoint()
    }
}
