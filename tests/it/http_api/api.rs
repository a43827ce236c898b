//! An HTTP API in this process: a real server over real sockets, which keeps what it saw.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, response::Response, serve::Listener};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{RwLock, RwLockWriteGuard},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use authlink::backends::transport;

use crate::support::tls_file;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A server that is gone with the value.
pub(super) struct Api {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    gate: Arc<RwLock<()>>,
    task: JoinHandle<()>,
}

impl Api {
    /// Without TLS.
    pub(super) async fn start(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::serve(answer, None, "127.0.0.1:0").await
    }

    /// With one of the test certificates.
    pub(super) async fn start_tls(
        certificate: &str,
        wants_client_certificate: bool,
        answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::serve(answer, Some(acceptor(certificate, wants_client_certificate)), "127.0.0.1:0").await
    }

    /// With one of the test certificates, at this address and with nothing to say.
    pub(super) async fn start_tls_at(address: &str, certificate: &str) -> Self {
        Self::serve(|_| Response::default(), Some(acceptor(certificate, false)), address).await
    }

    async fn serve(
        answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
        address: &str,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let keep = Arc::clone(&seen);
        let gate = Arc::<RwLock<()>>::default();
        let wait = Arc::clone(&gate);
        let app = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            let request = Seen {
                line: format!("{} {}", parts.method, parts.uri),
                headers: parts.headers,
                body: String::from_utf8(body).unwrap(),
            };
            keep.lock().unwrap().push(request.clone());
            let _open = wait.read().await;
            answer(&request)
        });
        let tcp = TcpListener::bind(address).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", tcp.local_addr().unwrap().port());
        let connections = Arc::<Mutex<usize>>::default();
        let counted = Counted { tcp, connections: Arc::clone(&connections) };
        let task = tokio::spawn(async move {
            match tls {
                None => axum::serve(counted, app).await.unwrap(),
                Some(tls) => axum::serve(Encrypted { inner: counted, tls }, app).await.unwrap(),
            }
        });
        Self { url, seen, connections, gate, task }
    }

    /// Everything so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request so far.
    pub(super) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }

    /// Keeps every answer back until the guard is dropped.
    pub(super) async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    /// How many were accepted so far.
    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Counted {
    tcp: TcpListener,
    connections: Arc<Mutex<usize>>,
}

impl Listener for Counted {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = Listener::accept(&mut self.tcp).await;
        *self.connections.lock().unwrap() += 1;
        accepted
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

struct Encrypted {
    inner: Counted,
    tls: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            let (stream, address) = self.inner.accept().await;
            // What a client dislikes is for the client to tell.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn acceptor(certificate: &str, wants_client_certificate: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = transport::certificates(&tls_file(&format!("{certificate}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_slice(tls_file(&format!("{certificate}.key")).as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_client_certificate {
        let roots = Arc::new(transport::trusted(&tls_file("ca.pem")).unwrap());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}
