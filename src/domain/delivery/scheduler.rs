//! Who is sent what next.
//!
//! Each endpoint has a queue, of which a window is in memory and the rest in the store. Endpoints take turns (deficit round robin, Shreedhar
//! and Varghese 1995), each as far as its circuit, its rate limit and its concurrency let it. The clock counts from 1970.

mod finish;
mod load;
mod queue;
#[cfg(test)]
mod tests;
mod turn;
mod view;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    disable::DisablePolicy,
    health::{Change, Health, Snapshot},
    outage::OutageGuard,
    retry::RetryPolicy,
};
pub use finish::{Death, Decision, Ended, Finished, Flush};
use queue::{Place, Queue};
pub use turn::Step;

/// An endpoint, by the uid of its object.
pub type Uid = Arc<str>;

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts under way.
    pub in_flight: usize,
    /// Results that are not in the store yet, beyond the attempts under way.
    pub unflushed: usize,
    /// Deliveries of one endpoint that wait in memory.
    pub window: usize,
    /// Bytes of all deliveries in memory.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 512, unflushed: 200, window: 512, memory: 24 << 20 }
    }
}

/// What the scheduler knows of an endpoint's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Attempts at once; at least 1.
    pub concurrency: u32,
    /// So many requests in such a time.
    pub rate: Option<(u32, Duration)>,
    /// When failed deliveries are tried again.
    pub retry: RetryPolicy,
    /// When it is disabled; none for never.
    pub disable: Option<DisablePolicy>,
    /// Whether of the deliveries with the same subject each waits for the one before.
    pub ordered: bool,
    /// Whether nothing is sent for now.
    pub suspended: bool,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            rate: None,
            retry: RetryPolicy::default(),
            disable: Some(DisablePolicy::default()),
            ordered: false,
            suspended: false,
        }
    }
}

/// A delivery in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<E> {
    /// Its number in the store: a later one was accepted later.
    pub id: i64,
    /// Attempts that are spent.
    pub attempts: u32,
    /// When it was accepted, or asked for again: its age counts from then.
    pub created: Duration,
    /// Bytes.
    pub size: usize,
    /// Of what is random about it.
    pub seed: u64,
    /// What is sent.
    pub event: E,
}

/// An attempt that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt<E> {
    /// Whom it is for.
    pub uid: Uid,
    /// What is sent.
    pub item: Item<E>,
    /// Whether it is the trial of an open circuit.
    pub trial: bool,
}

impl<E> Attempt<E> {
    /// Its number: 1 for the first one.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.item.attempts + 1
    }
}

/// Deliveries that are wanted from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Of this endpoint.
    pub uid: Uid,
    /// So many of those that are due.
    pub limit: usize,
    /// Only the first of each subject.
    pub ordered: bool,
}

/// The queues of all endpoints of this process.
#[derive(Debug)]
pub struct Scheduler<E> {
    limits: Limits,
    queues: HashMap<Uid, Queue<E>>,
    /// Endpoints whose turn it is, in order.
    ring: VecDeque<Uid>,
    /// Endpoints for which something changes by itself, and when. There may be more of them than that is true of.
    timers: BinaryHeap<Reverse<(Duration, Uid)>>,
    /// Endpoints that have nothing but late attempts, of which there are enough under way.
    late: VecDeque<Uid>,
    loads: VecDeque<Uid>,
    dirty: Vec<Uid>,
    in_flight: usize,
    late_in_flight: usize,
    unflushed: usize,
    memory: usize,
    outage: OutageGuard<Uid>,
}

impl<E> Scheduler<E> {
    /// Without any endpoint.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: HashMap::new(),
            ring: VecDeque::new(),
            timers: BinaryHeap::new(),
            late: VecDeque::new(),
            loads: VecDeque::new(),
            dirty: Vec::new(),
            in_flight: 0,
            late_in_flight: 0,
            unflushed: 0,
            memory: 0,
            outage: OutageGuard::default(),
        }
    }

    /// The endpoint is there, with these settings from now on.
    pub fn configure(&mut self, uid: &Uid, config: EndpointConfig) {
        let queue = self.queues.entry(Arc::clone(uid)).or_default();
        let was_ordered = queue.is_ordered();
        queue.configure(config);
        if queue.is_ordered() != was_ordered {
            // What was read from the store was chosen by the other order, and has others behind it that may be due now.
            self.memory -= queue.shed();
            queue.more = true;
        }
        self.shed_if_blocked(uid);
        self.enlist(uid, true);
    }

    /// The endpoint is not there: nothing is sent to it. What is in the store stays.
    pub fn remove(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.config = None;
            self.memory -= queue.shed();
        }
        self.outage.forget(uid);
        self.drop_if_unused(uid);
    }

    /// From now on this process sends to it: as `snapshot` says of the time before, with so many deliveries pending, the first of which is
    /// due at `due`.
    pub fn own(
        &mut self,
        uid: &Uid,
        snapshot: &Snapshot,
        pending: u64,
        due: Option<Duration>,
        now: Duration,
    ) {
        let lost = self.outage.lost(now);
        let queue = self.queues.entry(Arc::clone(uid)).or_default();
        queue.owned = true;
        queue.retiring = false;
        queue.health = Health::restored(snapshot, lost, now);
        queue.pending = pending;
        // What is due is loaded when it is its turn. What was accepted since may not be in `due`.
        queue.more = due.is_some_and(|due| due <= now) | std::mem::take(&mut queue.missed);
        if let Some(due) = due.filter(|due| *due > now) {
            self.due_at(uid, due);
        }
        self.enlist(uid, true);
    }

    /// Another process is to take over: nothing new is sent, and what is under way ends as it would.
    pub fn retire(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.retiring = true;
            self.memory -= queue.shed();
        }
    }

    /// From now on another process does. What is under way ends, and has no effect.
    pub fn disown(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.owned = false;
            self.memory -= queue.shed();
        }
        self.drop_if_unused(uid);
    }

    /// A delivery was accepted by this process. Without room for it in memory it is loaded later.
    pub fn arrived(&mut self, uid: &Uid, item: Item<E>) {
        let room = self.memory + item.size <= self.limits.memory;
        let Some(queue) = self.queues.get_mut(uid) else { return };
        queue.pending += 1;
        queue.missed |= !queue.owned;
        let room = room && queue.waiting() < self.limits.window && queue.takes_arrivals();
        if room {
            self.memory += item.size;
            queue.push(item);
        } else {
            queue.more = true;
        }
        self.enlist(uid, false);
    }

    /// So many deliveries were put into the store by somebody else, or for later.
    pub fn signal(&mut self, uid: &Uid, pending: u64) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.pending += pending;
            queue.more = true;
            queue.missed |= !queue.owned;
        }
        self.enlist(uid, false);
    }

    /// Whether deliveries are wanted from the store.
    #[must_use]
    pub fn wants_load(&self) -> bool {
        !self.loads.is_empty()
    }

    /// Somebody enables it.
    pub fn enable(&mut self, uid: &Uid) -> Option<Change> {
        let change = self.queues.get_mut(uid)?.health.enable();
        self.soil(uid);
        self.enlist(uid, true);
        change
    }

    /// Of these deliveries, which are too old, those that nobody has in hand: from now on the caller has, and gives them up by
    /// [`Self::flushed`].
    pub fn claim(&mut self, uid: &Uid, ids: Vec<i64>) -> Vec<i64> {
        let Some(queue) = self.queues.get_mut(uid).filter(|queue| queue.owned) else { return Vec::new() };
        let mut claimed = ids;
        claimed.retain(|id| queue.known.insert(*id));
        self.unflushed += claimed.len();
        queue.health.totals.dead += u64::try_from(claimed.len()).unwrap_or_default();
        self.soil(uid);
        claimed
    }

    /// What is to be kept of endpoints that have changed since this was asked last.
    pub fn changed(&mut self, now: Duration) -> Vec<(Uid, Snapshot)> {
        let lost = self.outage.lost(now);
        let dirty = std::mem::take(&mut self.dirty);
        let snapshots = dirty.into_iter().filter_map(|uid| {
            let queue = self.queues.get_mut(&uid)?;
            queue.dirty = false;
            queue.owned.then(|| (uid, queue.health.snapshot(lost)))
        });
        snapshots.collect()
    }

    /// The count in the store, which no process that ended took with it.
    pub fn recounted(&mut self, uid: &Uid, pending: u64) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.pending = pending;
        }
    }

    /// Gives the endpoint its turn, if there is something to do for it. One that waits for a time does so, unless it is `anew`.
    fn enlist(&mut self, uid: &Uid, anew: bool) {
        let Some(queue) = self.queues.get_mut(uid) else { return };
        let free = match queue.place {
            Place::Nowhere | Place::Late => true,
            Place::Timer => anew,
            Place::Ring => false,
        };
        if free && queue.may_send() && (queue.waiting() > 0 || queue.more) {
            queue.place = Place::Ring;
            self.ring.push_back(Arc::clone(uid));
        }
    }

    fn due_at(&mut self, uid: &Uid, at: Duration) {
        let Some(queue) = self.queues.get_mut(uid) else { return };
        if queue.next_due.is_none_or(|due| at < due) {
            queue.next_due = Some(at);
            self.timers.push(Reverse((at, Arc::clone(uid))));
        }
    }

    fn soil(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid).filter(|queue| !queue.dirty) {
            queue.dirty = true;
            self.dirty.push(Arc::clone(uid));
        }
    }

    /// What is not sent for a while needs no memory.
    fn shed_if_blocked(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid).filter(|queue| !queue.is_open()) {
            self.memory -= queue.shed();
        }
    }

    fn drop_if_unused(&mut self, uid: &Uid) {
        if self
            .queues
            .get(uid)
            .is_some_and(|queue| !queue.owned && queue.config.is_none() && queue.in_hand() == 0)
        {
            self.queues.remove(uid);
        }
    }
}
