//! The right to write: it ends by itself, even for a process that was frozen and does not know the time.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::time::Instant;

/// Who may write to the cluster, and until when. The leader election moves it; every write asks it first.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<RwLock<Option<Until>>>);

#[derive(Clone, Copy, Debug)]
enum Until {
    Forever,
    Then(Instant),
}

/// This process may not write now: another one may have taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process does not hold the lease")]
pub struct NotLeader;

impl Fence {
    /// A fence that is always open, for a process that is alone.
    #[must_use]
    pub fn open() -> Self {
        let fence = Self::default();
        fence.set(Some(Until::Forever));
        fence
    }

    /// Opens it until `end`, by the monotonic clock, which runs on while a process is stopped.
    pub fn open_until(&self, end: Instant) {
        self.set(Some(Until::Then(end)));
    }

    /// Closes it.
    pub fn close(&self) {
        self.set(None);
    }

    /// Whether this process may write now.
    ///
    /// # Errors
    /// [`NotLeader`] when it may not.
    pub fn check(&self) -> Result<(), NotLeader> {
        match *self.0.read() {
            Some(Until::Forever) => Ok(()),
            Some(Until::Then(end)) if Instant::now() < end => Ok(()),
            _ => Err(NotLeader),
        }
    }

    fn set(&self, until: Option<Until>) {
        *self.0.write() = until;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_right_to_write_ends_by_itself() {
        let fence = Fence::default();
        assert_eq!(fence.check(), Err(NotLeader));
        fence.open_until(Instant::now() + Duration::from_secs(15));
        assert_eq!(fence.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(fence.check(), Err(NotLeader));
    }
}
