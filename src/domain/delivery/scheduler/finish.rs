//! The end of an attempt.

use std::time::Duration;

use super::{Attempt, Scheduler, Uid, queue::EARLY};
use crate::domain::delivery::{
    health::{self, Change},
    outcome::Outcome,
    retry::jitter,
};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The wait that the answer asks for.
    pub asked_wait: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has arrived.
    Delivered,
    /// It is tried again.
    Retry {
        /// Attempts that are spent by now.
        attempts: u32,
        /// When.
        at: Duration,
        /// How long it is until then.
        wait: Duration,
    },
    /// It is given up.
    Dead(Death),
    /// Nothing: it is another process', or nobody's.
    Nothing,
}

/// Why a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// All attempts are spent.
    AttemptsSpent,
    /// It has become too old.
    Expired,
}

impl Death {
    /// The word that users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsSpent => "AttemptsSpent",
            Self::Expired => "Expired",
        }
    }
}

/// What follows from the end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// For the delivery.
    pub decision: Decision,
    /// For people to know of the endpoint.
    pub changes: Vec<Change>,
    /// Whether our own way out is missing, if that has changed.
    pub outage: Option<bool>,
}

/// What the store has made of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The delivery is not pending any more.
    Gone,
    /// It is pending, and due then.
    Due(Duration),
    /// It is as it was: another process sends to the endpoint, or the store has refused what became of it.
    Unchanged,
}

impl<E> Scheduler<E> {
    /// An attempt has ended.
    pub fn finish(&mut self, attempt: &Attempt<E>, ended: Ended, now: Duration) -> Finished {
        let Attempt { uid, item, trial } = attempt;
        self.in_flight -= 1;
        self.memory -= item.size;
        self.unflushed += 1;
        if item.attempts >= EARLY {
            self.late_in_flight -= 1;
            self.release_late();
        }
        let effect = ended.outcome.effect();
        let turned = effect.way_out.and_then(|reached| self.outage.record(uid.clone(), reached, now));
        let outage = self.outage.is_out();
        let active = now.saturating_sub(self.outage.lost(now));
        let mut finished = Finished { decision: Decision::Nothing, changes: Vec::new(), outage: turned };
        let Some(queue) = self.queues.get_mut(uid) else { return finished };
        queue.in_flight -= 1;
        if !queue.owned {
            return finished;
        }
        let Ended { outcome, asked_wait, took } = ended;
        let told = health::Ended { outcome, trial: *trial, outage, now, active, took, seed: item.seed };
        let config = queue.config.clone().unwrap_or_default();
        finished.changes = queue.health.record(&told, config.disable);
        let ours = outage && effect.way_out != Some(true);
        let pause = asked_wait.unwrap_or_else(|| outcome.pause());
        match outcome {
            Outcome::Throttled => {
                queue.health.circuit.throttle(queue.in_flight + 1, now);
                queue.paused_until = queue.paused_until.max(now + pause);
            }
            Outcome::Timeout => queue.health.circuit.throttle(queue.in_flight + 1, now),
            _ if ours => queue.paused_until = queue.paused_until.max(now + outcome.pause()),
            _ => {}
        }
        let spends = effect.spends_attempt && !ours;
        let attempts = item.attempts + u32::from(spends);
        let wait = if spends {
            config.retry.wait_after(attempts, item.seed)
        } else {
            // Never sooner than asked for, and not all at once.
            Some(jitter(pause, item.seed ^ u64::from(item.attempts)).max(pause))
        };
        let expires = item.created.saturating_add(config.retry.max_age);
        finished.decision = match wait {
            _ if outcome == Outcome::Delivered => Decision::Delivered,
            None => Decision::Dead(Death::AttemptsSpent),
            Some(wait) if now + wait >= expires => Decision::Dead(Death::Expired),
            Some(wait) => Decision::Retry { attempts, at: now + wait, wait },
        };
        queue.health.totals.dead += u64::from(matches!(finished.decision, Decision::Dead(_)));
        self.soil(uid);
        self.shed_if_blocked(uid);
        self.enlist(uid, false);
        finished
    }

    /// The store has a decision, or will never have it.
    pub fn flushed(&mut self, uid: &Uid, id: i64, flush: Flush) {
        self.unflushed -= 1;
        let Some(queue) = self.queues.get_mut(uid) else { return };
        queue.forget(id);
        match flush {
            Flush::Gone => {
                queue.pending = queue.pending.saturating_sub(1);
                // The next of its subject may follow.
                queue.more |= queue.is_ordered();
            }
            Flush::Due(at) => self.due_at(uid, at),
            Flush::Unchanged => queue.more = true,
        }
        self.enlist(uid, false);
        self.drop_if_unused(uid);
    }
}
