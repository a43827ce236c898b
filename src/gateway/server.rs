//! The listener: HTTP/1.1 and HTTP/2 on one port, in the clear or by TLS, with an orderly end.

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

/// How long callers may take to shake hands, and to send the head of a request: the first one, and over HTTP/1.1 each.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection of HTTP/2 may be without a call, at least; some time within as long again it is closed.
const IDLE: Duration = Duration::from_secs(30);

/// How long what is still under way may go on when the process ends, or an idle connection.
const DRAIN: Duration = Duration::from_secs(25);

/// How often a caller's connection of HTTP/2 is tried; one that is dead is closed 20 s later.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes that the head of a request may have.
const MAX_HEAD: usize = 64 * 1024;

/// Calls at the same time over one connection of HTTP/2.
const MAX_STREAMS: u32 = 1024;

/// Where to listen.
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Files with certificate and key, as PEM; in the clear without.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A listener that takes no connections yet.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// The address is taken or not ours, or the files cannot be used.
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

    /// Serves until `stop`, and then until the calls in in_flight_guard are over, for a while.
    pub async fn serve(self, routes: Routes, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Out of descriptors, as a rule: it goes on when some are free.
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // A token of its own: it is looked at whenever the connection is, and one of all would be fought for.
            connections.spawn(connection(stream, self.tls.clone(), routes.clone(), stop.child_token()));
        }
        drop(self.listener);
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("calls in in_flight_guard were cut off");
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, routes: Routes, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return exchange(stream, routes, stop).await };
    match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => exchange(stream, routes, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
        Err(_) => tracing::debug!("a handshake took too long"),
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
    // How many calls there were, in as many hands as calls are under way.
    let calls = Arc::new(AtomicU64::new(0));
    let watched = Arc::downgrade(&calls);
    let service = service_fn(move |request| {
        calls.fetch_add(1, Relaxed);
        let (routes, call) = (routes.clone(), Arc::clone(&calls));
        async move {
            let mut answer = routes.answer(request).await;
            answer.body_mut().hold(call);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), service));
    // hyper's own time-out begins when it knows which HTTP is spoken, and there is none for HTTP/2: a connection that asks for
    // nothing would be held for ever, without a token.
    let (mut patience, mut before) = (HEAD_TIMEOUT, 0);
    let ended = loop {
        tokio::select! {
            biased;
            ended = served.as_mut() => break ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                break served.await;
            }
            () = sleep(patience) => {}
        }
        let now = watched.upgrade().map_or(before, |calls| calls.load(Relaxed));
        if now == 0 {
            return tracing::debug!("a connection asked for nothing");
        }
        if now == before && watched.strong_count() <= 1 {
            // What the caller has asked meanwhile is answered.
            served.as_mut().graceful_shutdown();
            match timeout(DRAIN, served.as_mut()).await {
                Ok(ended) => break ended,
                Err(_) => return tracing::debug!("an idle connection did not end"),
            }
        }
        (patience, before) = (IDLE, now);
    };
    // That a caller breaks off is its own affair.
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}
