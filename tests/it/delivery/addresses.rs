//! Where requests go: to vetted addresses, by no proxy, and to servers that can be trusted. The addresses themselves are those of
//! `webhook/urls.rs`.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use authlink::{
    backends::{http::Egress, transport::TlsSettings},
    delivery::EndpointSettings,
    domain::delivery::{outcome::Outcome, scheduler::EndpointConfig},
};
use futures::FutureExt;
use serde_json::json;
use tokio::{net::TcpListener, task::AbortHandle};

use super::{
    bed::{Bed, configured, endpoint, event, retry},
    kills::{Place, all_arrived},
    receiver::{Receiver, Reply},
};
use crate::support::tls_file;

const ALLOWED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const DENIED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Counts connections; gone with the value.
struct Tripwire {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Tripwire {
    /// On this port, or on any.
    async fn start(address: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).await.expect("a port");
        let (port, connections) =
            (listener.local_addr().expect("an address").port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, SeqCst);
            }
        });
        Self { port, connections, task: task.abort_handle() }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// To one address alone, by a resolver that is asked for the n-th time.
fn egress(answer: impl Fn(usize) -> Vec<IpAddr> + Send + Sync + 'static) -> Egress {
    let guard = |found: &[IpAddr]| match found.iter().find(|address| **address != ALLOWED) {
        Some(address) => Err(format!("{address} is not allowed")),
        None => Ok(()),
    };
    let asked = AtomicUsize::new(0);
    Egress::new(Arc::new(guard)).with_resolver(Arc::new(move |_| {
        let answer = answer(asked.fetch_add(1, SeqCst));
        async move { Ok(answer) }.boxed()
    }))
}

/// Each request takes a connection of its own, so that the name is looked up for each.
async fn closing() -> Receiver {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    Receiver::that(|_| Reply::Raw(answer.to_vec())).await
}

/// D3.
#[tokio::test]
async fn a_name_that_changes_with_each_lookup_leads_to_vetted_addresses_alone() {
    let receiver = closing().await;
    let wire = Tripwire::start(DENIED, receiver.port).await;
    let bed = Bed::through(egress(|asked| vec![if asked % 2 == 0 { ALLOWED } else { DENIED }])).await;
    let uid = bed.set(endpoint("hook", &format!("http://rebinding.test:{}/", receiver.port)));
    let mut outcomes = [0, 0];
    for _ in 0..1000 {
        let report = bed.engine.test(&uid, event(r#"{"type":"a"}"#)).await.expect("tried");
        match report.outcome {
            Outcome::Delivered => outcomes[0] += 1,
            Outcome::AddressDenied => outcomes[1] += 1,
            outcome => panic!("{outcome:?}: {}", report.detail),
        }
    }
    assert_eq!((outcomes, receiver.count(), wire.connections()), ([500, 500], 500, 0));
}

/// D2.
#[tokio::test]
async fn of_a_name_with_an_address_that_is_denied_none_is_called_and_no_attempt_is_spent() {
    let receiver = closing().await;
    let wire = Tripwire::start(DENIED, receiver.port).await;
    for addresses in [[ALLOWED, DENIED], [DENIED, ALLOWED]] {
        let bed = Bed::through(egress(move |_| addresses.to_vec())).await;
        let config = EndpointConfig { retry: retry(&[10], 1), ..EndpointConfig::default() };
        let hook = endpoint("hook", &format!("http://mixed.test:{}/", receiver.port));
        let uid = bed.set(configured(hook, config));
        bed.accept("a", json!(1)).await;
        let attempt = bed.attempts_until(&uid, 1).await.remove(0).record;
        assert_eq!(attempt.outcome, Outcome::AddressDenied, "{attempt:?}");
        assert_eq!(bed.pending(&uid), 1, "it waits");
    }
    assert_eq!((receiver.count(), wire.connections()), (0, 0));
}

/// D6.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_not_used() {
    let (place, proxy) = (Place::file(), Tripwire::start(ALLOWED, 0).await);
    let receiver = Receiver::logging(place.log("received"), |_| Reply::Status(200)).await;
    let program = place.program(&receiver, 10);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut wrapper = vec!["env".to_owned()];
    wrapper.extend(names.map(|name| format!("{name}={url}")));
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let _process = program.start_under(&wrapper);
    all_arrived(&program, &receiver, &place.path("received")).await;
    assert_eq!(proxy.connections(), 0);
}

/// A server with this certificate that ends each connection after the handshake, and counts handshakes.
async fn tls_server(certificate: &str) -> Tripwire {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let chain = tls_file(&format!("{certificate}.pem"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(tls_file(&format!("{certificate}.key")).as_bytes());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain.expect("PEM"), key.expect("PEM")).expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ALLOWED, 0)).await.expect("a port");
    let (port, connections) =
        (listener.local_addr().expect("an address").port(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if acceptor.accept(stream).await.is_ok() {
                counted.fetch_add(1, SeqCst);
            }
        }
    });
    Tripwire { port, connections, task: task.abort_handle() }
}

/// D14. What a server that wants a client certificate is shown is in `http_api/tls.rs`, of the same client.
#[tokio::test]
async fn a_server_that_cannot_be_trusted_gets_no_request_and_its_fault_is_named() {
    let rows =
        [("expired", "expired"), ("wronghost", "not valid for this host name"), ("selfsigned", "authority")];
    for (certificate, words) in rows {
        let server = tls_server(certificate).await;
        let bed = Bed::make().await;
        let config = EndpointConfig { retry: retry(&[10], 1), ..EndpointConfig::default() };
        let tls = TlsSettings { ca: Some(tls_file("ca.pem")), ..TlsSettings::default() };
        let hook = endpoint("hook", &format!("https://localhost:{}/", server.port));
        let uid = bed.set(EndpointSettings { tls, ..configured(hook, config) });
        bed.accept("a", json!(1)).await;
        let attempt = bed.attempts_until(&uid, 1).await.remove(0).record;
        assert_eq!(attempt.outcome, Outcome::TlsFailed, "{certificate}: {attempt:?}");
        assert!(attempt.detail.contains(words), "{certificate}: {attempt:?}");
        assert_eq!(server.connections(), 0, "{certificate}: the handshake does not end");
    }
}
