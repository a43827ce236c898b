//! One server of a directory as something that can be probed.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    api::Reason,
    backends::{
        Fault,
        directory::{Directory, DirectoryRegistry, DirectorySettings, Login},
    },
    controllers::targets,
    probing::Target,
};

/// How a server is reached, and where its directory is kept.
#[derive(Clone)]
pub struct ProbeTarget {
    pub(super) settings: DirectorySettings,
    pub(super) index: usize,
    pub(super) directories: Arc<DirectoryRegistry>,
}

/// A server.
pub struct ServerProbe {
    directory: Arc<Directory>,
    index: usize,
}

/// What a probe learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The server's maker and version; empty where it does not say.
    pub vendor: String,
    /// When its certificate ends.
    pub not_after: Option<Timestamp>,
}

impl ProbeTarget {
    fn digest(&self, key: [u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(key);
        hash.update(self.index.to_le_bytes());
        hash.finalize().into()
    }
}

impl targets::TargetSettings for ProbeTarget {
    type Target = ServerProbe;

    const CONNECTED: (Reason, &'static str) = (Reason::LoginSucceeded, "network, TLS and bind succeed");

    fn key(&self) -> [u8; 32] {
        self.digest(self.settings.key())
    }

    fn target_key(&self) -> [u8; 32] {
        self.digest(self.settings.servers_key())
    }

    fn login_key(&self) -> [u8; 32] {
        self.settings.key()
    }

    fn host(&self) -> &str {
        self.settings.servers.get(self.index).map_or("", |server| &server.host)
    }

    fn port(&self) -> u16 {
        self.settings.servers.get(self.index).map_or(0, |server| server.port)
    }

    fn proves_credential(&self) -> bool {
        !matches!(self.settings.login, Login::Anonymous)
    }

    fn target(&self) -> Result<ServerProbe, Fault> {
        let directory = self.directories.directory(self.settings.clone())?;
        Ok(ServerProbe { directory, index: self.index })
    }
}

impl Target for ServerProbe {
    type Facts = Facts;

    async fn probe(&self) -> Result<Facts, Fault> {
        let probe = self.directory.probe(self.index).await?;
        Ok(Facts { vendor: probe.root.vendor, not_after: probe.not_after })
    }
}
