//! TCP and TLS, with every failure told apart.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

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
    /// Hashes what logs in here: nothing where there is no certificate.
    pub(super) fn feed_client(&self, hash: &mut Sha256) {
        if let Some((certificate, key)) = &self.client {
            part(hash, Some(certificate));
            part(hash, Some(key.expose_secret()));
        }
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

/// How long an address has for itself before the next one is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// An idle connection whose other side is gone without a word ends within about a minute, and a router on the way that forgets
/// connections which keep silent has none to forget.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Connects to the first of these addresses that answers: the next one is tried when one fails, and when one keeps
/// silent for a moment.
///
/// # Errors
/// What the last of them said; `DnsFailed` when there is none.
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
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
            else => return Err(last),
        }
    }
}

/// Completes a TLS handshake as `settings` demand.
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

/// TLS settings made ready for any number of handshakes.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the PEM texts. `protocols` are offered by ALPN (RFC 7301), the best one first. Every handshake is a full
    /// one, so that the certificate is checked as it is now.
    ///
    /// # Errors
    /// `SecretInvalidValue` or `TlsFailed`, for texts that cannot be used.
    pub fn new(settings: &TlsSettings, protocols: &[&[u8]]) -> Result<Self, Fault> {
        let mut config = client_config(settings)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The same with abbreviated handshakes where the server knows us: cheaper, and no new look at its certificate.
    #[must_use]
    pub fn with_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::in_memory_sessions(8);
        Self(Arc::new(config))
    }

    /// Completes a handshake with a server that must have this name.
    ///
    /// # Errors
    /// `TlsFailed` or `CertificateExpired`.
    pub async fn handshake(&self, stream: TcpStream, name: &str) -> Result<TlsStream<TcpStream>, Fault> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            Fault::new(Reason::TlsFailed, format!("{name} cannot be checked as a server name"))
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map_err(|error| Fault::from_io(&error))
    }
}

/// Mozilla's list, once for all configurations that use it.
static PUBLIC_AUTHORITIES: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()));

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = match &settings.ca {
        Some(pem) => Arc::new(trusted(pem)?),
        None => Arc::clone(&PUBLIC_AUTHORITIES),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::from_tls(&error))?;
    let builder = match settings.mode {
        TlsMode::VerifyFull => builder.with_root_certificates(roots),
        TlsMode::VerifyCa => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| Fault::new(Reason::TlsFailed, error.to_string()))?,
        ))),
        TlsMode::Require | TlsMode::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        }
    };
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
                .map_err(|_| Fault::new(Reason::SecretInvalidValue, "the client key is not PEM"))?;
            builder.with_client_auth_cert(chain, key).map_err(|_| {
                let problem = "the client certificate and its key cannot be used, or not together";
                Fault::new(Reason::SecretInvalidValue, problem)
            })
        }
    }
}

/// The certificates in a PEM text; used for checks before a driver sees the text, too.
///
/// # Errors
/// `SecretInvalidValue` when there is none, or one is broken.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let invalid = || Fault::new(Reason::SecretInvalidValue, "the certificate is not PEM");
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| invalid())?;
    if chain.is_empty() { Err(invalid()) } else { Ok(chain) }
}

/// The authorities in a PEM text.
///
/// # Errors
/// `SecretInvalidValue` when there is none, or one cannot be an authority.
pub fn trusted(pem: &str) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| {
            Fault::new(Reason::SecretInvalidValue, "the CA has a certificate that cannot be read")
        })?;
    }
    Ok(roots)
}

/// `VerifyCa`: the chain is checked, the name is not.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `Require`: encrypted, with whoever answers. The handshake's own signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_idle_is_asked_whether_it_lives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(&[listener.local_addr().unwrap()]).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
