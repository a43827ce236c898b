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

use super::{EventRecord, Report, RequeueFn};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{Circuit, RuntimeStatus, Status},
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
    state: Mutex<LastRead>,
}

#[derive(Default)]
struct LastRead {
    /// When it was read.
    at: Option<Instant>,
    usage: Usage,
    replicas: u32,
    /// Those that are not closed, by uid.
    circuits: HashMap<String, State>,
    /// Those whose pool has no room at some gateway, by uid.
    saturated: HashSet<String>,
    /// What the statuses have, by uid.
    last_reported: HashMap<String, LastReported>,
}

struct LastReported {
    requeue: RequeueFn,
    kind: UsageKind,
    circuit: Option<Circuit>,
}

/// How much is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// The process has only just begun: what the statuses say holds.
    NotYet,
    /// The store has not been readable for a while.
    Stale,
    /// What was read last.
    Fresh,
}

impl UsageReader {
    /// Nothing is known yet; gateways write at this interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, started: Instant::now(), state: Mutex::default() }
    }

    /// Reads what gateways write, and requeues each object whose circuit turned; never ends.
    pub async fn follow(&self, store: &Store) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = None;
        loop {
            ticks.tick().await;
            let slot = slot_now();
            // The store itself tells of what fails.
            if let Ok(read) = store.usage().read(usage::oldest(slot), since, self.interval * MISSED).await {
                since = Some(read.at);
                self.take(read, slot);
            }
            for requeue in self.changed() {
                requeue();
            }
        }
    }

    /// Adds to the report what gateways count for the object, which is requeued when its circuit turns.
    pub(super) fn report<K: Managed>(
        &self,
        object: &K,
        kind: UsageKind,
        requeue: &RequeueFn,
        report: &mut Report<K::Status>,
    ) {
        let uid = object.uid().unwrap_or_default();
        let before = object.status().and_then(|status| status.common().runtime.clone());
        let mut read = self.read();
        let runtime = match self.freshness(&read) {
            Freshness::NotYet => before.clone(),
            Freshness::Stale => None,
            Freshness::Fresh => read.runtime(&uid, kind),
        };
        let circuit = circuit_of(runtime.as_ref());
        report.events.extend(transition(circuit_of(before.as_ref()), circuit));
        read.last_reported.insert(uid, LastReported { requeue: Arc::clone(requeue), kind, circuit });
        report.status.common_mut().runtime = runtime;
    }

    /// Whether a gateway's pool for the object has no room for callers.
    pub(super) fn is_saturated<K: Managed>(&self, object: &K) -> bool {
        let read = self.read();
        match self.freshness(&read) {
            Freshness::NotYet => {
                let last_reported =
                    object.status().and_then(|it| it.common().condition(ConditionType::PoolHealthy));
                last_reported.is_some_and(|condition| condition.reason == Reason::PoolSaturated.as_str())
            }
            Freshness::Stale => false,
            Freshness::Fresh => object.uid().is_some_and(|uid| read.saturated.contains(&uid)),
        }
    }

    /// The object is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.read().last_reported.remove(uid);
    }

    fn take(&self, read: Snapshot, slot: i64) {
        let mut last = self.read();
        for (replica, entry) in read.entries {
            last.usage.put(&entry.uid, entry.slot, replica, entry.counts);
        }
        last.usage.trim(slot);
        last.circuits = read.replica_state.circuits.into_iter().collect();
        last.saturated = read.replica_state.saturated.into_iter().collect();
        last.replicas = read.replicas;
        last.at = Some(Instant::now());
    }

    /// Those whose circuit or pool is not as it was last reported.
    fn changed(&self) -> Vec<RequeueFn> {
        let mut guard = self.read();
        let read = &mut *guard;
        let known = self.freshness(read);
        let mut requeues = Vec::new();
        for (uid, last_reported) in &mut read.last_reported {
            let circuit = match known {
                Freshness::NotYet => continue,
                Freshness::Stale => None,
                Freshness::Fresh => circuit(read.replicas, &read.circuits, uid, last_reported.kind),
            };
            let now = last_reported.kind.with(known == Freshness::Fresh && read.saturated.contains(uid));
            if is_open(circuit) != is_open(last_reported.circuit) || now != last_reported.kind {
                requeues.push(Arc::clone(&last_reported.requeue));
            }
            (last_reported.circuit, last_reported.kind) = (circuit, now);
        }
        requeues
    }

    fn freshness(&self, read: &LastRead) -> Freshness {
        let patience = self.interval * BELIEVED;
        match read.at {
            Some(at) if at.elapsed() < patience => Freshness::Fresh,
            None if self.started.elapsed() < patience => Freshness::NotYet,
            _ => Freshness::Stale,
        }
    }

    fn read(&self) -> MutexGuard<'_, LastRead> {
        self.state.lock()
    }
}

impl LastRead {
    /// None where no gateway has ever been, as far back as is known.
    fn runtime(&self, uid: &str, kind: UsageKind) -> Option<RuntimeStatus> {
        let counts = self.usage.of(uid, slot_now());
        if counts.is_none() && self.replicas == 0 {
            return None;
        }
        let counts = counts.unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        Some(RuntimeStatus {
            circuit: circuit(self.replicas, &self.circuits, uid, kind),
            requests_1h: counts.requests,
            errors_1h: counts.errors,
            p95_ms: counts.latencies.p95().map(millis),
            rate_limited_1h: matches!(kind, UsageKind::Calls { .. }).then_some(counts.limited),
            replicas: self.replicas,
        })
    }
}

/// Where a gateway lives and none has opened it, it is closed.
fn circuit(replicas: u32, circuits: &HashMap<String, State>, uid: &str, kind: UsageKind) -> Option<Circuit> {
    let state = circuits.get(uid).copied().unwrap_or(State::Closed);
    (replicas > 0 && kind == UsageKind::Calls { breakers: true }).then_some(match state {
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

fn circuit_of(runtime: Option<&RuntimeStatus>) -> Option<Circuit> {
    runtime.and_then(|runtime| runtime.circuit)
}

/// The Event of a circuit that opened or closed. One that is half-open and opens again was open all the time.
fn transition(before: Option<Circuit>, now: Option<Circuit>) -> Option<EventRecord> {
    match (is_open(before), now) {
        (None, Some(Circuit::Open | Circuit::HalfOpen)) => {
            let detail = "too many calls of an endpoint failed: a gateway sends it none for spec.circuitBreaker.openFor";
            let message = advise(Reason::CircuitOpened, detail);
            Some(EventRecord { warning: true, reason: Reason::CircuitOpened, message })
        }
        (Some(_), Some(Circuit::Closed)) => {
            let message = "the gateways send calls to every endpoint again".to_owned();
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
            let note = transition(before, now);
            assert_eq!(note.map(|note| note.reason), reason, "{before:?} {now:?}");
        }
    }

    #[test]
    fn without_a_gateway_there_is_no_circuit_and_what_was_counted_stays() {
        let runtime = runtime(Duration::from_mins(1), Some(read(0, &[("called", State::Open)])));
        let read = runtime.read();
        let found = read.runtime("called", WITH_BREAKERS).unwrap();
        assert_eq!((found.requests_1h, found.circuit, found.replicas), (7, None, 0));
        assert_eq!(read.runtime("other", WITH_BREAKERS), None);
    }

    #[test]
    fn a_circuit_that_no_gateway_has_opened_is_closed_where_there_may_be_one() {
        let runtime = runtime(Duration::from_mins(1), Some(read(2, &[("other", State::HalfOpen)])));
        let read = runtime.read();
        let circuit = |uid, kind| read.runtime(uid, kind).unwrap().circuit;
        assert_eq!(circuit("called", WITH_BREAKERS), Some(Circuit::Closed));
        assert_eq!(circuit("other", WITH_BREAKERS), Some(Circuit::HalfOpen));
        assert_eq!(circuit("other", UsageKind::Calls { breakers: false }), None);
        assert_eq!(circuit("other", QUERIES), None);
        assert_eq!(read.runtime("other", QUERIES).unwrap().rate_limited_1h, None);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_after_a_while() {
        let interval = Duration::from_mins(1);
        let is = |runtime: &UsageReader| runtime.freshness(&runtime.read());
        assert!(is(&runtime(interval, None)) == Freshness::NotYet);
        assert!(is(&runtime(interval, Some(read(1, &[])))) == Freshness::Fresh);
        assert!(is(&runtime(Duration::ZERO, None)) == Freshness::Stale);
        assert!(is(&runtime(Duration::ZERO, Some(read(1, &[])))) == Freshness::Stale);
    }

    #[test]
    fn only_an_object_whose_circuit_or_pool_turned_is_requeued_and_only_once() {
        let runtime = runtime(Duration::from_mins(1), Some(read(1, &[("a", State::Open)])));
        let last_reported = |kind| LastReported { requeue: Arc::new(|| ()), kind, circuit: None };
        let last_reported = [("a", WITH_BREAKERS), ("b", WITH_BREAKERS), ("c", QUERIES)]
            .map(|(uid, kind)| (uid.to_owned(), last_reported(kind)));
        runtime.read().last_reported.extend(last_reported);
        assert_eq!(runtime.changed().len(), 1);
        assert_eq!(runtime.changed().len(), 0);
        runtime.take(read(1, &[("a", State::HalfOpen)]), slot_now());
        assert_eq!(runtime.changed().len(), 1);
        runtime.take(read(0, &[]), slot_now());
        assert_eq!(runtime.changed().len(), 1);
        runtime.take(read(1, &[]), slot_now());
        assert_eq!(runtime.changed().len(), 0, "a closed one is nothing to tell of");
        let mut full = read(1, &[]);
        full.replica_state.saturated.push("c".to_owned());
        runtime.take(full, slot_now());
        assert_eq!([runtime.changed().len(), runtime.changed().len()], [1, 0]);
        runtime.take(read(1, &[]), slot_now());
        assert_eq!([runtime.changed().len(), runtime.changed().len()], [1, 0]);
    }
}
