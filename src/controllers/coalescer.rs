//! Requests for the same work at the same time, coalesced into one run.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::{Mutex, MutexGuard};

/// One run at a time for each key. Requests that come while one runs share the next, which starts from the state by then: so it
/// is the last one that any of them waits for, however many they are.
pub(super) struct Coalescer<K, T>(Mutex<HashMap<K, Arc<Run<T>>>>);

struct Run<T> {
    /// How many times it was requested.
    requests: AtomicU64,
    last: tokio::sync::Mutex<Option<Last<T>>>,
}

struct Last<T> {
    /// The outcome serves the requests up to this one.
    covers: u64,
    outcome: T,
}

impl<K, T> Default for Coalescer<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone> Coalescer<K, T> {
    /// Runs `work`, unless a run that began after this call has succeeded in the meantime; either way gives the outcome.
    /// The work gets the outcome of the last run.
    ///
    /// # Errors
    /// Those of the work; the next request runs it again.
    pub(super) async fn run<F, E>(&self, key: K, work: impl FnOnce(Option<T>) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let run = Arc::clone(self.all().entry(key).or_default());
        let mine = run.requests.fetch_add(1, SeqCst) + 1;
        let mut last = run.last.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.covers >= mine) {
            return Ok(last.outcome.clone());
        }
        let covers = run.requests.load(SeqCst);
        let before = last.as_ref().map(|last| last.outcome.clone());
        let outcome = work(before).await?;
        *last = Some(Last { covers, outcome: outcome.clone() });
        Ok(outcome)
    }

    /// Forgets the outcome for this key.
    pub(super) fn forget(&self, key: &K) {
        self.all().remove(key);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<K, Arc<Run<T>>>> {
        self.0.lock()
    }
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self { requests: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    /// What each of so many who ask at the same time gets: the number of the run. The first run fails if `fail` says so.
    async fn asked_by(count: usize, fail: bool) -> (Vec<Result<u64, ()>>, u64) {
        let (coalescer, runs) = (Coalescer::<&str, u64>::default(), AtomicU64::new(0));
        let ask = || {
            coalescer.run("key", async |_| {
                let run = runs.fetch_add(1, SeqCst) + 1;
                tokio::task::yield_now().await;
                if fail && run == 1 { Err(()) } else { Ok(run) }
            })
        };
        let outcomes = join_all((0..count).map(|_| ask())).await;
        (outcomes, runs.load(SeqCst))
    }

    #[tokio::test]
    async fn requests_while_one_runs_share_the_next_run() {
        let (outcomes, runs) = asked_by(100, false).await;
        assert_eq!((runs, outcomes[0]), (2, Ok(1)));
        assert!(outcomes[1..].iter().all(|outcome| *outcome == Ok(2)), "{outcomes:?}");
    }

    #[tokio::test]
    async fn a_run_that_failed_serves_no_other_request() {
        let (outcomes, runs) = asked_by(100, true).await;
        assert_eq!((runs, outcomes[0], outcomes[99]), (2, Err(()), Ok(2)));
    }

    #[tokio::test]
    async fn a_later_request_has_a_run_of_its_own_that_gets_the_last_outcome() {
        let coalescer = Coalescer::<&str, u64>::default();
        let count =
            async || coalescer.run("key", async |last| Ok::<_, ()>(last.unwrap_or_default() + 1)).await;
        assert_eq!([count().await, count().await], [Ok(1), Ok(2)]);
        coalescer.forget(&"key");
        assert_eq!(count().await, Ok(1));
    }
}
