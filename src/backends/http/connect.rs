//! Connections: guarded, then TCP, then TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use hyper::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use x509_cert::{Certificate, der::Decode};

use super::{CONNECT_TIMEOUT, Egress, Fault};
use crate::{
    api::Reason,
    backends::transport::{self, Tls},
};

/// A server as a handshake has shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// When its certificate expires; none where the certificate does not tell in a way that we understand.
    pub not_after: Option<Timestamp>,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
}

/// Connects to what a URI names.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    egress: Egress,
    tls: Tls,
    server_name: Option<String>,
    peer: Mutex<Option<Peer>>,
}

impl Connector {
    pub(super) fn new(egress: Egress, tls: Tls, server_name: Option<&str>) -> Self {
        let server_name = server_name.map(str::to_owned);
        Self(Arc::new(Inner { egress, tls, server_name, peer: Mutex::default() }))
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        *self.0.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn connect(&self, uri: &Uri) -> Result<TokioIo<Stream>, Fault> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let late = |reason, what: &'static str| move |_| Fault::new(reason, format!("{what} took too long"));
        let encrypted = uri.scheme_str() == Some("https");
        // A URI writes an IPv6 address in brackets.
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let addresses = timeout_at(deadline, self.0.egress.addresses(host, port))
            .await
            .map_err(late(Reason::DnsFailed, "looking up the host name"))??;
        let stream = timeout_at(deadline, transport::dial(&addresses))
            .await
            .map_err(late(Reason::Timeout, "connecting"))??;
        if !encrypted {
            return Ok(TokioIo::new(Stream::Plain(stream)));
        }
        let name = self.0.server_name.as_deref().unwrap_or(host);
        let stream = timeout_at(deadline, self.0.tls.handshake(stream, name))
            .await
            .map_err(late(Reason::Timeout, "the TLS handshake"))??;
        let session = stream.get_ref().1;
        let peer = Peer {
            not_after: session.peer_certificates().and_then(|chain| expiry(chain.first()?)),
            http2: session.alpn_protocol() == Some(b"h2"),
        };
        *self.0.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        async move { this.connect(&uri).await }.boxed()
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let since_epoch = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(since_epoch.as_secs()).ok()?).ok()
}

/// A connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::backends::{http, transport::TlsSettings};

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_not_waited_for_without_end() {
        // A fake: a real one gives up by itself, later.
        let egress = Egress::new(Arc::new(|_: &[IpAddr]| Ok(())));
        let egress = egress.with_resolver(Arc::new(|_| std::future::pending().boxed()));
        let tls = http::tls(&TlsSettings::default()).unwrap();
        let connector = Connector::new(egress, tls, None);
        let started = Instant::now();
        let fault = connector.connect(&Uri::from_static("http://slow.example")).await.err().unwrap();
        assert_eq!((fault.reason, started.elapsed()), (Reason::DnsFailed, CONNECT_TIMEOUT));
    }
}
