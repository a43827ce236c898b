//! How much an endpoint has to do, seen from the one who calls it.

use std::time::Duration;

/// What a latency from so long ago counts is down to a third (1/e).
const MEMORY: f64 = 30.0;

/// What one failure counts at the most: as much as a second of nothing but failures. By its time alone, the first one, or one
/// after a long rest, would keep calls away for minutes.
const FAILURE: f64 = 1.0 / MEMORY;

/// Shorter latencies are no difference: 1 ms.
const LEAST: f64 = 0.001;

/// The calls in flight and the moving average of their latencies, weighted by time (EWMA).
#[derive(Clone, Debug, Default)]
pub struct Load {
    in_flight: u32,
    /// Seconds; none before the first answer.
    latency: Option<f64>,
    /// When the average was last taken.
    at: Duration,
}

impl Load {
    /// A call starts.
    pub fn start(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// A call ends well, after so long; `now` is the time since any start.
    pub fn end(&mut self, latency: Duration, now: Duration) {
        self.take(latency, 1.0, now);
    }

    /// A call fails. It counts as if it had used up its `timeout`: an endpoint that refuses at once must not look quick.
    pub fn fail(&mut self, timeout: Duration, now: Duration) {
        self.take(timeout, FAILURE, now);
    }

    /// A call ends that says nothing of the endpoint: its caller went away.
    pub fn cancel(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// What one more call would make it: calls x seconds. It falls with time, so that an endpoint that was slow once is
    /// tried again; one without an answer so far counts as quick, for the same reason.
    #[must_use]
    pub fn value(&self, now: Duration) -> f64 {
        f64::from(self.in_flight.saturating_add(1)) * self.left(now).0.max(LEAST)
    }

    /// Counts a latency, as no more than this share of the average.
    fn take(&mut self, latency: Duration, most: f64, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let (left, share) = self.left(now);
        self.latency = Some(left + latency.as_secs_f64() * share.min(most));
        self.at = self.at.max(now);
    }

    /// What is left of the average, and the share of a latency that comes now.
    fn left(&self, now: Duration) -> (f64, f64) {
        let Some(average) = self.latency else { return (0.0, 1.0) };
        let kept = (-now.saturating_sub(self.at).as_secs_f64() / MEMORY).exp();
        (average * kept, 1.0 - kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The load after answers once a second that took so many milliseconds each.
    fn answered(millis: &[u64]) -> Load {
        let mut load = Load::default();
        for (second, latency) in (100..).zip(millis) {
            load.start();
            load.end(Duration::from_millis(*latency), at(second));
        }
        load
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < expected * 0.01, "{value} and not {expected}");
    }

    #[test]
    fn the_load_is_the_calls_in_flight_times_the_latency() {
        let mut load = answered(&[50]);
        near(load.value(at(100)), 0.05);
        load.start();
        load.start();
        near(load.value(at(100)), 0.15);
        load.cancel();
        near(load.value(at(100)), 0.1);
    }

    #[test]
    fn the_average_follows_the_latency_within_the_memory() {
        let slower = [[10; 50], [100; 50]].concat();
        let [now, later] =
            [&slower[..55], &slower[..]].map(|millis| answered(millis).value(at(99 + millis.len() as u64)));
        assert!((0.02..0.03).contains(&now), "{now}");
        assert!((0.08..0.1).contains(&later), "{later}");
    }

    #[test]
    fn an_endpoint_that_was_slow_is_tried_again_after_a_while() {
        let slow = answered(&[1000]);
        near(slow.value(at(100)), 1.0);
        near(slow.value(at(130)), 0.368);
        near(slow.value(at(1000)), LEAST);
    }

    #[test]
    fn before_the_first_answer_only_the_calls_count() {
        let mut load = Load::default();
        near(load.value(at(5)), LEAST);
        load.start();
        near(load.value(at(5)), 2.0 * LEAST);
        load.cancel();
        load.cancel();
        near(load.value(at(5)), LEAST);
    }

    #[test]
    fn what_fails_at_once_does_not_look_quick() {
        let mut failing = answered(&[10; 10]);
        for _ in 0..10 {
            failing.start();
            failing.fail(Duration::from_secs(10), at(110));
        }
        assert!(failing.value(at(110)) > 0.02);
        // Failures alone make it as slow as its time-out.
        for second in 111..300 {
            failing.fail(Duration::from_secs(10), at(second));
        }
        assert!((9.0..10.1).contains(&failing.value(at(299))), "{}", failing.value(at(299)));
    }

    #[test]
    fn one_failure_is_no_verdict_be_it_the_first_answer_or_one_after_a_long_rest() {
        for mut load in [Load::default(), answered(&[50])] {
            load.fail(Duration::from_secs(10), at(1000));
            near(load.value(at(1000)), 0.333);
            assert!(load.value(at(1060)) < 0.05, "others that take 50 ms are no better after a minute");
            load.end(Duration::from_millis(50), at(1060));
            assert!(load.value(at(1060)) < 0.1, "{}", load.value(at(1060)));
        }
    }
}
