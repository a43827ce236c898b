//! Answers of the API server, remembered for a short while, and for a longer one while it does not answer.

use std::{hash::Hash, time::Duration};

use moka::future::Cache;
use tokio::time::Instant;

/// How long an answer is believed: a right that is taken away ends within it.
pub const REMEMBERED: Duration = Duration::from_secs(30);

/// How long one is believed while the API server does not answer: it is away, or cut off from this process alone, where
/// rights may end meanwhile.
const BRIDGED: Duration = Duration::from_mins(10);

/// How long it is left in peace then.
const PAUSE: Duration = Duration::from_secs(10);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where an earlier answer will do: calls wait for it.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Answers that are remembered at the most.
const CAPACITY: u64 = 10_000;

/// Asks once for each question, however many want to know.
pub(super) struct Answers<K, V>(Cache<K, Answer<V>>);

#[derive(Clone)]
struct Answer<V> {
    /// None where there was no answer.
    value: Option<V>,
    asked: Instant,
    /// When to ask again.
    due: Instant,
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Answers<K, V> {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_live(BRIDGED).build())
    }

    /// What is remembered, or else the answer; none where there is neither.
    pub(super) async fn get(&self, key: K, ask: impl Future<Output = kube::Result<V>>) -> Option<V> {
        let known = self.0.get(&key).await;
        if let Some(known) = known.as_ref().filter(|known| !known.is_due()) {
            return known.value.clone();
        }
        // On the heap, because it is large, and rare.
        Box::pin(self.ask(key, known.filter(Answer::may_serve), ask)).await
    }

    async fn ask(
        &self,
        key: K,
        known: Option<Answer<V>>,
        ask: impl Future<Output = kube::Result<V>>,
    ) -> Option<V> {
        let asked = async {
            let patience = if known.is_some() { SHORT_PATIENCE } else { PATIENCE };
            let now = Instant::now();
            match tokio::time::timeout(patience, ask).await {
                Ok(Ok(value)) => return Answer { value: Some(value), asked: now, due: now + REMEMBERED },
                Ok(Err(error)) => tracing::warn!(%error, "the API server failed a review"),
                Err(_) => tracing::warn!("the API server does not answer a review"),
            }
            let bridged = known.map(|known| Answer { due: Instant::now() + PAUSE, ..known });
            bridged.unwrap_or(Answer { value: None, asked: now, due: now })
        };
        self.0.entry(key).or_insert_with_if(asked, Answer::is_due).await.into_value().value
    }
}

impl<V> Answer<V> {
    fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    fn may_serve(&self) -> bool {
        self.value.is_some() && self.asked.elapsed() < BRIDGED
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn refused() -> kube::Result<u8> {
        Err(kube::Error::TlsRequired)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_half_a_minute_and_then_asked_for_again() {
        let answers = Answers::new();
        assert_eq!(answers.get("key", ready(Ok(1))).await, Some(1));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(answers.get("key", ready(Ok(2))).await, Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(answers.get("key", ready(Ok(2))).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_bridges_an_outage_for_ten_minutes_and_no_longer() {
        let answers = Answers::new();
        assert_eq!(answers.get("key", ready(refused())).await, None);
        assert_eq!(answers.get("key", ready(Ok(1))).await, Some(1));
        let began = Instant::now();
        while began.elapsed() < BRIDGED {
            assert_eq!(answers.get("key", ready(refused())).await, Some(1), "{:?}", began.elapsed());
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!(answers.get("key", ready(refused())).await, None);
        assert_eq!(answers.get("key", ready(Ok(2))).await, Some(2), "and it is asked again at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_a_second_for_an_api_server_that_hangs_and_the_next_ones_do_not() {
        let answers = Answers::new();
        assert_eq!(answers.get("key", ready(Ok(1))).await, Some(1));
        tokio::time::advance(REMEMBERED).await;
        for waits in [SHORT_PATIENCE, Duration::ZERO, Duration::ZERO] {
            let began = Instant::now();
            assert_eq!(answers.get("key", pending()).await, Some(1));
            assert_eq!(began.elapsed().as_secs(), waits.as_secs());
        }
    }
}
