//! The turn of an endpoint.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{
    Attempt, Scheduler, Uid,
    queue::{EARLY, Place, Queue},
};
use crate::domain::delivery::circuit::Leave;

/// Of the attempts under way, at most so many of a hundred are late ones: what has failed often must not be in the way of what is new.
const LATE_PERCENT: usize = 30;

/// What an attempt costs of its endpoint's turns: one, and one for each such part of its size.
const PART: usize = 64 << 10;

/// No attempt costs more than this.
const DEAREST: usize = 6;

/// A fourth of what is free is for one endpoint: what is left is there for others, however long its requests take.
const SHARE: usize = 4;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<E> {
    /// Make this attempt, and tell how it ended by [`Scheduler::finish`].
    Send(Attempt<E>),
    /// It is too old: give it up, and tell when the store knows of that by [`Scheduler::flushed`].
    Expire(Attempt<E>),
}

/// How an endpoint's turn went.
enum Turn {
    /// It took one.
    Take {
        late: bool,
        leave: Leave,
    },
    /// It goes to the end of the line.
    Again,
    At(Duration),
    Late,
    /// Nothing to do for it before something happens.
    Nothing,
}

impl<E> Scheduler<E> {
    /// What is to be done next, if there is anything.
    pub fn next(&mut self, now: Duration) -> Option<Step<E>> {
        self.wake(now);
        let limits = self.limits;
        if self.in_flight >= limits.in_flight
            || self.in_flight + self.unflushed >= limits.in_flight + limits.unflushed
        {
            return None;
        }
        for _ in 0..self.ring.len() * DEAREST {
            let uid = self.ring.pop_front()?;
            let Some(queue) = self.queues.get_mut(&uid) else { continue };
            queue.place = Place::Nowhere;
            let free = limits.in_flight - self.in_flight;
            let late_free = self.late_in_flight < (limits.in_flight * LATE_PERCENT / 100).max(1);
            match turn(queue, free, late_free, now) {
                Turn::Take { late, leave } => return self.take(&uid, late, leave, now),
                Turn::Again => {
                    queue.place = Place::Ring;
                    self.ring.push_back(uid);
                }
                Turn::At(at) => {
                    queue.place = Place::Timer;
                    self.timers.push(Reverse((at, uid)));
                }
                Turn::Late => {
                    queue.place = Place::Late;
                    self.late.push_back(uid);
                }
                Turn::Nothing => self.want_load(&uid),
            }
        }
        None
    }

    fn take(&mut self, uid: &Uid, late: bool, leave: Leave, now: Duration) -> Option<Step<E>> {
        let queue = self.queues.get_mut(uid)?;
        let item = if late { queue.late.pop_front() } else { queue.early.pop_front() }?;
        let max_age = queue.config.as_ref().map_or(Duration::MAX, |config| config.retry.max_age);
        let expired = now.saturating_sub(item.created) >= max_age;
        let attempt = Attempt { uid: Arc::clone(uid), item, trial: leave == Leave::Trial };
        let step = if expired {
            self.memory -= attempt.item.size;
            self.unflushed += 1;
            queue.health.totals.dead += 1;
            self.soil(uid);
            Step::Expire(attempt)
        } else {
            queue.health.circuit.begin(leave);
            queue.in_flight += 1;
            self.in_flight += 1;
            self.late_in_flight += usize::from(late);
            Step::Send(attempt)
        };
        self.enlist(uid, false);
        self.want_load(uid);
        Some(step)
    }

    /// Endpoints whose time has come.
    fn wake(&mut self, now: Duration) {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                return;
            }
            let Some(Reverse((_, uid))) = self.timers.pop() else { return };
            let Some(queue) = self.queues.get_mut(&uid) else { continue };
            if queue.next_due.is_some_and(|due| due <= now) {
                queue.next_due = None;
                queue.more = true;
            }
            self.enlist(&uid, true);
        }
    }

    /// Asks for more, if there may be some and there is little left.
    fn want_load(&mut self, uid: &Uid) {
        let low = self.limits.window / 4;
        let Some(queue) = self.queues.get_mut(uid) else { return };
        if queue.more && !queue.loading && !queue.wants_load && queue.may_send() && queue.waiting() <= low {
            queue.wants_load = true;
            self.loads.push_back(Arc::clone(uid));
        }
    }

    /// A late attempt has ended: those that waited for that may try.
    pub(super) fn release_late(&mut self) {
        while let Some(uid) = self.late.pop_front() {
            if self.queues.get(&uid).is_some_and(|queue| queue.place == Place::Late) {
                return self.enlist(&uid, false);
            }
        }
    }
}

fn turn<E>(queue: &mut Queue<E>, free: usize, late_free: bool, now: Duration) -> Turn {
    if !queue.may_send() || queue.waiting() == 0 {
        queue.deficit = 0;
        // What is in the store is asked for when it could be sent.
        return match queue.health.circuit.ask(queue.in_flight, u32::MAX, now) {
            Leave::At(at) if queue.may_send() && queue.more => Turn::At(at),
            _ => Turn::Nothing,
        };
    }
    let allowed = queue.config.as_ref().map_or(1, |config| config.concurrency.max(1));
    let leave = queue.health.circuit.ask(queue.in_flight, allowed, now);
    match leave {
        Leave::At(at) => return Turn::At(at),
        Leave::Full => return Turn::Nothing,
        Leave::Granted | Leave::Trial => {}
    }
    if queue.paused_until > now {
        return Turn::At(queue.paused_until);
    }
    if queue.in_flight as usize >= (free / SHARE).max(1) {
        return Turn::Again;
    }
    let late = match (queue.early.front(), queue.late.front()) {
        (Some(early), Some(late)) => late_free && late.created < early.created,
        (None, Some(_)) if !late_free => return Turn::Late,
        (None, _) => true,
        (Some(_), None) => false,
    };
    let first = if late { queue.late.front() } else { queue.early.front() };
    let cost = first.map_or(1, |item| (1 + item.size / PART).min(DEAREST));
    queue.deficit += 1;
    if queue.deficit < cost {
        return Turn::Again;
    }
    if let Some(Err(wait)) = queue.limiter.as_ref().map(|limiter| limiter.check(now)) {
        return Turn::At(now + wait);
    }
    queue.deficit -= cost;
    debug_assert_eq!(late, first.is_some_and(|item| item.attempts >= EARLY));
    Turn::Take { late, leave }
}
