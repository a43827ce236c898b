//! The circuit of an endpoint, and how many requests it may have at once: an endpoint that fails is left alone, so that nobody's attempts
//! are spent on it, and is then tried with one request.

use std::time::Duration;

use super::{super::window::Window, retry::jitter};

/// So many failures in a row open it, ...
const RUN: u32 = 10;
/// ... or half of at least so many results ...
const ENOUGH: u64 = 20;
/// ... within this time.
const WINDOW: Duration = Duration::from_mins(1);

/// How long it stays open at first; twice as long each time that the trial fails.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_mins(15);

/// The requests at once are halved at most so often: those that were under way together say one thing.
const CUT: Duration = Duration::from_secs(1);

/// What it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Requests pass.
    Closed,
    /// None does before this time.
    Open {
        /// When it may be tried.
        until: Duration,
    },
    /// One is under way, to see.
    HalfOpen,
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Granted,
    /// It may, and is the one that shows whether the endpoint works again.
    Trial,
    /// Ask again at this time.
    At(Duration),
    /// Ask again when one of those under way has ended.
    Full,
}

/// What an endpoint's circuit turned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It opened.
    Opened,
    /// It closed.
    Closed,
}

/// The circuit of one endpoint.
#[derive(Clone, Debug)]
pub struct Circuit {
    phase: Phase,
    /// Failures in a row.
    run: u32,
    recent: Window,
    /// How many times in a row it has opened.
    rounds: u32,
    /// Requests at once that it stands at present: it grows by one with each success.
    width: u32,
    cut: Option<Duration>,
}

impl Circuit {
    /// A closed one that stands any number of requests.
    #[must_use]
    pub fn new() -> Self {
        let recent = Window::new(WINDOW);
        Self { phase: Phase::Closed, run: 0, recent, rounds: 0, width: u32::MAX, cut: None }
    }

    /// As an earlier process has left it: open until then, for so many times in a row. It is not open for longer than it was to be, even
    /// if the clock was set back since.
    #[must_use]
    pub fn restored(open_until: Option<Duration>, rounds: u32, now: Duration) -> Self {
        let longest = now + open_time(rounds.saturating_sub(1)) * 6 / 5;
        let phase = open_until.map_or(Phase::Closed, |until| Phase::Open { until: until.min(longest) });
        Self { phase, rounds, ..Self::new() }
    }

    /// What it is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How many times in a row it has opened.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Failures in a row.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Whether a request may be sent, with so many under way and so many allowed. Nothing is taken: see [`Self::begin`].
    #[must_use]
    pub fn ask(&self, under_way: u32, allowed: u32, now: Duration) -> Leave {
        match self.phase {
            Phase::Closed if under_way < self.width.min(allowed) => Leave::Granted,
            Phase::Open { until } if now < until => Leave::At(until),
            Phase::Open { .. } if under_way == 0 => Leave::Trial,
            Phase::Closed | Phase::HalfOpen | Phase::Open { .. } => Leave::Full,
        }
    }

    /// A request is sent that got this leave.
    pub fn begin(&mut self, leave: Leave) {
        if leave == Leave::Trial {
            self.phase = Phase::HalfOpen;
        }
    }

    /// A request ended: well, badly, or in a way that says nothing of the endpoint (none). Whether it was the trial decides what a
    /// failure means: one that began before the circuit opened is old news.
    pub fn end(&mut self, trial: bool, well: Option<bool>, now: Duration, seed: u64) -> Option<Turn> {
        match (well, self.phase) {
            (Some(true), phase) => {
                self.run = 0;
                self.recent.add(false, now);
                self.width = self.width.saturating_add(1);
                if phase == Phase::Closed {
                    return None;
                }
                *self = Self { width: 1, ..Self::new() };
                Some(Turn::Closed)
            }
            (Some(false), Phase::Closed) => {
                self.run += 1;
                self.recent.add(true, now);
                let (all, failed) = self.recent.counts(now);
                let fails = self.run >= RUN || (all >= ENOUGH && failed * 2 >= all);
                fails.then(|| self.open(now, seed))
            }
            (Some(false), Phase::HalfOpen) if trial => {
                self.run += 1;
                self.open(now, seed);
                None
            }
            (None, Phase::HalfOpen) if trial => {
                // The next one may try.
                self.phase = Phase::Open { until: now };
                None
            }
            _ => None,
        }
    }

    /// The endpoint asks for fewer requests.
    pub fn throttle(&mut self, under_way: u32, now: Duration) {
        if self.cut.is_none_or(|cut| now >= cut + CUT) {
            self.cut = Some(now);
            self.width = (self.width.min(under_way) / 2).max(1);
        }
    }

    fn open(&mut self, now: Duration, seed: u64) -> Turn {
        let time = open_time(self.rounds);
        self.rounds += 1;
        self.phase = Phase::Open { until: now + jitter(time, seed ^ u64::from(self.rounds)) };
        self.recent.clear();
        Turn::Opened
    }
}

fn open_time(rounds: u32) -> Duration {
    FIRST.saturating_mul(1 << rounds.min(16)).min(LONGEST)
}

impl Default for Circuit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failed(circuit: &mut Circuit, times: u32, now: Duration) -> Vec<Option<Turn>> {
        (0..times).map(|_| circuit.end(false, Some(false), now, 0)).collect()
    }

    fn open_at(now: Duration) -> (Circuit, Duration) {
        let mut circuit = Circuit::new();
        failed(&mut circuit, RUN, now);
        let Phase::Open { until } = circuit.phase() else { panic!("{circuit:?}") };
        (circuit, until)
    }

    #[test]
    fn ten_failures_in_a_row_open_it_and_nine_do_not() {
        let mut circuit = Circuit::new();
        assert_eq!(failed(&mut circuit, 9, at(0)), [None; 9]);
        assert_eq!(circuit.end(false, Some(true), at(0), 0), None);
        assert_eq!(failed(&mut circuit, 9, at(61)), [None; 9]);
        assert_eq!(failed(&mut circuit, 1, at(61)), [Some(Turn::Opened)]);
    }

    #[test]
    fn half_of_at_least_twenty_within_a_minute_open_it() {
        let mut circuit = Circuit::new();
        let turns: Vec<_> = (0..20).map(|n| circuit.end(false, Some(n % 2 == 0), at(1), 0)).collect();
        assert_eq!(turns[..19], [None; 19]);
        assert_eq!(turns[19], Some(Turn::Opened));
        let mut circuit = Circuit::new();
        for n in 0..1000 {
            assert_eq!(circuit.end(false, Some(n % 3 != 0), at(1), 0), None, "a third is not half");
        }
    }

    #[test]
    fn while_it_is_open_nothing_is_sent_and_then_one_at_a_time() {
        let (mut circuit, until) = open_at(at(0));
        assert!((24..=36).contains(&until.as_secs()), "{until:?}");
        assert_eq!(circuit.ask(0, 8, until.checked_sub(at(1)).unwrap()), Leave::At(until));
        assert_eq!(circuit.ask(1, 8, until), Leave::Full, "an old one is still under way");
        assert_eq!(circuit.ask(0, 8, until), Leave::Trial);
        circuit.begin(Leave::Trial);
        assert_eq!(circuit.ask(1, 8, until + at(100)), Leave::Full);
    }

    #[test]
    fn each_trial_that_fails_doubles_the_time_up_to_a_quarter_of_an_hour() {
        let (mut circuit, mut now) = open_at(at(0));
        let mut times = Vec::new();
        for _ in 0..8 {
            circuit.begin(circuit.ask(0, 8, now));
            assert_eq!(circuit.end(true, Some(false), now, 0), None);
            let Phase::Open { until } = circuit.phase() else { panic!("{circuit:?}") };
            times.push(until.saturating_sub(now).as_secs());
            now = until;
        }
        for (time, plain) in times.into_iter().zip([60, 120, 240, 480, 900, 900, 900, 900]) {
            assert!((plain * 8 / 10..=plain * 12 / 10).contains(&time), "{time} and not {plain}");
        }
    }

    #[test]
    fn a_trial_that_succeeds_closes_it_and_requests_at_once_grow_from_one() {
        let (mut circuit, until) = open_at(at(0));
        circuit.begin(circuit.ask(0, 8, until));
        assert_eq!(circuit.end(true, Some(true), until, 0), Some(Turn::Closed));
        assert_eq!([0, 1].map(|under_way| circuit.ask(under_way, 8, until)), [Leave::Granted, Leave::Full]);
        circuit.end(false, Some(true), until, 0);
        assert_eq!([1, 2].map(|under_way| circuit.ask(under_way, 8, until)), [Leave::Granted, Leave::Full]);
        for _ in 0..8 {
            circuit.end(false, Some(true), until, 0);
        }
        assert_eq!([7, 8].map(|under_way| circuit.ask(under_way, 8, until)), [Leave::Granted, Leave::Full]);
    }

    #[test]
    fn what_began_before_it_opened_does_not_end_the_trial_and_one_without_a_verdict_is_repeated() {
        let (mut circuit, until) = open_at(at(0));
        circuit.begin(Leave::Trial);
        assert_eq!(circuit.end(false, Some(false), until, 0), None);
        assert_eq!(circuit.phase(), Phase::HalfOpen);
        assert_eq!(circuit.end(true, None, until, 0), None);
        assert_eq!(circuit.ask(0, 8, until), Leave::Trial);
    }

    #[test]
    fn one_that_was_open_before_the_clock_was_set_back_is_open_for_no_longer_than_it_was_to_be() {
        let (circuit, until) = open_at(at(100_000));
        let restored = |now| Circuit::restored(Some(until), circuit.rounds(), now).phase();
        assert_eq!(restored(at(100_001)), Phase::Open { until });
        assert_eq!(restored(at(5)), Phase::Open { until: at(5 + 36) });
    }

    #[test]
    fn who_asks_for_fewer_gets_half_once_a_second_and_never_none() {
        let mut circuit = Circuit::new();
        circuit.throttle(8, at(1));
        circuit.throttle(8, at(1));
        assert_eq!([3, 4].map(|under_way| circuit.ask(under_way, 8, at(1))), [Leave::Granted, Leave::Full]);
        for second in 2..9 {
            circuit.throttle(4, at(second));
        }
        assert_eq!(circuit.ask(0, 8, at(9)), Leave::Granted);
    }
}
