//! A circuit breaker: a target that fails is left alone for a while, and then tried with care.

use std::time::Duration;

use super::window::Window;

/// When the circuit opens, and how it closes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// It opens when so many percent of the calls in the window failed.
    pub failure_threshold: u8,
    /// ... of at least so many.
    pub min_requests: u32,
    /// The time over which calls are counted.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// So many trial calls must succeed to close it, and no more than these are let through until then; at least 1.
    pub half_open_requests: u32,
}

/// What the circuit does with calls; of several circuits, the greatest is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Lets them through.
    Closed,
    /// Lets a few through, to see.
    HalfOpen,
    /// Refuses them.
    Open,
}

impl State {
    /// The word that users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Open => "Open",
            Self::HalfOpen => "HalfOpen",
        }
    }

    /// The number that metrics and the store have for it: 0 closed, 1 half-open, 2 open.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// The state of this number.
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

/// Leave for one call, to be given back: with its result, or without where it has none.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    /// The state that the circuit turned to by this permit: `HalfOpen` with the first trial, else none.
    pub turned: Option<State>,
    epoch: u64,
}

/// The circuit of one target.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerConfig,
    phase: Phase,
    /// Counts the transitions: the result of a call that was let through before the last one says nothing of now.
    epoch: u64,
    results: Window,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { given: u32, passed: u32, last: Duration },
}

/// After so long, at the most, a trial that is under way may have ended.
const TRIAL: Duration = Duration::from_secs(1);

impl Breaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(settings: BreakerConfig) -> Self {
        let results = Window::new(settings.window);
        Self { settings, phase: Phase::Closed, epoch: 0, results }
    }

    /// The state. An open circuit that may be tried again is `Open` until someone does.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Leave for a call; `now` is the time since any start.
    ///
    /// # Errors
    /// When there is none, with the time after which to ask again.
    pub fn allow(&mut self, now: Duration) -> Result<Permit, Duration> {
        let trials = self.settings.half_open_requests.max(1);
        let turned = match &mut self.phase {
            Phase::Closed => None,
            Phase::Open { until } if now < *until => return Err(until.saturating_sub(now)),
            Phase::Open { .. } => Some(self.turn(Phase::HalfOpen { given: 1, passed: 0, last: now })),
            Phase::HalfOpen { given, passed, last } => {
                let renewed = last.saturating_add(self.settings.open_for);
                // A trial that takes so long, such as a slow download, must not shut everybody else out.
                if *given >= trials && now >= renewed {
                    *given = *passed;
                }
                if *given >= trials {
                    return Err(renewed.saturating_sub(now).min(TRIAL));
                }
                (*given, *last) = (*given + 1, now);
                None
            }
        };
        Ok(Permit { turned, epoch: self.epoch })
    }

    /// Takes the result of a call, and gives the state that the circuit turned to by it.
    pub fn record(&mut self, Permit { epoch, .. }: Permit, ok: bool, now: Duration) -> Option<State> {
        if epoch != self.epoch {
            return None;
        }
        match &mut self.phase {
            Phase::Closed => {
                self.results.add(!ok, now);
                self.fails(now).then(|| self.open(now))
            }
            Phase::Open { .. } => None,
            Phase::HalfOpen { .. } if !ok => Some(self.open(now)),
            Phase::HalfOpen { passed, .. } => {
                *passed += 1;
                let enough = *passed >= self.settings.half_open_requests;
                enough.then(|| self.turn(Phase::Closed))
            }
        }
    }

    /// Takes the leave of a call back that says nothing of the target: another call may try.
    pub fn cancel(&mut self, Permit { epoch, .. }: Permit) {
        if let Phase::HalfOpen { given, passed, .. } = &mut self.phase
            && epoch == self.epoch
        {
            // Of those that took too long, some were given anew: there may be none left to take back.
            *given = given.saturating_sub(1).max(*passed);
        }
    }

    fn fails(&self, now: Duration) -> bool {
        let (all, failed) = self.results.counts(now);
        failed > 0
            && all >= u64::from(self.settings.min_requests)
            && failed * 100 >= all * u64::from(self.settings.failure_threshold)
    }

    fn open(&mut self, now: Duration) -> State {
        self.turn(Phase::Open { until: now.saturating_add(self.settings.open_for) })
    }

    fn turn(&mut self, phase: Phase) -> State {
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

    /// Calls that are let through, one after the other, and what each turned the circuit to.
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
    fn after_a_while_a_few_trials_close_it() {
        let mut breaker = open();
        let permits: Vec<_> = (0..3).map(|_| breaker.allow(at(15)).unwrap()).collect();
        let turned: Vec<_> = permits.iter().map(|permit| permit.turned).collect();
        assert_eq!(turned, [Some(State::HalfOpen), None, None]);
        assert!(breaker.allow(at(16)).is_err(), "no more than the trials");
        let turned: Vec<_> = permits.into_iter().map(|permit| breaker.record(permit, true, at(17))).collect();
        assert_eq!(turned, [None, None, Some(State::Closed)]);
        assert_eq!(call(&mut breaker, &[false; 3], at(17)), [None; 3], "what was before is forgotten");
    }

    #[test]
    fn one_failed_trial_opens_it_again() {
        let mut breaker = open();
        assert_eq!(call(&mut breaker, &[true, false], at(15)), [None, Some(State::Open)]);
        assert_eq!(breaker.allow(at(16)).unwrap_err(), at(14));
    }

    #[test]
    fn a_trial_that_says_nothing_is_given_to_another_call() {
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
        assert!(breaker.allow(at(19)).is_err(), "two have passed, one is under way");
        assert_eq!(breaker.record(slow, true, at(20)), Some(State::Closed));
    }

    #[test]
    fn trials_that_take_long_do_not_shut_others_out() {
        let mut breaker = open();
        assert_eq!(call(&mut breaker, &[true], at(15)), [None]);
        let [slow, slower] = [breaker.allow(at(16)), breaker.allow(at(17))].map(Result::unwrap);
        assert_eq!(breaker.allow(at(18)).unwrap_err(), TRIAL);
        assert_eq!(call(&mut breaker, &[true], at(32)), [None]);
        breaker.cancel(slower);
        assert_eq!(call(&mut breaker, &[true], at(33)), [Some(State::Closed)]);
        assert_eq!(breaker.record(slow, false, at(34)), None, "the result comes too late");
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn trials_that_are_given_up_after_others_were_given_leave_as_many_as_there_were() {
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
    fn a_call_from_before_it_opened_has_no_say_in_the_trial() {
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
    fn settings_of_nothing_at_all_still_let_calls_through() {
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
