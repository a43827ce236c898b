//! The HTTP client under every HTTP target: HTTP/1.1, and HTTP/2 where TLS negotiates it. It follows no redirect, uses no
//! proxy and keeps no cookie. Bodies are streamed both ways.

mod body;
mod connect;
mod egress;
mod fault;

use std::{error::Error, time::Duration};

use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Bytes};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Fault,
    transport::{Tls, TlsSettings},
};
use crate::api::Reason;

pub use body::AnswerBody;
pub use connect::Peer;
pub use egress::{Egress, Guard, Resolver};

use connect::Connector;

/// How long it may take to find an address, to connect to it and to shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An unused connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unused connections that are kept for each host.
const MAX_IDLE: usize = 128;

/// What is sent. Boxed, so that calls with all sorts of bodies share one pool of connections.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there as a whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Makes settings ready for this client: it offers both versions of HTTP.
///
/// # Errors
/// PEM texts that cannot be used.
pub fn tls(settings: &TlsSettings) -> Result<Tls, Fault> {
    Tls::new(settings, &[b"h2", b"http/1.1"])
}

/// What becomes of a connection after its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It serves the next one: for calls.
    Pooled,
    /// It is closed: for probes, which are to look at everything anew.
    Never,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far the request got.
    pub stage: Stage,
    /// What went wrong.
    pub fault: Fault,
}

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There was no credential to send it with; the server had no part in that.
    Credential,
    /// There was no connection: the server has not seen it.
    Connect,
    /// The server may have seen it.
    Exchange,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        failure.fault
    }
}

/// Sends requests to one host, or a few.
pub struct Client {
    inner: legacy::Client<Connector, Body>,
    connector: Connector,
}

impl Client {
    /// Connects at the first request. `server_name` is what certificates must name instead of the URI's host.
    #[must_use]
    pub fn new(egress: Egress, tls: &Tls, server_name: Option<&str>, reuse: Reuse) -> Self {
        let tls = match reuse {
            Reuse::Pooled => tls.with_resumption(),
            Reuse::Never => tls.clone(),
        };
        let connector = Connector::new(egress, tls, server_name);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(if reuse == Reuse::Pooled { MAX_IDLE } else { 0 })
            // A connection of HTTP/2 is shared by many calls: one that is dead must be found out while they wait.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .build(connector.clone());
        Self { inner, connector }
    }

    /// Sends a request with an absolute URI, and gives the answer once its head has arrived. Its body ends in a fault
    /// when it is not over by the deadline.
    ///
    /// # Errors
    /// What kept the answer from coming; a status, whichever, is none of these.
    pub async fn send(
        &self,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let (stage, fault) = match timeout_at(deadline, self.inner.request(request)).await {
            Ok(Ok(answer)) => return Ok(answer.map(|body| AnswerBody::new(body, deadline))),
            Ok(Err(error)) if error.is_connect() => (Stage::Connect, fault::of(&error)),
            Ok(Err(error)) => (Stage::Exchange, fault::of(&error)),
            Err(_) => (Stage::Exchange, Fault::new(Reason::Timeout, "the server did not answer in time")),
        };
        Err(Failure { stage, fault })
    }

    /// The server as the last handshake has shown it; none without TLS.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.connector.peer()
    }

    /// Connects, shakes hands where `uri` says https, and closes the connection.
    ///
    /// # Errors
    /// What kept the connection from being made.
    pub async fn knock(&self, uri: &hyper::Uri) -> Result<(), Fault> {
        self.connector.connect(uri).await.map(drop)
    }
}
