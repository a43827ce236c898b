//! Deadlines of connection attempts and probes; a timeout names its stage.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{api::Reason, backends::Fault};

/// The stages of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The server's greeting, and the login.
    Login,
    /// The query of a probe.
    Query,
}

impl Stage {
    fn timed_out(self) -> Fault {
        let what = match self {
            Self::Connect => "no connection",
            Self::Tls => "connected, but no response to the TLS handshake",
            Self::Login => "connected, but no response to the login",
            Self::Query => "logged in, but no response to the probe's query",
        };
        Fault::new(Reason::Timeout, format!("{what} within spec.healthCheck.timeout"))
    }
}

/// The deadline of all stages together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Slightly earlier than `timeout`: the caller's own timeout could not name the stage.
    pub(super) fn within(timeout: Duration) -> Self {
        Self(Instant::now() + timeout * 19 / 20)
    }

    /// Runs a stage.
    ///
    /// # Errors
    /// Its own, or a `Timeout` that names the stage.
    pub(super) async fn wait<T>(
        self,
        stage: Stage,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        timeout_at(self.0, work).await.unwrap_or_else(|_| Err(stage.timed_out()))
    }

    /// Completes after half of the remaining time.
    pub(super) async fn half(self) {
        let now = Instant::now();
        sleep_until(now + self.0.saturating_duration_since(now) / 2).await;
    }
}
