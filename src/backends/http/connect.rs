//! Establishing connections: egress guard, TCP, TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::{
    Egress, Fault,
    peers::{Peer, Peers},
};
use crate::{
    api::Reason,
    backends::transport::{self, Tls},
};

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    encrypted: bool,
    egress: Egress,
    tls: Tls,
    server_name: Option<String>,
    timeout: Duration,
    peers: Mutex<Peers>,
}

impl Connector {
    /// To scheme, host and port of `server`.
    pub(super) fn new(
        server: &Uri,
        egress: Egress,
        tls: Tls,
        server_name: Option<&str>,
        timeout: Duration,
    ) -> Self {
        let encrypted = server.scheme_str() == Some("https");
        // A URI writes an IPv6 address in brackets.
        let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = server.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let server_name = server_name.map(str::to_owned);
        let peers = Mutex::default();
        Self(Arc::new(Inner { host, port, encrypted, egress, tls, server_name, timeout, peers }))
    }

    /// The same without HTTP/2, which has no upgrades.
    pub(super) fn http1_only(&self) -> Self {
        let Inner { host, port, encrypted, egress, tls, server_name, timeout, .. } = &*self.0;
        Self(Arc::new(Inner {
            host: host.clone(),
            port: *port,
            encrypted: *encrypted,
            egress: egress.clone(),
            tls: tls.with_protocols(&[b"http/1.1"]),
            server_name: server_name.clone(),
            timeout: *timeout,
            peers: Mutex::default(),
        }))
    }

    /// Whether the server is https.
    pub(super) fn encrypted(&self) -> bool {
        self.0.encrypted
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        self.peers().combined()
    }

    /// Connects within `limit`, or within the connector's own timeout if that is shorter.
    ///
    /// # Errors
    /// The fault of the stage that failed: name, TCP or TLS.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Stream, Fault> {
        let time = self.0.timeout.min(limit);
        let deadline = Instant::now() + time;
        let timed_out =
            |stage: &'static str| move |_| Fault::new(Reason::Timeout, format!("{stage} timed out"));
        // Shorter than the caller's own timeout, so that the error names the DNS lookup.
        let egress = self.0.egress.clone().with_lookup_timeout(time * 9 / 10);
        let addresses = egress.addresses(&self.0.host, self.0.port).await?;
        let stream = timeout_at(deadline, transport::dial(&addresses))
            .await
            .map_err(timed_out("the TCP connection"))??;
        if !self.0.encrypted {
            return Ok(Stream::Plain(stream));
        }
        let name = self.0.server_name.as_deref().unwrap_or(&self.0.host);
        // None if it is closed already, which the handshake will report.
        let address = stream.peer_addr().ok().map(|address| address.ip());
        let stream = timeout_at(deadline, self.0.tls.handshake(stream, name))
            .await
            .map_err(timed_out("the TLS handshake"))??;
        let not_after = transport::not_after(&stream);
        let stream = Stream::Tls(Box::new(stream));
        if let Some(address) = address {
            let peer = Peer { not_after, http2: stream.speaks_http2() };
            self.peers().record(address, peer, Instant::now());
        }
        Ok(stream)
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.0.peers.lock()
    }
}

/// A connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the handshake negotiated HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
