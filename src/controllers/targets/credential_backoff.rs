//! Changed credentials that do not work, while the previous ones do. They are tried with backoff: servers lock accounts that fail to
//! log in too often.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OwnedMutexGuard;

use crate::{api::Reason, backends::Fault, domain::backoff::RESYNC};

/// The keys of an object's targets.
pub(super) type Keys = Vec<[u8; 32]>;

/// A changed credential that does not work.
#[derive(Clone)]
pub struct RefusedCredential {
    /// Why it does not work.
    pub fault: Fault,
    /// When it is tried again.
    pub retry_at: Instant,
    pub(super) at: Instant,
    pub(super) pause: Duration,
    /// Of the targets at which it was tried.
    pub(super) keys: Keys,
}

impl RefusedCredential {
    /// Just now; `last` is the refusal before.
    pub(super) fn now(fault: Fault, keys: Keys, last: Option<&Self>, interval: Duration) -> Self {
        let pause = last.map_or(interval, |last| last.pause * 2).min(RESYNC);
        let at = Instant::now();
        Self { fault, retry_at: at + pause, at, pause, keys }
    }

    /// Whether it is not to be tried again yet.
    pub(super) fn is_backing_off(&self) -> bool {
        Instant::now() < self.retry_at
    }
}

/// What is known of each login, since many objects may have it.
#[derive(Default)]
pub(super) struct CredentialBackoff(Mutex<HashMap<Keys, Login>>);

#[derive(Default)]
struct Login {
    /// Locked while it is tried.
    turn: Arc<tokio::sync::Mutex<()>>,
    refused: Option<RefusedCredential>,
}

impl CredentialBackoff {
    /// Waits while another object tries this login. Whoever gets a guard is the one to try it; the others use its outcome.
    pub(super) async fn turn(&self, login: &Keys) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut all = self.all();
            // Nobody has it any more, or it would have been tried again.
            let is_used = |it: &RefusedCredential| Instant::now() < it.retry_at + RESYNC;
            all.retain(|_, it| Arc::strong_count(&it.turn) > 1 || it.refused.as_ref().is_some_and(is_used));
            Arc::clone(&all.entry(login.clone()).or_default().turn)
        };
        let mine = Arc::clone(&turn).try_lock_owned().ok();
        if mine.is_none() {
            drop(turn.lock().await);
        }
        mine
    }

    /// The last refusal of this login.
    pub(super) fn last(&self, login: &Keys) -> Option<RefusedCredential> {
        self.all().get(login)?.refused.clone()
    }

    /// The same if it is of the last `interval`, and is still backing off.
    pub(super) fn recent(&self, login: &Keys, interval: Duration) -> Option<RefusedCredential> {
        self.last(login).filter(|it| it.is_backing_off() && it.at.elapsed() < interval)
    }

    /// Another object need not try what the server has refused. What else was wrong may be so for one alone.
    pub(super) fn add(&self, login: &Keys, refused: &RefusedCredential) {
        if refused.fault.reason == Reason::AuthenticationFailed {
            self.all().entry(login.clone()).or_default().refused = Some(refused.clone());
        }
    }

    /// It works.
    pub(super) fn remove(&self, login: &Keys) {
        if let Some(login) = self.all().get_mut(login) {
            login.refused = None;
        }
    }

    pub(super) fn clear(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Keys, Login>> {
        self.0.lock()
    }
}
