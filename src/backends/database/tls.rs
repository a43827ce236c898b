//! TLS with a database server.

use std::future::pending;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{
    ServerSettings,
    deadline::{Deadline, Stage},
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        transport::{self, TlsSettings},
    },
};

/// The TLS settings of a server, and when its certificate expires.
pub(super) struct ServerTls {
    host: String,
    settings: TlsSettings,
    not_after: Mutex<Option<Timestamp>>,
}

impl ServerTls {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        Self { host: settings.host.clone(), settings: settings.tls.clone(), not_after: Mutex::default() }
    }

    /// Whether connections are encrypted.
    pub(super) fn enabled(&self) -> bool {
        self.settings.enabled()
    }

    /// When the certificate shown in the last handshake expires.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        *self.not_after.lock()
    }

    /// Completes the handshake with a server that has announced TLS.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        deadline: Deadline,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let handshake = transport::handshake(stream, &self.host, &self.settings);
        let stream = deadline.wait(Stage::Tls, handshake).await?;
        *self.not_after.lock() = transport::not_after(&stream);
        Ok(stream)
    }

    /// The same for implicit TLS. A server without TLS takes the handshake for a command, and does not respond or closes the connection:
    /// `speaks_plaintext` tries a command over another one.
    pub(super) async fn implicit_handshake<'a>(
        &self,
        stream: TcpStream,
        deadline: Deadline,
        speaks_plaintext: impl Fn() -> BoxFuture<'a, bool> + Send + Sync,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let plaintext = async {
            deadline.half().await;
            if !speaks_plaintext().await {
                pending::<()>().await;
            }
        };
        let outcome = tokio::select! {
            outcome = self.handshake(stream, deadline) => outcome,
            () = plaintext => return Err(Fault::no_tls()),
        };
        let closed = outcome.as_ref().is_err_and(|fault| fault.reason == Reason::Unavailable);
        let plaintext = async { Ok(closed && speaks_plaintext().await) };
        if deadline.wait(Stage::Tls, plaintext).await.unwrap_or(false) {
            return Err(Fault::no_tls());
        }
        outcome
    }
}
