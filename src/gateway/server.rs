//! The listener: HTTP/1.1 and HTTP/2 on one port, with or without TLS, and a graceful shutdown.

mod certificate;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Routes;
use certificate::Certificate;

/// How long a caller may take for the TLS handshake, and to send the head of a request: of the first one, and over HTTP/1.1 of
/// each.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection of HTTP/2 may be idle, at least; it is closed within twice this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long calls in flight may go on when the process ends, or an idle connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// How often a connection of HTTP/2 is pinged; one that is dead is closed 20 s later.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Limit of the head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Concurrent calls over one connection of HTTP/2.
const MAX_STREAMS: u32 = 1024;

/// Where to listen.
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Files with certificate and key, as PEM; none: without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A listener that accepts no connections yet.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use or not ours, or the files cannot be used.
    pub async fn bind(listen: Listen) -> io::Result<Self> {
        let tls = match listen.tls {
            Some((certificate, key)) => {
                let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(
                    Arc::new(Certificate::read(certificate, key).map_err(io::Error::other)?),
                );
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                Some(TlsAcceptor::from(Arc::new(config)))
            }
            None => None,
        };
        Ok(Self { listener: TcpListener::bind(listen.address).await?, tls })
    }

    /// Serves until `stop`, and then until the calls in flight have ended, for at most 25 s.
    pub async fn serve(self, routes: Routes, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Usually there are no free file descriptors: it goes on when there are.
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // A child token for each: it is polled with the connection, and a shared one would be contended.
            connections.spawn(connection(stream, self.tls.clone(), routes.clone(), stop.child_token()));
        }
        drop(self.listener);
        connections.close();
        if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(timeout = ?DRAIN_TIMEOUT, "calls in flight were aborted");
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, routes: Routes, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return exchange(stream, routes, stop).await };
    match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => exchange(stream, routes, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake timed out"),
    }
}

async fn exchange<S>(stream: S, routes: Routes, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    // How many calls there were; each call in flight holds a reference.
    let calls = Arc::new(AtomicU64::new(0));
    let in_flight = Arc::downgrade(&calls);
    let service = service_fn(move |request| {
        calls.fetch_add(1, Relaxed);
        let (routes, call) = (routes.clone(), Arc::clone(&calls));
        async move {
            let mut response = routes.respond(request).await;
            response.body_mut().hold(call);
            Ok::<_, Infallible>(response)
        }
    });
    let mut served = pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // hyper's own timeout begins when it knows the version of HTTP, and there is none for HTTP/2: a connection without a request
    // would stay open for ever, and needs no token.
    let (mut wait, mut before) = (HEAD_TIMEOUT, 0);
    let ended = loop {
        tokio::select! {
            biased;
            ended = served.as_mut() => break ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                break served.await;
            }
            () = sleep(wait) => {}
        }
        let now = in_flight.upgrade().map_or(before, |calls| calls.load(Relaxed));
        if now == 0 {
            return tracing::debug!("a connection without a request was closed");
        }
        if now == before && in_flight.strong_count() <= 1 {
            // Requests that are on their way meanwhile are still handled.
            served.as_mut().graceful_shutdown();
            match timeout(DRAIN_TIMEOUT, served.as_mut()).await {
                Ok(ended) => break ended,
                Err(_) => return tracing::debug!("an idle connection did not end"),
            }
        }
        (wait, before) = (IDLE_TIMEOUT, now);
    };
    // Callers may disconnect at any time.
    if let Err(error) = ended {
        tracing::debug!(error, "a connection failed");
    }
}
