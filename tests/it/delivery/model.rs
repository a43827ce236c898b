//! The world of the scheduler, made up: a store that forgets nothing, receivers, and processes that die, lose their lease, and whose clock
//! jumps. All that happens follows from one number.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use authlink::domain::delivery::{
    health::Snapshot,
    outcome::Outcome,
    retry::{RetryPolicy, Waits, scatter},
    scheduler::{Attempt, Decision, Ended, EndpointConfig, Flush, Item, Limits, Load, Scheduler, Step, Uid},
};

pub(super) const ENDPOINTS: usize = 5;
pub(super) const MAX_ATTEMPTS: u32 = 6;
const LIMITS: Limits = Limits { in_flight: 12, unflushed: 8, window: 6, memory: 40 };

/// Numbers that look random.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(scatter(seed))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = scatter(self.0);
        self.0 % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A row of the table of deliveries.
#[derive(Clone, Debug)]
struct Row {
    endpoint: usize,
    subject: Option<u64>,
    attempts: u32,
    created: Duration,
    due: Duration,
    wait: Duration,
}

/// A process.
struct Process {
    scheduler: Scheduler<i64>,
    /// The lease that it believes to have.
    epoch: u64,
    /// Attempts under way.
    sending: Vec<Attempt<i64>>,
    /// Results that are not in the store.
    results: Vec<(Uid, i64, Decision)>,
    /// Answers of the store that are on their way.
    loading: Vec<Loading>,
}

/// What was asked, the rows, whether there are more that are due, and when the first of the others is.
type Loading = (Load, Vec<Item<i64>>, bool, Option<Duration>);

pub(super) struct World {
    pub(super) dice: Dice,
    now: Duration,
    rows: BTreeMap<i64, Row>,
    states: HashMap<usize, Snapshot>,
    last_id: i64,
    /// Of the lease.
    epoch: u64,
    processes: Vec<Process>,
    pub(super) accepted: BTreeSet<i64>,
    /// How each delivery ended.
    pub(super) ended: BTreeMap<i64, bool>,
    /// How many times a receiver has handled it, and how many times it may have been for nothing.
    handled: HashMap<i64, u32>,
    excused: HashMap<i64, u32>,
    /// How many attempts of it were spent.
    spent: HashMap<i64, u32>,
}

fn uid(endpoint: usize) -> Uid {
    format!("endpoint-{endpoint}").into()
}

fn number(uid: &str) -> usize {
    uid.trim_start_matches("endpoint-").parse().expect("a number")
}

/// The last two want order.
fn is_ordered(endpoint: usize) -> bool {
    endpoint >= ENDPOINTS - 2
}

fn config(endpoint: usize) -> EndpointConfig {
    let list = [1, 5, 30].map(Duration::from_secs).to_vec();
    let retry =
        RetryPolicy { waits: Waits::List(list), max_attempts: MAX_ATTEMPTS, ..RetryPolicy::default() };
    let rate = (endpoint == 1).then_some((5, Duration::from_secs(1)));
    EndpointConfig {
        concurrency: 3,
        rate,
        retry,
        disable: None,
        ordered: is_ordered(endpoint),
        suspended: false,
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            now: Duration::from_hours(400_000),
            rows: BTreeMap::new(),
            states: HashMap::new(),
            last_id: 0,
            epoch: 0,
            processes: Vec::new(),
            accepted: BTreeSet::new(),
            ended: BTreeMap::new(),
            handled: HashMap::new(),
            excused: HashMap::new(),
            spent: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// A process starts, and takes the lease.
    pub(super) fn start(&mut self) {
        self.epoch += 1;
        // Whoever had it before may have sent something of which the store will never know.
        let in_hand = |process: &Process| -> Vec<i64> {
            let results = process.results.iter().map(|(_, id, _)| *id);
            process.sending.iter().map(|attempt| attempt.item.id).chain(results).collect()
        };
        for id in self.processes.iter().flat_map(in_hand).collect::<Vec<_>>() {
            *self.excused.entry(id).or_default() += 1;
        }
        for row in self.rows.values_mut() {
            if row.due > self.now + row.wait {
                row.due = self.now + row.wait;
            }
        }
        let mut scheduler = Scheduler::new(LIMITS);
        for endpoint in 0..ENDPOINTS {
            scheduler.configure(&uid(endpoint), config(endpoint));
            let pending: Vec<_> = self.rows.values().filter(|row| row.endpoint == endpoint).collect();
            let due = pending.iter().map(|row| row.due).min();
            let snapshot = self.states.get(&endpoint).cloned().unwrap_or_default();
            scheduler.own(&uid(endpoint), &snapshot, pending.len() as u64, due, self.now);
        }
        let epoch = self.epoch;
        let (sending, results, loading) = (Vec::new(), Vec::new(), Vec::new());
        self.processes.push(Process { scheduler, epoch, sending, results, loading });
    }

    /// A process dies, whatever it is at.
    pub(super) fn kill(&mut self, process: usize) {
        let Process { sending, results, .. } = self.processes.remove(process);
        let open = sending.iter().map(|attempt| attempt.item.id).chain(results.iter().map(|(_, id, _)| *id));
        for id in open {
            *self.excused.entry(id).or_default() += 1;
        }
    }

    /// Whether this process has the lease.
    fn holds(&self, process: usize) -> bool {
        self.processes[process].epoch == self.epoch
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// The clock of the store is set back, which processes that start afterwards see.
    pub(super) fn set_back(&mut self, time: Duration) {
        self.now -= time;
    }

    /// An event is accepted by a process, which may die before it has told itself.
    pub(super) fn accept(&mut self, process: usize, dies: bool) {
        let endpoint = usize::try_from(self.dice.below(ENDPOINTS as u64)).expect("a small number");
        let subject = (is_ordered(endpoint) && !self.dice.one_in(4)).then(|| self.dice.below(3));
        self.last_id += 1;
        let id = self.last_id;
        let (created, due) = (self.now, self.now);
        self.rows.insert(id, Row { endpoint, subject, attempts: 0, created, due, wait: Duration::ZERO });
        self.accepted.insert(id);
        if dies {
            return self.kill(process);
        }
        let holds = self.holds(process);
        let target = if holds { process } else { self.processes.len() - 1 };
        let scheduler = &mut self.processes[target].scheduler;
        if holds {
            scheduler.arrived(&uid(endpoint), item(id, &self.rows[&id]));
        } else {
            // By way of the store.
            scheduler.signal(&uid(endpoint), 1);
        }
    }

    /// A process begins all attempts that it may.
    pub(super) fn begin(&mut self, process: usize) {
        while let Some(step) = self.processes[process].scheduler.next(self.now) {
            match step {
                Step::Expire(attempt) => {
                    let Attempt { uid, item, .. } = attempt;
                    let expired = Decision::Dead(authlink::domain::delivery::scheduler::Death::Expired);
                    self.processes[process].results.push((uid, item.id, expired));
                }
                Step::Send(attempt) => self.send(process, attempt),
            }
        }
        let scheduler = &self.processes[process].scheduler;
        assert!(scheduler.unfinished().0 <= LIMITS.in_flight, "too many at once");
    }

    fn send(&mut self, process: usize, attempt: Attempt<i64>) {
        let id = attempt.item.id;
        let holds = self.holds(process);
        let Process { sending, results, .. } = &self.processes[process];
        let in_hand = sending.iter().map(|other| other.item.id).chain(results.iter().map(|(_, id, _)| *id));
        assert!(in_hand.into_iter().all(|other| other != id), "{id} is in hand already");
        let of_endpoint = sending.iter().filter(|other| other.uid == attempt.uid).count();
        assert!(of_endpoint < 3, "more than its concurrency");
        let late = sending.iter().filter(|other| other.item.attempts >= 3).count();
        assert!(attempt.item.attempts < 3 || late < LIMITS.in_flight * 30 / 100, "too many late ones");
        if !holds {
            *self.excused.entry(id).or_default() += 1;
        }
        if holds {
            let row = self.rows.get(&id).unwrap_or_else(|| panic!("{id} has ended, and is sent again"));
            assert!(row.due <= self.now, "{id} is not due");
            assert_eq!(row.attempts, attempt.item.attempts, "{id} has forgotten its attempts");
            if let Some(subject) = row.subject {
                let same = |other: &Row| other.endpoint == row.endpoint && other.subject == Some(subject);
                let first = self.rows.iter().find(|(_, other)| same(other)).map(|(first, _)| *first);
                assert_eq!(first, Some(id), "it passes another one of its subject");
            }
        }
        self.processes[process].sending.push(attempt);
    }

    /// One of the attempts of a process ends.
    pub(super) fn end(&mut self, process: usize, well: bool) {
        let sending = &mut self.processes[process].sending;
        if sending.is_empty() {
            return;
        }
        let picked = usize::try_from(self.dice.below(sending.len() as u64)).expect("a small number");
        let attempt = sending.swap_remove(picked);
        let id = attempt.item.id;
        let outcome = if well || self.dice.one_in(2) { Outcome::Delivered } else { self.failure() };
        // It was handled, and we do not know.
        let unknown = matches!(outcome, Outcome::Timeout | Outcome::ConnectionLost) && self.dice.one_in(2);
        if outcome == Outcome::Delivered || unknown {
            let handled = self.handled.entry(id).or_default();
            *handled += 1;
            let excuses = self.excused.get(&id).copied().unwrap_or_default();
            assert!(*handled <= 1 + excuses, "{id} was handled {handled} times, with {excuses} excuses");
        }
        if unknown {
            *self.excused.entry(id).or_default() += 1;
        }
        let asked_wait = (outcome == Outcome::Throttled).then(|| Duration::from_secs(self.dice.below(20)));
        let ended = Ended { outcome, asked_wait, took: Duration::from_millis(5) };
        let finished = self.processes[process].scheduler.finish(&attempt, ended, self.now);
        self.processes[process].results.push((attempt.uid, id, finished.decision));
    }

    fn failure(&mut self) -> Outcome {
        let all = [
            Outcome::ServerError,
            Outcome::Rejected,
            Outcome::Timeout,
            Outcome::ConnectionLost,
            Outcome::Throttled,
            Outcome::ConnectFailed,
            Outcome::DnsFailed,
        ];
        all[usize::try_from(self.dice.below(all.len() as u64)).expect("a small number")]
    }

    /// Results of a process go to the store. It may die before or after that, and may have lost its lease.
    pub(super) fn flush(&mut self, process: usize, dies: Option<bool>) {
        if dies == Some(false) {
            return self.kill(process);
        }
        let holds = self.holds(process);
        let results = std::mem::take(&mut self.processes[process].results);
        let mut flushes = Vec::new();
        for (uid, id, decision) in results {
            let flush = if holds { self.write(id, decision) } else { Flush::Unchanged };
            if flush == Flush::Unchanged {
                *self.excused.entry(id).or_default() += 1;
            }
            flushes.push((uid, id, flush));
        }
        if holds {
            for (uid, snapshot) in self.processes[process].scheduler.changed(self.now) {
                self.states.insert(number(&uid), snapshot);
            }
        }
        if dies == Some(true) {
            return self.kill(process);
        }
        for (uid, id, flush) in flushes {
            self.processes[process].scheduler.flushed(&uid, id, flush);
        }
    }

    fn write(&mut self, id: i64, decision: Decision) -> Flush {
        match decision {
            Decision::Delivered | Decision::Dead(_) => {
                self.rows.remove(&id).unwrap_or_else(|| panic!("{id} ends twice"));
                let before = self.ended.insert(id, decision == Decision::Delivered);
                assert_eq!(before, None, "{id} ends twice");
                Flush::Gone
            }
            Decision::Retry { attempts, at, wait } => {
                let row = self.rows.get_mut(&id).unwrap_or_else(|| panic!("{id} has ended"));
                assert!(attempts <= MAX_ATTEMPTS && attempts <= row.attempts + 1, "{attempts} attempts");
                (row.attempts, row.due, row.wait) = (attempts, at, wait);
                self.spent.insert(id, attempts);
                Flush::Due(at)
            }
            Decision::Nothing => Flush::Unchanged,
        }
    }

    /// A process asks the store for deliveries.
    pub(super) fn ask(&mut self, process: usize) {
        while let Some(load) = self.processes[process].scheduler.load() {
            let endpoint = number(&load.uid);
            let mut seen = BTreeSet::new();
            let mut items = Vec::new();
            let mut due: Vec<_> = self.rows.iter().filter(|(_, row)| row.endpoint == endpoint).collect();
            if !load.ordered {
                due.sort_by_key(|(id, row)| (row.due, **id));
            }
            for (id, row) in due {
                let first = !load.ordered || row.subject.is_none_or(|subject| seen.insert(subject));
                if first && row.due <= self.now {
                    items.push(item(*id, row));
                }
            }
            let complete = items.len() < load.limit;
            items.truncate(load.limit);
            let later = self.rows.values().filter(|row| row.endpoint == endpoint && row.due > self.now);
            let next_due = later.map(|row| row.due).min();
            self.processes[process].loading.push((load, items, complete, next_due));
        }
    }

    /// The store's answers arrive, which are as old as they are.
    pub(super) fn answer(&mut self, process: usize) {
        let Process { scheduler, loading, .. } = &mut self.processes[process];
        for (load, items, complete, next_due) in loading.drain(..) {
            if self.dice.one_in(8) {
                scheduler.not_loaded(&load.uid);
            } else {
                scheduler.loaded(&load.uid, items, complete, next_due);
            }
        }
    }

    /// To when nothing happens by itself.
    pub(super) fn sleep(&mut self, process: usize) {
        if let Some(next) = self.processes[process].scheduler.next_change() {
            self.now = self.now.max(next);
        }
    }
}

fn item(id: i64, row: &Row) -> Item<i64> {
    let seed = scatter(u64::try_from(id).unwrap_or_default());
    Item {
        id,
        attempts: row.attempts,
        created: row.created,
        size: 1 + usize::try_from(seed % 9).unwrap_or(0),
        seed,
        event: id,
    }
}
