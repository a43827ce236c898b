//! The load of an endpoint, as measured by its caller.

use std::time::Duration;

/// The time constant of the moving average, in seconds: the weight of a latency falls to 1/e in this time.
const TIME_CONSTANT: f64 = 30.0;

/// The maximum weight of one failure: that of one second of failures only. By its elapsed time alone, the first
/// failure, or one after a long pause, would keep calls away for minutes.
const MAX_FAILURE_WEIGHT: f64 = 1.0 / TIME_CONSTANT;

/// The minimum latency, in seconds: below it, endpoints are considered equally fast.
const MIN_LATENCY: f64 = 0.001;

/// The number of calls in flight, and the exponentially weighted moving average of their latencies (EWMA).
#[derive(Clone, Debug, Default)]
pub struct Load {
    in_flight: u32,
    /// The average in seconds; none before the first response.
    latency: Option<f64>,
    /// The time of the last update of the average.
    updated: Duration,
}

impl Load {
    /// A call starts.
    pub fn start(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// A call succeeds after `latency`; `now` is a monotonic time.
    pub fn end(&mut self, latency: Duration, now: Duration) {
        self.record(latency, 1.0, now);
    }

    /// A call fails. It counts as if it had taken its whole `timeout`, so that an endpoint that fails immediately
    /// does not look fast.
    pub fn fail(&mut self, timeout: Duration, now: Duration) {
        self.record(timeout, MAX_FAILURE_WEIGHT, now);
    }

    /// A call ends without a result, since its caller disconnected.
    pub fn cancel(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The load with one more call: number of calls times average latency in seconds. It decays over time, so that an
    /// endpoint that was slow is tried again; an endpoint without a response so far counts as fast, for the same
    /// reason.
    #[must_use]
    pub fn value(&self, now: Duration) -> f64 {
        f64::from(self.in_flight.saturating_add(1)) * self.decayed(now).0.max(MIN_LATENCY)
    }

    /// Adds a latency to the average, with at most this weight.
    fn record(&mut self, latency: Duration, max_weight: f64, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let (average, weight) = self.decayed(now);
        self.latency = Some(average + latency.as_secs_f64() * weight.min(max_weight));
        self.updated = self.updated.max(now);
    }

    /// The decayed average, and the weight of a new latency.
    fn decayed(&self, now: Duration) -> (f64, f64) {
        let Some(average) = self.latency else { return (0.0, 1.0) };
        let decay = (-now.saturating_sub(self.updated).as_secs_f64() / TIME_CONSTANT).exp();
        (average * decay, 1.0 - decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The load after one response per second with these latencies.
    fn after(millis: &[u64]) -> Load {
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
        let mut load = after(&[50]);
        near(load.value(at(100)), 0.05);
        load.start();
        load.start();
        near(load.value(at(100)), 0.15);
        load.cancel();
        near(load.value(at(100)), 0.1);
    }

    #[test]
    fn the_average_follows_the_latency_within_the_time_constant() {
        let slower = [[10; 50], [100; 50]].concat();
        let [now, later] =
            [&slower[..55], &slower[..]].map(|millis| after(millis).value(at(99 + millis.len() as u64)));
        assert!((0.02..0.03).contains(&now), "{now}");
        assert!((0.08..0.1).contains(&later), "{later}");
    }

    #[test]
    fn an_endpoint_that_was_slow_is_tried_again_after_some_time() {
        let slow = after(&[1000]);
        near(slow.value(at(100)), 1.0);
        near(slow.value(at(130)), 0.368);
        near(slow.value(at(1000)), MIN_LATENCY);
    }

    #[test]
    fn before_the_first_response_only_the_number_of_calls_counts() {
        let mut load = Load::default();
        near(load.value(at(5)), MIN_LATENCY);
        load.start();
        near(load.value(at(5)), 2.0 * MIN_LATENCY);
        load.cancel();
        load.cancel();
        near(load.value(at(5)), MIN_LATENCY);
    }

    #[test]
    fn an_endpoint_that_fails_immediately_does_not_look_fast() {
        let mut failing = after(&[10; 10]);
        for _ in 0..10 {
            failing.start();
            failing.fail(Duration::from_secs(10), at(110));
        }
        assert!(failing.value(at(110)) > 0.02);
        // With failures only, the average approaches the timeout.
        for second in 111..300 {
            failing.fail(Duration::from_secs(10), at(second));
        }
        assert!((9.0..10.1).contains(&failing.value(at(299))), "{}", failing.value(at(299)));
    }

    #[test]
    fn one_failure_has_a_small_effect_even_as_the_first_response_or_after_a_long_pause() {
        for mut load in [Load::default(), after(&[50])] {
            load.fail(Duration::from_secs(10), at(1000));
            near(load.value(at(1000)), 0.333);
            assert!(load.value(at(1060)) < 0.05, "an endpoint that takes 50 ms is no better after a minute");
            load.end(Duration::from_millis(50), at(1060));
            assert!(load.value(at(1060)) < 0.1, "{}", load.value(at(1060)));
        }
    }
}
