//! The HTTP client under every HTTP target: HTTP/1.1, and HTTP/2 where TLS negotiates it. It follows no redirect, uses no
//! proxy and keeps no cookie. Bodies are streamed both ways.

mod body;
mod connect;
mod egress;
mod fault;
mod http1;
mod peers;
mod pool;

use std::{sync::Arc, time::Duration};

use hyper::{
    Request, Response, Uri,
    body::{Body as _, Incoming},
    client::conn::http2,
    header::{HOST, HeaderValue, TRANSFER_ENCODING},
    http::uri::Scheme,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::{
    Fault,
    transport::{Tls, TlsSettings},
};
use crate::api::Reason;

pub use body::{AnswerBody, Body};
pub use egress::{Egress, Guard, Resolver};
pub use peers::Peer;

use connect::Connector;
use http1::Http1Connection;
use pool::ConnectionPool;

/// How long it may take at the most to find an address, to connect to it and to shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes settings ready for this client: it offers both versions of HTTP.
///
/// # Errors
/// PEM texts that cannot be used.
pub fn tls(settings: &TlsSettings) -> Result<Tls, Fault> {
    Tls::new(settings, &[b"h2", b"http/1.1"])
}

/// How connections are made and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// They serve one request after the other, and handshakes may be abbreviated: for calls.
    Pooled,
    /// Each serves one request and is made within this time, `CONNECT_TIMEOUT` at the most: for probes, which are to look
    /// at everything anew.
    Fresh(Duration),
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
    /// The connection ended, and the server has done nothing for it: it may be sent once more, without any doubt about the
    /// server (RFC 9113, section 8.7, and for what may be repeated RFC 9112, section 9.3.1).
    Unprocessed,
    /// The server may have seen it.
    Exchange,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        failure.fault
    }
}

/// Sends requests to one server.
pub struct Client {
    connector: Connector,
    /// None where each connection serves one request.
    kept: Option<Arc<ConnectionPool>>,
}

impl Client {
    /// Connects at the first request. `server_name` is what certificates must name instead of the URI's host.
    #[must_use]
    pub fn new(egress: Egress, tls: &Tls, server_name: Option<&str>, connections: Connections) -> Self {
        let (tls, timeout, kept) = match connections {
            Connections::Pooled => (tls.with_resumption(), CONNECT_TIMEOUT, Some(Arc::default())),
            Connections::Fresh(timeout) => (tls.clone(), timeout.min(CONNECT_TIMEOUT), None),
        };
        Self { connector: Connector::new(egress, tls, server_name, timeout), kept }
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
        let (answer, link) =
            timeout_at(deadline, self.exchange(request, deadline)).await.unwrap_or_else(|_| {
                let fault = Fault::new(Reason::Timeout, "the server did not answer in time");
                Err(Failure { stage: Stage::Exchange, fault })
            })?;
        Ok(answer.map(|body| AnswerBody::new(body, link, self.kept.clone(), deadline)))
    }

    /// The answer, and the connection that its body comes by, if that is one of HTTP/1.1.
    async fn exchange(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Option<Http1Connection>), Failure> {
        let kept = self.kept.as_deref();
        while let Some(mut sender) = kept.and_then(ConnectionPool::shared) {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, None)),
                // It ended before it was used: the server has not seen the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed(error.error())),
                },
            }
        }
        let target = request.uri().clone();
        let repeatable = request.method().is_idempotent() && request.body().is_end_stream();
        let mut outgoing = in_http1(request);
        while let Some(mut link) = kept.and_then(ConnectionPool::unused) {
            match link.send(outgoing).await {
                Ok(answer) => return Ok((answer, Some(link))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => outgoing = unsent,
                    // The server ended it at the moment in which the request was on its way.
                    None if repeatable && fault::is_ended(error.error()) => {
                        return Err(Failure { stage: Stage::Unprocessed, fault: fault::of(error.error()) });
                    }
                    None => return Err(failed(error.error())),
                },
            }
        }
        // On the heap, because it is large, and rare.
        Box::pin(self.exchange_anew(target, outgoing, deadline)).await
    }

    async fn exchange_anew(
        &self,
        target: Uri,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Option<Http1Connection>), Failure> {
        // A call that may go elsewhere has time left for that.
        let now = Instant::now();
        let until =
            if self.kept.is_some() { now + deadline.saturating_duration_since(now) / 2 } else { deadline };
        let made = timeout_at(until, self.connect(&target, until)).await.unwrap_or_else(|_| {
            let fault = Fault::new(Reason::Timeout, "connecting took half of the time that there was");
            Err(Failure { stage: Stage::Connect, fault })
        });
        match made? {
            Made::Http1(mut link) => {
                let answer = link.send(request).await.map_err(|error| failed(error.error()))?;
                Ok((answer, Some(link)))
            }
            Made::Http2(mut sender) => {
                *request.uri_mut() = target;
                request.headers_mut().remove(HOST);
                request.headers_mut().remove(TRANSFER_ENCODING);
                let answer = sender.try_send_request(request).await.map_err(|error| failed(error.error()))?;
                Ok((answer, None))
            }
        }
    }

    /// A connection that was just made, by this call or by another one that it waited for: of many calls at once to a server that
    /// speaks HTTP/2, one connects.
    async fn connect(&self, target: &Uri, until: Instant) -> Result<Made, Failure> {
        let secure = target.scheme() == Some(&Scheme::HTTPS);
        let kept = self.kept.as_ref();
        let left = || until.saturating_duration_since(Instant::now());
        let _turn = match kept.filter(|_| secure) {
            Some(kept) => kept.turn(left() / 2).await,
            None => None,
        };
        if let Some(sender) = kept.and_then(|kept| kept.shared()) {
            return Ok(Made::Http2(sender));
        }
        let stream = self.connector.connect(target, left()).await;
        let stream = stream.map_err(|fault| Failure { stage: Stage::Connect, fault })?;
        if !stream.speaks_http2() {
            if let Some(kept) = kept {
                kept.serve_alone();
            }
            return Ok(Made::Http1(Http1Connection::over(stream).await.map_err(|error| failed(&error))?));
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        // It is shared by many calls: one that is dead must be found out while they wait.
        http2.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
        http2.keep_alive_timeout(Duration::from_secs(5));
        let (sender, connection) =
            http2.handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        if let Some(kept) = kept {
            kept.share(sender.clone());
        }
        Ok(Made::Http2(sender))
    }

    /// The server as handshakes have shown it; none without TLS.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.connector.peer()
    }

    /// Connects, shakes hands where `uri` says https, and closes the connection.
    ///
    /// # Errors
    /// What kept the connection from being made.
    pub async fn check_connect(&self, uri: &Uri) -> Result<(), Fault> {
        self.connector.connect(uri, Duration::MAX).await.map(drop)
    }
}

/// A connection that nothing was sent on by whoever has it.
enum Made {
    Http1(Http1Connection),
    Http2(http2::SendRequest<Body>),
}

fn failed(error: &hyper::Error) -> Failure {
    let stage = if fault::is_unprocessed(error) { Stage::Unprocessed } else { Stage::Exchange };
    Failure { stage, fault: fault::of(error) }
}

/// The request as HTTP/1.1 has it: the target is a path, and the host a header (RFC 9112, section 3.2).
fn in_http1(mut request: Request<Body>) -> Request<Body> {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(path) = parts.path_and_query {
        *request.uri_mut() = path.into();
    }
    let host = parts.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    // hyper says by itself how a body is framed, except for methods that have none as a rule (GET): there it would drop it.
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}
