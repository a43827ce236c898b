//! The outside systems: one folder for each family, one file for each product. Nothing here knows of Kubernetes.

pub mod database;
mod digest;
pub mod directory;
pub mod external_api;
pub mod http;
pub mod resolver;
pub mod transport;
pub mod webhook;

use std::{fmt, io};

use secrecy::{ExposeSecret, SecretString};

use crate::{api::Reason, domain::conditions::advise};

/// A failure of an outside system, classified by the driver's typed error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its class.
    pub reason: Reason,
    /// What was seen; never a secret, no counters and no times.
    pub detail: String,
    /// What to do about it, where that is more specific than the reason's remedy.
    pub remedy: Option<&'static str>,
}

impl Fault {
    /// A fault of this class.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), remedy: None }
    }

    /// With a remedy that is more specific than the reason's.
    #[must_use]
    pub fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }

    /// A port without TLS.
    #[must_use]
    pub fn no_tls() -> Self {
        Self::new(Reason::TlsFailed, "no TLS on this port").with_remedy(
            "use the server's TLS port, or do without TLS: set tls.mode to None, or write http:// in a URL",
        )
    }

    /// The name exists without an address, or does not exist.
    #[must_use]
    pub fn no_address(host: &str) -> Self {
        Self::new(Reason::DnsFailed, format!("the host name {host} has no address"))
    }

    /// No DNS server responded, or none could tell.
    #[must_use]
    pub fn no_dns_answer(host: &str) -> Self {
        Self::new(Reason::DnsFailed, format!("DNS lookup of {host} failed: no server responded"))
    }

    /// What was seen, and what to do about it.
    #[must_use]
    pub fn message(&self) -> String {
        match self.remedy {
            Some(remedy) => format!("{}: {remedy}", self.detail),
            None => advise(self.reason, &self.detail),
        }
    }

    /// Removes each of `secrets` from the text: a server may send back what it was sent.
    #[must_use]
    pub fn redacted<'a>(mut self, secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        for secret in secrets {
            let secret = secret.expose_secret();
            if !secret.is_empty() && self.detail.contains(secret) {
                self.detail = self.detail.replace(secret, "[redacted]");
            }
        }
        self
    }

    /// The fault behind an IO error, a TLS error inside of it included.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return Self::from_tls(tls);
            }
            if let Some(inner) = inner.downcast_ref::<io::Error>() {
                return Self::from_io(inner);
            }
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                Self::new(Reason::ConnectionRefused, "the connection was refused")
            }
            io::ErrorKind::TimedOut => Self::new(Reason::Timeout, "the TCP connection timed out"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::new(Reason::Timeout, "there is no route to the server")
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::new(Reason::Unavailable, "the server closed the connection")
            }
            kind => Self::new(Reason::Unavailable, format!("the connection failed ({kind})")),
        }
    }

    /// The fault behind a TLS error.
    #[must_use]
    pub fn from_tls(error: &rustls::Error) -> Self {
        use rustls::{CertificateError, Error};
        match error {
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Self::new(Reason::CertificateExpired, "the server's certificate has expired"),
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })
                if presented.is_empty() =>
            {
                let detail = "the server's certificate has no subjectAltName, without which no host can be recognized: \
                              renew it with one";
                Self::new(Reason::TlsFailed, detail)
            }
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::new(Reason::TlsFailed, "the server's certificate is not valid for this host name"),
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::new(
                Reason::TlsFailed,
                "the server's certificate is signed by an authority that is not trusted",
            ),
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                // The verifier's own error, whose type is not exported.
                let (problem, remedy) = match other.to_string().as_str() {
                    "CaUsedAsEndEntity" => (
                        "is the certificate of an authority that is not trusted, such as a self-signed one"
                            .to_owned(),
                        "put this very certificate into spec.tls.caRef, or use one that an authority has issued",
                    ),
                    "UnsupportedCertVersion" => (
                        "has X.509 version 1, which cannot be verified".to_owned(),
                        "issue a certificate of version 3 for the server",
                    ),
                    other => (format!("cannot be verified ({other})"), Reason::TlsFailed.remedy()),
                };
                Self::new(Reason::TlsFailed, format!("the server's certificate {problem}"))
                    .with_remedy(remedy)
            }
            Error::InvalidCertificate(problem) => {
                Self::new(Reason::TlsFailed, format!("the server's certificate is not valid ({problem})"))
            }
            Error::AlertReceived(alert) => {
                Self::new(Reason::TlsFailed, format!("the server aborted the TLS handshake ({alert:?})"))
            }
            Error::InvalidMessage(_) => Self::no_tls(),
            other => Self::new(Reason::TlsFailed, other.to_string()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Fault {}

/// The TLS or IO error in the chain of causes.
pub(crate) fn find_cause(error: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Fault::from_tls(tls));
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(Fault::from_io(io));
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_a_server_sends_back_is_redacted() {
        let secret = SecretString::from("s3cr3t");
        let fault = Fault::new(Reason::AuthenticationFailed, "no such password: s3cr3t!").redacted([&secret]);
        assert_eq!(fault.detail, "no such password: [redacted]!");
    }

    #[test]
    fn a_tls_error_is_found_inside_of_an_io_error() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let io = io::Error::new(io::ErrorKind::InvalidData, tls);
        assert_eq!(Fault::from_io(&io).reason, Reason::CertificateExpired);
    }
}
