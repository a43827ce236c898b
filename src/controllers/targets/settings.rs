//! How a kind's targets are reached and probed.

use crate::{api::Reason, backends::Fault, probing::Target};

/// How one target is reached: plain values, with the credential.
pub trait TargetSettings: Clone + Send + Sync + 'static {
    /// What is probed.
    type Target: Target;

    /// Why `Connected` is true when the probes pass, and in words.
    const CONNECTED: (Reason, &'static str);

    /// The same for settings that reach the same target with the same credential; they share a monitor and a pool.
    fn key(&self) -> [u8; 32];

    /// The same for settings that reach the same target, whatever the credential.
    fn target_key(&self) -> [u8; 32];

    /// The same for settings of which one login says whether the others can log in.
    fn login_key(&self) -> [u8; 32] {
        self.key()
    }

    /// Host name or address.
    fn host(&self) -> &str;

    /// TCP port.
    fn port(&self) -> u16;

    /// Whether its probes carry the credential.
    fn proves_credential(&self) -> bool {
        true
    }

    /// Why calls would fail although the target works, such as for lack of an access token.
    #[must_use]
    fn credential_fault(_: &FactsOf<Self>) -> Option<&Fault> {
        None
    }

    /// Whether it is probed at all; what is not counts as healthy.
    fn is_probed(&self) -> bool {
        true
    }

    /// Prepares the target; it connects at the first probe.
    ///
    /// # Errors
    /// A setting that cannot be used.
    fn target(&self) -> Result<Self::Target, Fault>;

    /// `host:port`, as users read it.
    fn endpoint(&self) -> String {
        match self.host() {
            host if host.contains(':') => format!("[{host}]:{}", self.port()),
            host => format!("{host}:{}", self.port()),
        }
    }
}

/// What a probe of these settings' target learns.
pub type FactsOf<S> = <<S as TargetSettings>::Target as Target>::Facts;
