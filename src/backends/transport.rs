//! TCP connections and TLS handshakes, each failure with its fault.

mod verify;

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::verify::{Unverified, Verified};
use super::{Fault, digest::part};
use crate::api::{Reason, v1alpha1::database::TlsMode};

/// TLS settings with the PEM texts in place of references.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// How much of the server's certificate is checked.
    pub mode: TlsMode,
    /// The authorities to trust, as PEM; without it the public ones (Mozilla's list).
    pub ca: Option<String>,
    /// The certificate to show, and its key, as PEM.
    pub client: Option<(String, SecretString)>,
}

impl TlsSettings {
    /// Hashes the client certificate and its key, if there is one.
    pub(super) fn feed_client(&self, hash: &mut Sha256) {
        if let Some((certificate, key)) = &self.client {
            part(hash, Some(certificate));
            part(hash, Some(key.expose_secret()));
        }
    }

    /// When the client certificate expires.
    #[must_use]
    pub fn client_not_after(&self) -> Option<Timestamp> {
        let chain = certificates(&self.client.as_ref()?.0).ok()?;
        verify::validity(chain.first()?).map(|(_, not_after)| not_after)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.mode != TlsMode::None
    }
}

/// `host:port`, as users read it.
#[must_use]
pub fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Time after which the next address is tried in parallel (RFC 8305, section 5: "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// An idle connection whose peer has vanished ends within about a minute, and a NAT on the way does not drop it for inactivity.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Connects to the first of these addresses that accepts: the next one is tried when one fails, and when one has not answered
/// for [`ATTEMPT_DELAY`].
///
/// # Errors
/// The fault of the last address; `DnsFailed` when there is none.
pub async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Fault> {
    let mut last = Fault::new(Reason::DnsFailed, "the host name has no address");
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.extend(waiting.next().map(TcpStream::connect));
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
                    return Ok(stream);
                }
                Err(error) => last = Fault::from_io(&error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
            else => return Err(last),
        }
    }
}

/// Completes a TLS handshake with these settings.
///
/// # Errors
/// `TlsFailed` or `CertificateExpired`.
pub async fn handshake(
    stream: TcpStream,
    host: &str,
    settings: &TlsSettings,
) -> Result<TlsStream<TcpStream>, Fault> {
    Tls::new(settings, &[])?.handshake(stream, host).await
}

/// TLS settings, parsed once for any number of handshakes.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Parses the PEM texts. `protocols` are offered by ALPN (RFC 7301), in order of preference. Sessions are not resumed, so
    /// that each handshake checks the current certificate.
    ///
    /// # Errors
    /// `SecretInvalidValue` or `TlsFailed`, for texts that cannot be used.
    pub fn new(settings: &TlsSettings, protocols: &[&[u8]]) -> Result<Self, Fault> {
        let mut config = client_config(settings)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The same with session resumption: cheaper, and without another check of the certificate.
    #[must_use]
    pub fn with_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::in_memory_sessions(8);
        Self(Arc::new(config))
    }

    /// The same with other protocols to offer by ALPN.
    #[must_use]
    pub fn with_protocols(&self, protocols: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Completes a handshake with a server whose certificate must be valid for this name.
    ///
    /// # Errors
    /// `TlsFailed` or `CertificateExpired`.
    pub async fn handshake(&self, stream: TcpStream, name: &str) -> Result<TlsStream<TcpStream>, Fault> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Fault::new(Reason::TlsFailed, format!("{name} is not a valid TLS server name")))?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map_err(|error| Fault::from_io(&error))
    }
}

/// Mozilla's list, shared by all configurations.
static PUBLIC_AUTHORITIES: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()));

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, bundle) = match &settings.ca {
        Some(pem) => (Arc::new(trusted(pem)?), certificates(pem)?),
        None => (Arc::clone(&PUBLIC_AUTHORITIES), Vec::new()),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::from_tls(&error))?;
    let builder = match settings.mode {
        TlsMode::VerifyFull | TlsMode::VerifyCa => {
            let authorities = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| Fault::new(Reason::TlsFailed, error.to_string()))?;
            let verifier = Verified { authorities, bundle, names: settings.mode == TlsMode::VerifyFull };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        TlsMode::Require | TlsMode::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
    };
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
                .map_err(|_| Fault::new(Reason::SecretInvalidValue, "the client key is not PEM"))?;
            builder.with_client_auth_cert(chain, key).map_err(|_| {
                let problem = "the client certificate and the key do not belong together, or are of an unsupported kind";
                Fault::new(Reason::SecretInvalidValue, problem)
            })
        }
    }
}

/// The certificates in a PEM text; also validates texts before a driver gets them.
///
/// # Errors
/// `SecretInvalidValue` when there is none, or one is broken.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let invalid = || Fault::new(Reason::SecretInvalidValue, "the certificate is not PEM");
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| invalid())?;
    if chain.is_empty() { Err(invalid()) } else { Ok(chain) }
}

/// When the server's certificate expires, as the handshake has shown it; none for one that cannot be decoded.
#[must_use]
pub fn not_after(stream: &TlsStream<TcpStream>) -> Option<Timestamp> {
    let chain = stream.get_ref().1.peer_certificates()?;
    verify::validity(chain.first()?).map(|(_, not_after)| not_after)
}

/// The authorities in a PEM text.
///
/// # Errors
/// `SecretInvalidValue` when there is none, or one cannot be an authority.
pub fn trusted(pem: &str) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| {
            Fault::new(Reason::SecretInvalidValue, "the CA bundle contains an invalid certificate")
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_tcp_keepalive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(&[listener.local_addr().unwrap()]).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
