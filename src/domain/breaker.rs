//! A circuit breaker: calls to a failing target are rejected for a time, and then a few trial calls decide whether it
//! has recovered.

use std::time::Duration;

use super::window::Window;

/// The settings of a circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Percentage of failed calls in the window at which the circuit opens.
    pub failure_threshold: u8,
    /// Minimum number of calls in the window before the circuit can open.
    pub min_requests: u32,
    /// The sliding window over which calls are counted.
    pub window: Duration,
    /// How long the circuit stays open.
    pub open_for: Duration,
    /// Number of trial calls in the half-open state, at least 1. All of them must succeed to close the circuit.
    pub half_open_requests: u32,
}

/// The state of a circuit, ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Calls are sent.
    Closed,
    /// A few trial calls are sent.
    HalfOpen,
    /// Calls are rejected.
    Open,
}

impl State {
    /// The name in statuses and Events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Open => "Open",
            Self::HalfOpen => "HalfOpen",
        }
    }

    /// The number in metrics and in the store: 0 closed, 1 half-open, 2 open.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// The state with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Closed),
            1 => Some(Self::HalfOpen),
            2 => Some(Self::Open),
            _ => None,
        }
    }
}

/// The permission for one call, to be given back with [`Breaker::record`] or [`Breaker::cancel`].
#[derive(Debug)]
#[must_use]
pub struct Permit {
    /// The state that the circuit changed to: `HalfOpen` for the first trial call, otherwise none.
    pub transition: Option<State>,
    epoch: u64,
}

/// The circuit breaker of one target.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerConfig,
    phase: Phase,
    /// Counts the transitions: the result of a call from before the last one is ignored.
    epoch: u64,
    results: Window,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { issued: u32, succeeded: u32, last: Duration },
}

/// The maximum `Retry-After` while all trial calls are in flight.
const TRIAL_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Breaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(settings: BreakerConfig) -> Self {
        let results = Window::new(settings.window);
        Self { settings, phase: Phase::Closed, epoch: 0, results }
    }

    /// The state. An open circuit becomes `HalfOpen` with the first trial call.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Requests the permission for a call; `now` is a monotonic time.
    ///
    /// # Errors
    /// The call is rejected; the error is the time after which to try again.
    pub fn allow(&mut self, now: Duration) -> Result<Permit, Duration> {
        let trials = self.settings.half_open_requests.max(1);
        let transition = match &mut self.phase {
            Phase::Closed => None,
            Phase::Open { until } if now < *until => return Err(until.saturating_sub(now)),
            Phase::Open { .. } => {
                Some(self.transition_to(Phase::HalfOpen { issued: 1, succeeded: 0, last: now }))
            }
            Phase::HalfOpen { issued, succeeded, last } => {
                let renewed = last.saturating_add(self.settings.open_for);
                // Slow trial calls, such as downloads, must not block all other calls.
                if *issued >= trials && now >= renewed {
                    *issued = *succeeded;
                }
                if *issued >= trials {
                    return Err(renewed.saturating_sub(now).min(TRIAL_RETRY_AFTER));
                }
                (*issued, *last) = (*issued + 1, now);
                None
            }
        };
        Ok(Permit { transition, epoch: self.epoch })
    }

    /// Records the result of a call. Returns the state that the circuit changed to, if it did.
    pub fn record(&mut self, Permit { epoch, .. }: Permit, ok: bool, now: Duration) -> Option<State> {
        if epoch != self.epoch {
            return None;
        }
        match &mut self.phase {
            Phase::Closed => {
                self.results.add(!ok, now);
                self.threshold_reached(now).then(|| self.open(now))
            }
            Phase::Open { .. } => None,
            Phase::HalfOpen { .. } if !ok => Some(self.open(now)),
            Phase::HalfOpen { succeeded, .. } => {
                *succeeded += 1;
                let enough = *succeeded >= self.settings.half_open_requests;
                enough.then(|| self.transition_to(Phase::Closed))
            }
        }
    }

    /// Returns the permit of a call without a result, such as one whose caller disconnected. Another call can be the
    /// trial.
    pub fn cancel(&mut self, Permit { epoch, .. }: Permit) {
        if let Phase::HalfOpen { issued, succeeded, .. } = &mut self.phase
            && epoch == self.epoch
        {
            // Permits of slow trials may have been issued again already: then there is none left to return.
            *issued = issued.saturating_sub(1).max(*succeeded);
        }
    }

    fn threshold_reached(&self, now: Duration) -> bool {
        let (all, failed) = self.results.counts(now);
        failed > 0
            && all >= u64::from(self.settings.min_requests)
            && failed * 100 >= all * u64::from(self.settings.failure_threshold)
    }

    fn open(&mut self, now: Duration) -> State {
        self.transition_to(Phase::Open { until: now.saturating_add(self.settings.open_for) })
    }

    fn transition_to(&mut self, phase: Phase) -> State {
        self.phase = phase;
        self.epoch += 1;
        self.results.clear();
        self.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig {
            failure_threshold: 50,
            min_requests: 4,
            window: at(30),
            open_for: at(15),
            half_open_requests: 3,
        })
    }

    /// Makes calls one after the other, and returns the transition that each caused.
    fn call(breaker: &mut Breaker, results: &[bool], now: Duration) -> Vec<Option<State>> {
        results
            .iter()
            .map(|ok| {
                let permit = breaker.allow(now).unwrap();
                breaker.record(permit, *ok, now)
            })
            .collect()
    }

    /// A breaker that opened at the time 0.
    fn open() -> Breaker {
        let mut breaker = breaker();
        call(&mut breaker, &[false; 4], at(0));
        assert_eq!(breaker.state(), State::Open);
        breaker
    }

    #[test]
    fn it_opens_at_the_threshold_and_not_before() {
        let mut breaker = breaker();
        assert_eq!(call(&mut breaker, &[false, false, false], at(0)), [None; 3], "too few calls");
        assert_eq!(call(&mut breaker, &[true], at(1)), [Some(State::Open)], "3 of 4 failed");
        assert_eq!(breaker.allow(at(1)).unwrap_err(), at(15));
        assert_eq!(breaker.allow(at(15)).unwrap_err(), at(1));
    }

    #[test]
    fn fewer_failures_than_the_threshold_leave_it_closed() {
        let mut breaker = breaker();
        let results = [true, true, false].repeat(100);
        assert_eq!(call(&mut breaker, &results, at(0)), vec![None; 300]);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = breaker();
        call(&mut breaker, &[false; 3], at(0));
        assert_eq!(call(&mut breaker, &[false; 3], at(31)), [None; 3]);
        assert_eq!(call(&mut breaker, &[false], at(31)), [Some(State::Open)]);
    }

    #[test]
    fn after_open_for_the_trial_calls_close_it() {
        let mut breaker = open();
        let permits: Vec<_> = (0..3).map(|_| breaker.allow(at(15)).unwrap()).collect();
        let transitions: Vec<_> = permits.iter().map(|permit| permit.transition).collect();
        assert_eq!(transitions, [Some(State::HalfOpen), None, None]);
        assert!(breaker.allow(at(16)).is_err(), "no more than the trials");
        let transitions: Vec<_> =
            permits.into_iter().map(|permit| breaker.record(permit, true, at(17))).collect();
        assert_eq!(transitions, [None, None, Some(State::Closed)]);
        assert_eq!(call(&mut breaker, &[false; 3], at(17)), [None; 3], "earlier results are forgotten");
    }

    #[test]
    fn one_failed_trial_opens_it_again() {
        let mut breaker = open();
        assert_eq!(call(&mut breaker, &[true, false], at(15)), [None, Some(State::Open)]);
        assert_eq!(breaker.allow(at(16)).unwrap_err(), at(14));
    }

    #[test]
    fn a_trial_without_a_result_is_given_to_another_call() {
        let mut breaker = breaker();
        let early = breaker.allow(at(0)).unwrap();
        call(&mut breaker, &[false; 4], at(0));
        call(&mut breaker, &[true], at(15));
        let [lost, slow] = [breaker.allow(at(16)), breaker.allow(at(17))].map(Result::unwrap);
        assert!(breaker.allow(at(18)).is_err());
        breaker.cancel(early);
        assert!(breaker.allow(at(18)).is_err(), "that one was no trial");
        breaker.cancel(lost);
        assert_eq!(call(&mut breaker, &[true], at(18)), [None]);
        assert!(breaker.allow(at(19)).is_err(), "two succeeded, one is in flight");
        assert_eq!(breaker.record(slow, true, at(20)), Some(State::Closed));
    }

    #[test]
    fn slow_trials_do_not_block_other_calls() {
        let mut breaker = open();
        assert_eq!(call(&mut breaker, &[true], at(15)), [None]);
        let [slow, slower] = [breaker.allow(at(16)), breaker.allow(at(17))].map(Result::unwrap);
        assert_eq!(breaker.allow(at(18)).unwrap_err(), TRIAL_RETRY_AFTER);
        assert_eq!(call(&mut breaker, &[true], at(32)), [None]);
        breaker.cancel(slower);
        assert_eq!(call(&mut breaker, &[true], at(33)), [Some(State::Closed)]);
        assert_eq!(breaker.record(slow, false, at(34)), None, "the result is too late");
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn cancelled_trials_whose_permits_were_issued_again_do_not_add_permits() {
        let mut breaker = open();
        let slow: Vec<_> = (0..3).map(|_| breaker.allow(at(15)).unwrap()).collect();
        let anew = breaker.allow(at(30)).unwrap();
        for permit in slow {
            breaker.cancel(permit);
        }
        breaker.cancel(anew);
        assert_eq!(call(&mut breaker, &[true, true, true], at(31)), [None, None, Some(State::Closed)]);
    }

    #[test]
    fn the_result_of_a_call_from_before_it_opened_is_ignored() {
        let mut breaker = breaker();
        let slow = breaker.allow(at(0)).unwrap();
        call(&mut breaker, &[false; 4], at(0));
        call(&mut breaker, &[true], at(15));
        assert_eq!(breaker.record(slow, false, at(16)), None);
        assert_eq!(breaker.state(), State::HalfOpen);
    }

    #[test]
    fn of_several_circuits_the_open_one_is_the_worst() {
        let states = [State::Closed, State::HalfOpen, State::Open];
        assert!(states.is_sorted());
        assert_eq!(states.map(|state| State::from_number(state.number())), states.map(Some));
        assert_eq!(State::from_number(3), None);
    }

    #[test]
    fn settings_of_zero_still_allow_calls() {
        let mut breaker = Breaker::new(BreakerConfig {
            failure_threshold: 0,
            min_requests: 0,
            window: Duration::ZERO,
            open_for: Duration::ZERO,
            half_open_requests: 0,
        });
        assert_eq!(call(&mut breaker, &[true, false], at(0)), [None, Some(State::Open)]);
        assert_eq!(call(&mut breaker, &[true], at(0)), [Some(State::Closed)]);
    }
}
