//! The HTTP client for all HTTP targets: HTTP/1.1, and HTTP/2 where TLS negotiates it. It follows no redirects, uses no proxy
//! and stores no cookies. Bodies are streamed both ways.

mod body;
mod connect;
mod egress;
mod fault;
mod http1;
mod http2;
mod peers;
mod pool;
mod upgrade;

use std::{sync::Arc, time::Duration};

use hyper::{
    Request, Response, Uri,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue, TRANSFER_ENCODING},
};
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
use http2::{Http2Connection, Http2Stream, StreamSlot};
use pool::ConnectionPool;

/// An idle connection is closed after this time, or up to twice that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An older connection takes no more requests: the name may resolve to other addresses by now.
const MAX_AGE: Duration = Duration::from_mins(5);

/// Upper bound for DNS lookup, TCP connection and TLS handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS settings for this client, which offers both versions of HTTP by ALPN.
///
/// # Errors
/// PEM texts that cannot be used.
pub fn tls(settings: &TlsSettings) -> Result<Tls, Fault> {
    Tls::new(settings, &[b"h2", b"http/1.1"])
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Reused, and TLS sessions are resumed: for calls.
    Pooled,
    /// A new one for each request, established within this time, `CONNECT_TIMEOUT` at the most: for probes, which check
    /// name, address and certificate each time.
    Fresh(Duration),
}

/// Marks a request, as one of its extensions, that may be sent once more whatever its method: its receiver knows by an id in it when it
/// comes twice.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable;

/// Why there is no response.
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
    /// There was no credential to send with it; not the server's fault.
    Credential,
    /// No connection was established: the server has not seen the request.
    Connect,
    /// The connection ended, and the server has not processed the request: it may be sent once more, and says nothing about
    /// the server's health (RFC 9113, section 8.7, and for idempotent requests RFC 9112, section 9.3.1).
    Unprocessed,
    /// The server may have processed it.
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
    /// None with [`Connections::Fresh`].
    pool: Option<Arc<ConnectionPool>>,
}

impl Client {
    /// Connects to the scheme, host and port of `server`, at the first request. `server_name` is what certificates must name
    /// instead of that host.
    #[must_use]
    pub fn new(
        server: &Uri,
        egress: Egress,
        tls: &Tls,
        server_name: Option<&str>,
        connections: Connections,
    ) -> Self {
        let (tls, timeout, pool) = match connections {
            Connections::Pooled => (tls.with_resumption(), CONNECT_TIMEOUT, Some(Arc::default())),
            Connections::Fresh(timeout) => (tls.clone(), timeout.min(CONNECT_TIMEOUT), None),
        };
        Self { connector: Connector::new(server, egress, tls, server_name, timeout), pool }
    }

    /// Sends a request with an absolute URI, whose authority is the host that the server reads, and returns the response once its
    /// head has arrived. Its body ends in a fault when it has not ended by the deadline.
    ///
    /// # Errors
    /// Why there is no response; no status is an error.
    pub async fn send(
        &self,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let (response, connection) =
            timeout_at(deadline, self.exchange(request, deadline)).await.unwrap_or_else(|_| {
                let fault = Fault::new(Reason::Timeout, "waiting for the response timed out");
                Err(Failure { stage: Stage::Exchange, fault })
            })?;
        Ok(response.map(|body| AnswerBody::new(body, Some(connection), self.pool.clone(), deadline)))
    }

    /// The response, and the connection that its body arrives on.
    async fn exchange(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, BodySource), Failure> {
        let pool = self.pool.as_deref();
        while let Some(mut stream) = pool.and_then(ConnectionPool::http2_stream) {
            match stream.send(request).await {
                Ok(response) => return Ok((response, BodySource::Http2 { _slot: stream.into_slot() })),
                // It was closed before the request was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed(error.error())),
                },
            }
        }
        let target = request.uri().clone();
        let repeatable = request.extensions().get::<Repeatable>().is_some()
            || (request.method().is_idempotent() && request.body().is_end_stream());
        let mut outgoing = in_http1(request);
        while let Some(mut connection) = pool.and_then(ConnectionPool::take_idle) {
            match connection.send(outgoing).await {
                Ok(response) => return Ok((response, BodySource::Http1(connection))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => outgoing = unsent,
                    // The server closed it while the request was on its way.
                    None if repeatable && fault::is_closed(error.error()) => {
                        return Err(Failure { stage: Stage::Unprocessed, fault: fault::of(error.error()) });
                    }
                    None => return Err(failed(error.error())),
                },
            }
        }
        // On the heap: a large future, and rare.
        Box::pin(self.exchange_on_new_connection(target, outgoing, deadline)).await
    }

    async fn exchange_on_new_connection(
        &self,
        target: Uri,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, BodySource), Failure> {
        match self.connect(deadline).await? {
            Connection::Http1(mut connection) => {
                let response = connection.send(request).await.map_err(|error| failed(error.error()))?;
                Ok((response, BodySource::Http1(connection)))
            }
            Connection::Http2(mut stream) => {
                *request.uri_mut() = target;
                request.headers_mut().remove(HOST);
                request.headers_mut().remove(TRANSFER_ENCODING);
                let response = stream.send(request).await.map_err(|error| failed(error.error()))?;
                Ok((response, BodySource::Http2 { _slot: stream.into_slot() }))
            }
        }
    }

    /// A new connection, or a stream on one that this call has waited for: of many concurrent calls to a server that speaks
    /// HTTP/2, one connects, and another one where its streams are used up.
    async fn connect(&self, deadline: Instant) -> Result<Connection, Failure> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let Some(pool) = &self.pool else { return self.establish(left()).await };
        let _permit = if self.connector.encrypted() { pool.connect_permit(left() / 4).await } else { None };
        if let Some(stream) = pool.http2_stream() {
            return Ok(Connection::Http2(stream));
        }
        // Leave time for an attempt at another endpoint. What was waited for other calls does not count.
        self.establish(left() / 2).await
    }

    /// A new connection, in the pool if it can be shared.
    async fn establish(&self, limit: Duration) -> Result<Connection, Failure> {
        let stream = self.connector.connect(limit).await;
        let stream = stream.map_err(|fault| Failure { stage: Stage::Connect, fault })?;
        if !stream.speaks_http2() {
            if let Some(pool) = &self.pool {
                pool.note_http1();
            }
            let connection = Http1Connection::over(stream).await.map_err(|error| failed(&error))?;
            return Ok(Connection::Http1(connection));
        }
        let mut connection = Http2Connection::over(stream).await.map_err(|error| failed(&error))?;
        let stream = connection.open();
        if let Some(pool) = &self.pool {
            connection.settings_received().await;
            pool.put_http2(connection);
        }
        Ok(Connection::Http2(stream))
    }

    /// The server as TLS handshakes have shown it; none without TLS.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.connector.peer()
    }

    /// Connects, with a TLS handshake where the server is https, and closes the connection.
    ///
    /// # Errors
    /// Why the connection could not be established.
    pub async fn check_connect(&self) -> Result<(), Fault> {
        self.connector.connect(Duration::MAX).await.map(drop)
    }
}

/// Whether a connection may take another request.
fn is_young(created: Instant, used: Instant) -> bool {
    used.elapsed() < IDLE_TIMEOUT && created.elapsed() < MAX_AGE
}

/// What a request is sent on.
enum Connection {
    Http1(Http1Connection),
    Http2(Http2Stream),
}

/// What the body of a response arrives on.
enum BodySource {
    Http1(Http1Connection),
    /// Held until the body has ended.
    Http2 {
        _slot: StreamSlot,
    },
}

fn failed(error: &hyper::Error) -> Failure {
    let stage = if fault::is_unprocessed(error) { Stage::Unprocessed } else { Stage::Exchange };
    Failure { stage, fault: fault::of(error) }
}

/// The request in the form of HTTP/1.1: the target is a path, and the host a header (RFC 9112, section 3.2).
fn in_http1(mut request: Request<Body>) -> Request<Body> {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(path) = parts.path_and_query {
        *request.uri_mut() = path.into();
    }
    let host = parts.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    // hyper sets the framing of a body, except for methods that usually have none (GET), where it would drop the body.
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}
