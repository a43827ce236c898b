//! Local sockets for drivers that open connections themselves (those of MySQL and MongoDB): each connection is relayed over one of ours,
//! with the egress guard, TLS and typed faults of the other engines. These drivers would trust public authorities in addition to
//! `tls.caRef`, and do not expose the server's certificate.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{UnixListener, UnixStream},
};

use crate::{api::Reason, backends::Fault};

/// A connection, encrypted or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A folder for the sockets, accessible only to the user of this process.
pub(super) struct Sockets {
    folder: TempDir,
    next: AtomicU64,
}

impl Sockets {
    /// Creates the folder.
    ///
    /// # Errors
    /// `Unavailable` if temporary files cannot be written.
    pub(super) fn new() -> Result<Self, Fault> {
        let folder = tempfile::Builder::new().prefix("authlink-").tempdir();
        Ok(Self { folder: folder.map_err(|error| unwritable(&error))?, next: AtomicU64::default() })
    }

    /// Binds a new socket.
    pub(super) fn listen(&self) -> Result<Socket, Fault> {
        let path = self.folder.path().join(self.next.fetch_add(1, Relaxed).to_string());
        let listener = UnixListener::bind(&path).map_err(|error| unwritable(&error))?;
        Ok(Socket { listener, path })
    }
}

fn unwritable(error: &io::Error) -> Fault {
    Fault::new(
        Reason::Unavailable,
        format!("cannot create a socket in the folder for temporary files ({})", error.kind()),
    )
}

/// A listening socket; its path is removed when it is dropped.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// The path that the driver connects to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The driver's next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Forwards in both directions until either side closes.
pub(super) async fn forward(mut driver: UnixStream, mut server: Box<dyn Io>) {
    let _ = copy_bidirectional(&mut driver, &mut server).await;
}
