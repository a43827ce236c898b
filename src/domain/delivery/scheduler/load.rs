//! What comes from the store.

use std::time::Duration;

use super::{Item, Load, Scheduler, Uid};

impl<E> Scheduler<E> {
    /// Deliveries that are wanted from the store now. Each must be answered by [`Self::loaded`] or [`Self::not_loaded`].
    pub fn load(&mut self) -> Option<Load> {
        for _ in 0..self.loads.len() {
            let uid = self.loads.pop_front()?;
            let room = self.limits.memory.saturating_sub(self.memory);
            let Some(queue) = self.queues.get_mut(&uid) else { continue };
            queue.wants_load = false;
            if !queue.more || queue.loading || !queue.may_send() {
                continue;
            }
            let fitting = queue.fitting(room);
            if fitting == 0 && queue.in_hand() + queue.waiting() > 0 {
                queue.wants_load = true;
                self.loads.push_back(uid);
                continue;
            }
            let wanted = if queue.is_open() { self.limits.window.saturating_sub(queue.waiting()) } else { 1 };
            queue.loading = true;
            queue.more = false;
            let limit = wanted.min(fitting).max(1) + queue.known.len();
            return Some(Load { uid, limit, ordered: queue.is_ordered() });
        }
        None
    }

    /// What the store has of them: `complete` where there are no more that are due, and when the next one is.
    pub fn loaded(&mut self, uid: &Uid, items: Vec<Item<E>>, complete: bool, next_due: Option<Duration>) {
        let Some(queue) = self.queues.get_mut(uid) else { return };
        queue.loading = false;
        queue.more |= !complete;
        let takes = queue.may_send();
        queue.largest = items.iter().map(|item| item.size).max().unwrap_or(queue.largest);
        for item in items {
            if takes && !queue.known.contains(&item.id) {
                self.memory += item.size;
                queue.push(item);
            }
        }
        queue.forget_postponed();
        if let Some(at) = next_due {
            self.due_at(uid, at);
        }
        self.enlist(uid, false);
    }

    /// The store could not be asked: somebody has to, later.
    pub fn not_loaded(&mut self, uid: &Uid) {
        if let Some(queue) = self.queues.get_mut(uid) {
            queue.loading = false;
            queue.more = true;
            queue.forget_postponed();
        }
        self.enlist(uid, false);
    }
}
