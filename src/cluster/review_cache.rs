//! The answers of the API server to reviews, cached for a short time, and for a longer one while it does not answer.

use std::{hash::Hash, sync::Arc, time::Duration};

use moka::future::Cache;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long an answer is used: a permission that is revoked ends within this time.
pub(super) const CACHE_TTL: Duration = Duration::from_secs(30);

/// The same while the API server does not answer: it is down, or cut off from this process alone, while permissions may be
/// revoked.
const OUTAGE_TTL: Duration = Duration::from_mins(10);

/// How long the API server is not asked again then.
const OUTAGE_BACKOFF: Duration = Duration::from_secs(10);

/// How long it may take to answer.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where an earlier answer can be used: one call waits for it, and no other until `OUTAGE_BACKOFF` is over.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Concurrent reviews for callers that are not known to have a permission: these cost a caller nothing, and must not crowd out
/// the reviews that end a permission.
const UNAUTHENTICATED_REVIEWS: usize = 16;

/// Answers that are cached at most.
pub(super) const CAPACITY: usize = 10_000;

/// Asks once for each key, however many calls wait for the answer.
pub(super) struct ReviewCache<K, V> {
    answers: Cache<K, Answer<V>>,
    outage: Arc<Outage>,
    /// Whether an answer grants something.
    grants: fn(&V) -> bool,
    unauthenticated: Semaphore,
}

/// Until when the API server is not asked. Whoever finds it down while an earlier answer can be used finds it down for all keys:
/// else each of them would wait. Refused reviews and new keys say nothing about others: unauthenticated callers cause those, and
/// must not keep permissions alive that were revoked.
#[derive(Default)]
pub(super) struct Outage(Mutex<Option<Instant>>);

#[derive(Clone)]
struct Answer<V> {
    /// None where there was no answer.
    value: Option<V>,
    asked: Instant,
    /// When to ask again.
    due: Instant,
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> ReviewCache<K, V> {
    /// An empty one.
    pub(super) fn new(outage: &Arc<Outage>, grants: fn(&V) -> bool) -> Self {
        let answers = Cache::builder().max_capacity(CAPACITY as u64).time_to_live(OUTAGE_TTL).build();
        Self {
            answers,
            outage: Arc::clone(outage),
            grants,
            unauthenticated: Semaphore::new(UNAUTHENTICATED_REVIEWS),
        }
    }

    /// The cached answer or a new one, and until when it may be used; none where there is neither.
    pub(super) async fn get(
        &self,
        key: K,
        ask: impl Future<Output = kube::Result<V>>,
    ) -> Option<(V, Instant)> {
        let known = self.answers.get(&key).await;
        let answer = match known {
            Some(known) if !known.is_due() => known,
            known => self.ask(key, known.filter(Answer::may_serve), ask).await,
        };
        Some((answer.value?, answer.due))
    }

    async fn ask(
        &self,
        key: K,
        known: Option<Answer<V>>,
        ask: impl Future<Output = kube::Result<V>>,
    ) -> Answer<V> {
        let asked = async {
            if let (Some(known), Some(end)) = (&known, self.outage.until()) {
                return Answer { due: end, ..known.clone() };
            }
            let limit = if known.is_some() { RENEWAL_TIMEOUT } else { REVIEW_TIMEOUT };
            let trusted = known.as_ref().and_then(|known| known.value.as_ref()).is_some_and(self.grants);
            let permit = async { if trusted { None } else { self.unauthenticated.acquire().await.ok() } };
            let Ok(_permit) = timeout(limit, permit).await else {
                tracing::warn!("too many reviews of unknown callers at the same time: one was not started");
                let due = Instant::now() + OUTAGE_BACKOFF;
                return known.map_or_else(Answer::none, |known| Answer { due, ..known });
            };
            let now = Instant::now();
            let down = match timeout(limit, ask).await {
                Ok(Ok(value)) => {
                    self.outage.end();
                    return Answer { value: Some(value), asked: now, due: now + CACHE_TTL };
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the API server failed a review");
                    !matches!(error, kube::Error::Api(_))
                }
                Err(_) => {
                    tracing::warn!(timeout = ?limit, "a review timed out");
                    true
                }
            };
            let Some(known) = known else { return Answer::none() };
            let due = Instant::now() + OUTAGE_BACKOFF;
            if down && trusted {
                self.outage.begin(due);
            }
            Answer { due, ..known }
        };
        self.answers.entry(key).or_insert_with_if(asked, Answer::is_due).await.into_value()
    }
}

impl Outage {
    /// None while there is no outage.
    fn until(&self) -> Option<Instant> {
        let end = *self.0.lock();
        end.filter(|end| Instant::now() < *end)
    }

    fn begin(&self, end: Instant) {
        *self.0.lock() = Some(end);
    }

    fn end(&self) {
        *self.0.lock() = None;
    }
}

impl<V> Answer<V> {
    fn none() -> Self {
        let now = Instant::now();
        Self { value: None, asked: now, due: now }
    }

    fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    fn may_serve(&self) -> bool {
        self.value.is_some() && self.asked.elapsed() < OUTAGE_TTL
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use futures::future::join_all;

    use super::*;

    fn refused() -> kube::Result<u8> {
        Err(kube::Error::TlsRequired)
    }

    const GRANTS: fn(&u8) -> bool = |value| *value > 0;

    /// The answer, without the time until which it may be used.
    async fn said(
        answers: &ReviewCache<&'static str, u8>,
        ask: impl Future<Output = kube::Result<u8>>,
    ) -> Option<u8> {
        let (value, until) = answers.get("key", ask).await?;
        assert!(Instant::now() < until, "it may be used for a while");
        Some(value)
    }

    /// Two kinds of questions, each with an answer that is due.
    async fn due() -> [ReviewCache<&'static str, u8>; 2] {
        let outage = Arc::default();
        let both = [ReviewCache::new(&outage, GRANTS), ReviewCache::new(&outage, GRANTS)];
        for answers in &both {
            assert_eq!(said(answers, ready(Ok(1))).await, Some(1));
        }
        tokio::time::advance(CACHE_TTL).await;
        both
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_cached_for_half_a_minute_and_then_asked_for_again() {
        let answers = ReviewCache::new(&Arc::default(), GRANTS);
        assert_eq!(said(&answers, ready(Ok(1))).await, Some(1));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(said(&answers, ready(Ok(2))).await, Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(said(&answers, ready(Ok(2))).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_used_for_ten_minutes_of_an_outage_and_no_longer() {
        let answers = ReviewCache::new(&Arc::default(), GRANTS);
        assert_eq!(said(&answers, ready(refused())).await, None);
        assert_eq!(said(&answers, ready(Ok(1))).await, Some(1));
        let began = Instant::now();
        while began.elapsed() < OUTAGE_TTL {
            assert_eq!(said(&answers, ready(refused())).await, Some(1), "{:?}", began.elapsed());
            tokio::time::advance(OUTAGE_BACKOFF).await;
        }
        assert_eq!(said(&answers, ready(refused())).await, None);
        assert_eq!(said(&answers, ready(Ok(2))).await, Some(2), "and it is asked again at once");
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_waits_a_second_for_an_api_server_that_hangs_and_no_other_until_it_is_asked_again() {
        let [answers, others] = due().await;
        for _ in 0..3 {
            for (answers, waits) in
                [(&answers, RENEWAL_TIMEOUT), (&answers, Duration::ZERO), (&others, Duration::ZERO)]
            {
                let began = Instant::now();
                assert_eq!(said(answers, pending()).await, Some(1));
                assert_eq!(began.elapsed().as_secs(), waits.as_secs());
            }
            tokio::time::advance(OUTAGE_BACKOFF).await;
        }
        assert_eq!(said(&answers, ready(Ok(2))).await, Some(2), "it is back");
        assert_eq!(said(&others, ready(Ok(2))).await, Some(2), "for the others as well");
    }

    #[tokio::test(start_paused = true)]
    async fn reviews_of_unauthenticated_callers_keep_no_permission_alive() {
        let [unauthenticated, revoked] = due().await;
        let status = kube::core::Status::failure("too large", "RequestEntityTooLarge");
        let refused = ready(Err(kube::Error::Api(Box::new(status))));
        assert_eq!(said(&unauthenticated, refused).await, Some(1));
        assert_eq!(unauthenticated.get("new", pending()).await, None);
        assert_eq!(said(&revoked, ready(Ok(0))).await, Some(0), "asked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_unauthenticated_callers_ask_a_permission_is_reviewed_again() {
        let answers = ReviewCache::new(&Arc::default(), GRANTS);
        for (key, value) in [(0, 1), (1, 0)] {
            assert_eq!(answers.get(key, ready(Ok(value))).await.map(|(value, _)| value), Some(value));
        }
        tokio::time::advance(CACHE_TTL).await;
        let asked = AtomicUsize::new(0);
        let unauthenticated = join_all((1..=2 * UNAUTHENTICATED_REVIEWS).map(|key| {
            answers.get(key, async {
                asked.fetch_add(1, Relaxed);
                pending().await
            })
        }));
        let revoked = async {
            assert_eq!(asked.load(Relaxed), UNAUTHENTICATED_REVIEWS, "no more at the same time");
            // Longer than the timeout of a caller that was refused before.
            tokio::time::sleep(2 * RENEWAL_TIMEOUT).await;
            answers.get(0, ready(Ok(0))).await.map(|(value, _)| value)
        };
        let (unauthenticated, revoked) = tokio::join!(unauthenticated, revoked);
        assert_eq!(revoked, Some(0));
        let refused = unauthenticated.iter().flatten().map(|(value, _)| *value);
        assert_eq!(refused.collect::<Vec<_>>(), [0], "and nobody gets a permission by it");
    }
}
