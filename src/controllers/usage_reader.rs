//! `status.runtime`: what gateways have written into the store, as users read it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::MissedTickBehavior;

use super::{Context, EventRecord, Report, targets::RequeueFn};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{Circuit, CommonStatus, RuntimeStatus, Status},
    },
    domain::{
        breaker::State,
        conditions::advise,
        usage::{self, Usage},
    },
    store::{Snapshot, Store},
};

/// A gateway lives until it has missed so many writes.
const MISSED: u32 = 3;

/// What was read is believed until so many reads have failed.
const BELIEVED: u32 = 4;

/// What gateways count for the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    /// Calls of an API, with or without circuit breakers.
    Calls {
        /// Whether the spec asks for them.
        breakers: bool,
    },
    /// Queries.
    Queries {
        /// Whether the report says that a gateway's pool has no room.
        saturated: bool,
    },
}

impl UsageKind {
    /// The same, with a pool that has no room, or has.
    fn with(self, saturated: bool) -> Self {
        match self {
            Self::Calls { .. } => self,
            Self::Queries { .. } => Self::Queries { saturated },
        }
    }
}

/// What gateways have written, as last read.
pub struct UsageReader {
    interval: Duration,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When it was read.
    at: Option<Instant>,
    usage: Usage,
    replicas: u32,
    /// Those that are not closed, by uid.
    circuits: HashMap<String, State>,
    /// Those whose pool has no room at some gateway, by uid.
    saturated: HashSet<String>,
    /// What the objects were told, by uid.
    told: HashMap<String, Told>,
}

struct Told {
    wake: RequeueFn,
    counted: UsageKind,
    circuit: Option<Circuit>,
}

/// How much is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The process has only just begun: what the statuses say holds.
    NotYet,
    /// The store has not been readable for a while.
    Nothing,
    /// What was read last.
    Read,
}

impl UsageReader {
    /// Nothing is known yet; gateways write at this interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, started: Instant::now(), seen: Mutex::default() }
    }

    /// Reads what gateways write, and asks for a pass of each object whose circuit turned; never ends.
    pub async fn follow(&self, store: &Store) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = None;
        loop {
            ticks.tick().await;
            let slot = slot_now();
            // The store itself tells of what fails.
            if let Ok(read) = store.read(usage::oldest(slot), since, self.interval * MISSED).await {
                since = Some(read.at);
                self.take(read, slot);
            }
            for wake in self.turned() {
                wake();
            }
        }
    }

    /// Adds to the report what gateways count for the object, which gets another pass when its circuit turns.
    pub(super) fn report<K: Managed>(
        &self,
        object: &K,
        counted: UsageKind,
        cx: &Context,
        report: &mut Report<K::Status>,
    ) {
        let uid = object.uid().unwrap_or_default();
        let mut seen = self.seen();
        let runtime = match self.known(&seen) {
            Known::NotYet => object.status().and_then(|status| status.common().runtime.clone()),
            Known::Nothing => None,
            Known::Read => seen.runtime(&uid, counted),
        };
        let circuit = runtime.as_ref().and_then(|runtime| runtime.circuit);
        seen.told.insert(uid, Told { wake: Arc::clone(&cx.wake), counted, circuit });
        report.status.common_mut().runtime = runtime;
    }

    /// Whether a gateway's pool for the object has no room for callers.
    pub(super) fn saturates<K: Managed>(&self, object: &K) -> bool {
        let seen = self.seen();
        match self.known(&seen) {
            Known::NotYet => {
                let told = object.status().and_then(|it| it.common().condition(ConditionType::PoolHealthy));
                told.is_some_and(|condition| condition.reason == Reason::PoolSaturated.as_str())
            }
            Known::Nothing => false,
            Known::Read => object.uid().is_some_and(|uid| seen.saturated.contains(&uid)),
        }
    }

    /// The object is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.seen().told.remove(uid);
    }

    fn take(&self, read: Snapshot, slot: i64) {
        let mut seen = self.seen();
        for (replica, entry) in read.entries {
            seen.usage.put(&entry.uid, entry.slot, replica, entry.counts);
        }
        seen.usage.trim(slot);
        seen.circuits = read.replica_state.circuits.into_iter().collect();
        seen.saturated = read.replica_state.saturated.into_iter().collect();
        seen.replicas = read.replicas;
        seen.at = Some(Instant::now());
    }

    /// Those whose circuit or pool is otherwise than they were told.
    fn turned(&self) -> Vec<RequeueFn> {
        let mut guard = self.seen();
        let seen = &mut *guard;
        let known = self.known(seen);
        let mut wakes = Vec::new();
        for (uid, told) in &mut seen.told {
            let circuit = match known {
                Known::NotYet => continue,
                Known::Nothing => None,
                Known::Read => circuit(seen.replicas, &seen.circuits, uid, told.counted),
            };
            let now = told.counted.with(known == Known::Read && seen.saturated.contains(uid));
            if is_open(circuit) != is_open(told.circuit) || now != told.counted {
                wakes.push(Arc::clone(&told.wake));
            }
            (told.circuit, told.counted) = (circuit, now);
        }
        wakes
    }

    fn known(&self, seen: &Seen) -> Known {
        let patience = self.interval * BELIEVED;
        match seen.at {
            Some(at) if at.elapsed() < patience => Known::Read,
            None if self.started.elapsed() < patience => Known::NotYet,
            _ => Known::Nothing,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}

impl Seen {
    /// None where no gateway has ever been, as far back as is known.
    fn runtime(&self, uid: &str, counted: UsageKind) -> Option<RuntimeStatus> {
        let counts = self.usage.of(uid, slot_now());
        if counts.is_none() && self.replicas == 0 {
            return None;
        }
        let counts = counts.unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        Some(RuntimeStatus {
            circuit: circuit(self.replicas, &self.circuits, uid, counted),
            requests_1h: counts.requests,
            errors_1h: counts.errors,
            p95_ms: counts.latencies.p95().map(millis),
            rate_limited_1h: matches!(counted, UsageKind::Calls { .. }).then_some(counts.limited),
            replicas: self.replicas,
        })
    }
}

/// Where a gateway lives and none has opened it, it is closed.
fn circuit(
    replicas: u32,
    circuits: &HashMap<String, State>,
    uid: &str,
    counted: UsageKind,
) -> Option<Circuit> {
    let state = circuits.get(uid).copied().unwrap_or(State::Closed);
    (replicas > 0 && counted == UsageKind::Calls { breakers: true }).then_some(match state {
        State::Closed => Circuit::Closed,
        State::HalfOpen => Circuit::HalfOpen,
        State::Open => Circuit::Open,
    })
}

/// What is not closed, and how: the part of it whose change is worth a write.
fn is_open(circuit: Option<Circuit>) -> Option<Circuit> {
    circuit.filter(|circuit| *circuit != Circuit::Closed)
}

fn slot_now() -> i64 {
    usage::slot(Timestamp::now().as_second())
}

/// What there is to tell of a circuit that opened or closed. One that is tried and opens again has been open all the time.
pub(super) fn transition(before: &CommonStatus, now: &CommonStatus) -> Option<EventRecord> {
    let circuit = |status: &CommonStatus| status.runtime.as_ref().and_then(|runtime| runtime.circuit);
    match (is_open(circuit(before)), circuit(now)) {
        (None, Some(Circuit::Open | Circuit::HalfOpen)) => {
            let detail =
                "a gateway found too many calls of an endpoint failing, and calls it no more for a while";
            let message = advise(Reason::CircuitOpened, detail);
            Some(EventRecord { warning: true, reason: Reason::CircuitOpened, message })
        }
        (Some(_), Some(Circuit::Closed)) => {
            let message = "the gateways call every endpoint again".to_owned();
            Some(EventRecord { warning: false, reason: Reason::CircuitClosed, message })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::usage::Counts,
        store::{Entry, ReplicaState},
    };

    const WITH_BREAKERS: UsageKind = UsageKind::Calls { breakers: true };
    const QUERIES: UsageKind = UsageKind::Queries { saturated: false };

    fn status(circuit: Option<Circuit>) -> CommonStatus {
        let runtime = Some(RuntimeStatus { circuit, ..RuntimeStatus::default() });
        CommonStatus { runtime, ..CommonStatus::default() }
    }

    fn read(replicas: u32, circuits: &[(&str, State)]) -> Snapshot {
        let circuits = circuits.iter().map(|(uid, state)| ((*uid).to_owned(), *state)).collect();
        let counts = Counts { requests: 7, ..Counts::default() };
        let entry = Entry { uid: "called".to_owned(), slot: slot_now(), counts };
        let replica_state = ReplicaState { circuits, ..ReplicaState::default() };
        Snapshot { replicas, replica_state, entries: vec![(1, entry)], at: 0 }
    }

    fn runtime(interval: Duration, read: Option<Snapshot>) -> UsageReader {
        let runtime = UsageReader::new(interval);
        if let Some(read) = read {
            runtime.take(read, slot_now());
        }
        runtime
    }

    #[test]
    fn an_event_tells_of_opening_and_closing_and_of_nothing_in_between() {
        use Circuit::{Closed, HalfOpen, Open};
        let opened = Some(Reason::CircuitOpened);
        let rows = [
            (None, Some(Closed), None),
            (None, Some(Open), opened),
            (Some(Closed), Some(Open), opened),
            (Some(Closed), Some(HalfOpen), opened),
            (Some(Open), Some(HalfOpen), None),
            (Some(HalfOpen), Some(Open), None),
            (Some(HalfOpen), Some(Closed), Some(Reason::CircuitClosed)),
            (Some(Open), None, None),
        ];
        for (before, now, reason) in rows {
            let note = transition(&status(before), &status(now));
            assert_eq!(note.map(|note| note.reason), reason, "{before:?} {now:?}");
        }
    }

    #[test]
    fn without_a_gateway_there_is_no_circuit_and_what_was_counted_stays() {
        let runtime = runtime(Duration::from_mins(1), Some(read(0, &[("called", State::Open)])));
        let seen = runtime.seen();
        let found = seen.runtime("called", WITH_BREAKERS).unwrap();
        assert_eq!((found.requests_1h, found.circuit, found.replicas), (7, None, 0));
        assert_eq!(seen.runtime("other", WITH_BREAKERS), None);
    }

    #[test]
    fn a_circuit_that_no_gateway_has_opened_is_closed_where_there_may_be_one() {
        let runtime = runtime(Duration::from_mins(1), Some(read(2, &[("other", State::HalfOpen)])));
        let seen = runtime.seen();
        let circuit = |uid, counted| seen.runtime(uid, counted).unwrap().circuit;
        assert_eq!(circuit("called", WITH_BREAKERS), Some(Circuit::Closed));
        assert_eq!(circuit("other", WITH_BREAKERS), Some(Circuit::HalfOpen));
        assert_eq!(circuit("other", UsageKind::Calls { breakers: false }), None);
        assert_eq!(circuit("other", QUERIES), None);
        assert_eq!(seen.runtime("other", QUERIES).unwrap().rate_limited_1h, None);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_after_a_while() {
        let interval = Duration::from_mins(1);
        let is = |runtime: &UsageReader| runtime.known(&runtime.seen());
        assert!(is(&runtime(interval, None)) == Known::NotYet);
        assert!(is(&runtime(interval, Some(read(1, &[])))) == Known::Read);
        assert!(is(&runtime(Duration::ZERO, None)) == Known::Nothing);
        assert!(is(&runtime(Duration::ZERO, Some(read(1, &[])))) == Known::Nothing);
    }

    #[test]
    fn only_an_object_whose_circuit_or_pool_turned_gets_a_pass_and_only_one() {
        let runtime = runtime(Duration::from_mins(1), Some(read(1, &[("a", State::Open)])));
        let told = |counted| Told { wake: Arc::new(|| ()), counted, circuit: None };
        let told = [("a", WITH_BREAKERS), ("b", WITH_BREAKERS), ("c", QUERIES)]
            .map(|(uid, counted)| (uid.to_owned(), told(counted)));
        runtime.seen().told.extend(told);
        assert_eq!(runtime.turned().len(), 1);
        assert_eq!(runtime.turned().len(), 0);
        runtime.take(read(1, &[("a", State::HalfOpen)]), slot_now());
        assert_eq!(runtime.turned().len(), 1);
        runtime.take(read(0, &[]), slot_now());
        assert_eq!(runtime.turned().len(), 1);
        runtime.take(read(1, &[]), slot_now());
        assert_eq!(runtime.turned().len(), 0, "a closed one is nothing to tell of");
        let mut full = read(1, &[]);
        full.replica_state.saturated.push("c".to_owned());
        runtime.take(full, slot_now());
        assert_eq!([runtime.turned().len(), runtime.turned().len()], [1, 0]);
        runtime.take(read(1, &[]), slot_now());
        assert_eq!([runtime.turned().len(), runtime.turned().len()], [1, 0]);
    }
}
