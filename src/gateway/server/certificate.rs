//! The gateway's own certificate, read again when its files change: a renewal needs no restart.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// How often the files are checked, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A certificate with its key, and the files of both.
#[derive(Debug)]
pub(super) struct Certificate {
    files: (PathBuf, PathBuf),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    key: Arc<CertifiedKey>,
    changed: Option<SystemTime>,
    checked: Instant,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// Which file, and what is wrong with it.
    pub(super) fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let files = (certificate, key);
        let state = State { changed: changed(&files), key: Arc::new(load(&files)?), checked: Instant::now() };
        Ok(Self { files, state: Mutex::new(state) })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut state = self.state.lock();
        if state.checked.elapsed() >= CHECK_INTERVAL {
            state.checked = Instant::now();
            let now = changed(&self.files);
            if now != state.changed {
                match load(&self.files) {
                    Ok(key) => (state.key, state.changed) = (Arc::new(key), now),
                    // It may be half written: the old one serves until the new one can be read.
                    Err(problem) => tracing::warn!(problem, "the new certificate cannot be used"),
                }
            }
        }
        Some(Arc::clone(&state.key))
    }
}

fn changed((certificate, _): &(PathBuf, PathBuf)) -> Option<SystemTime> {
    fs::metadata(certificate).and_then(|metadata| metadata.modified()).ok()
}

fn load((certificate, key): &(PathBuf, PathBuf)) -> Result<CertifiedKey, String> {
    let unusable = |file: &PathBuf, why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|_| unusable(key, &"no private key as PEM"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| unusable(certificate, &error))
}
