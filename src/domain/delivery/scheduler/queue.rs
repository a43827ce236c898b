//! The queue of one endpoint.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{EndpointConfig, Item};
use crate::domain::{
    delivery::{circuit::Phase, health::Health},
    limiter::Limiter,
};

/// An attempt after so many others is a late one.
pub(super) const EARLY: u32 = 3;

/// Where an endpoint waits for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: there is nothing to do, or as much under way as may be.
    #[default]
    Nowhere,
    Ring,
    /// Until a time.
    Timer,
    /// Until another late attempt has ended.
    Late,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own, each with its own life")]
pub(super) struct Queue<E> {
    /// None while the object is not there.
    pub(super) config: Option<EndpointConfig>,
    pub(super) limiter: Option<Limiter>,
    /// Whether it is this process that sends to it.
    pub(super) owned: bool,
    /// Whether another process is to take over: nothing new is sent.
    pub(super) retiring: bool,
    /// Whether deliveries were accepted that this process did not own yet.
    pub(super) missed: bool,
    pub(super) health: Health,
    pub(super) early: VecDeque<Item<E>>,
    pub(super) late: VecDeque<Item<E>>,
    /// Deliveries that are in memory, under way, or whose end is not in the store yet: the store still has them, and they must not be
    /// loaded.
    pub(super) known: HashSet<i64>,
    /// Those that end while the store is asked, whose answer may have them still.
    postponed: Vec<i64>,
    /// Whether the store may have more that are due.
    pub(super) more: bool,
    pub(super) loading: bool,
    pub(super) wants_load: bool,
    /// When the first of those is due that are not.
    pub(super) next_due: Option<Duration>,
    pub(super) paused_until: Duration,
    pub(super) in_flight: u32,
    pub(super) pending: u64,
    pub(super) deficit: usize,
    /// Bytes of the largest of those that were loaded last.
    pub(super) largest: usize,
    pub(super) place: Place,
    pub(super) dirty: bool,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            config: None,
            limiter: None,
            owned: false,
            retiring: false,
            missed: false,
            health: Health::default(),
            early: VecDeque::new(),
            late: VecDeque::new(),
            known: HashSet::new(),
            postponed: Vec::new(),
            more: false,
            loading: false,
            wants_load: false,
            next_due: None,
            paused_until: Duration::ZERO,
            in_flight: 0,
            pending: 0,
            deficit: 0,
            largest: 16 << 10,
            place: Place::default(),
            dirty: false,
        }
    }
}

impl<E> Queue<E> {
    pub(super) fn configure(&mut self, config: EndpointConfig) {
        if self.config.as_ref().is_none_or(|old| old.rate != config.rate) {
            // As many at once as in a tenth of the time: a limit of 100 a second is no hundred in one moment.
            let limiter =
                |(requests, per): (u32, Duration)| Limiter::new(requests, per, requests.div_ceil(10));
            self.limiter = config.rate.map(limiter);
        }
        self.config = Some(config);
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.ordered)
    }

    /// Whether anything may be sent at all.
    pub(super) fn may_send(&self) -> bool {
        let suspended = self.config.as_ref().is_none_or(|config| config.suspended);
        self.owned && !self.retiring && !suspended && self.health.disabled.is_none()
    }

    /// Whether requests pass, and not only one to see.
    pub(super) fn is_open(&self) -> bool {
        self.may_send() && self.health.circuit.phase() == Phase::Closed
    }

    /// Whether what arrives is kept in memory. What is ordered comes from the store, which knows what is before it.
    pub(super) fn takes_arrivals(&self) -> bool {
        self.is_open() && !self.more && !self.is_ordered()
    }

    /// How many of the next ones fit into so many bytes, if they are like those before.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        bytes / self.largest.max(1)
    }

    pub(super) fn waiting(&self) -> usize {
        self.early.len() + self.late.len()
    }

    /// Deliveries that are under way, or whose end is not in the store yet.
    pub(super) fn in_hand(&self) -> usize {
        self.known.len() - self.waiting()
    }

    pub(super) fn push(&mut self, item: Item<E>) {
        self.known.insert(item.id);
        let queue = if item.attempts < EARLY { &mut self.early } else { &mut self.late };
        queue.push_back(item);
    }

    /// Drops what waits in memory: the store has it. Gives its bytes.
    pub(super) fn shed(&mut self) -> usize {
        let mut bytes = 0;
        for item in self.early.drain(..).chain(self.late.drain(..)) {
            self.known.remove(&item.id);
            bytes += item.size;
            self.more = true;
        }
        bytes
    }

    /// The store knows of its end.
    pub(super) fn forget(&mut self, id: i64) {
        if self.loading {
            self.postponed.push(id);
        } else {
            self.known.remove(&id);
        }
    }

    pub(super) fn forget_postponed(&mut self) {
        for id in self.postponed.drain(..) {
            self.known.remove(&id);
        }
    }
}
