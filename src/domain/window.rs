//! Counts over the last moments, for the price of a few numbers.

use std::time::Duration;

const SLOTS: usize = 10;

/// Two counts, of all that happened and of those that were marked, over a sliding window. It slides by tenths: what it
/// counts happened within the window, and of its oldest tenth some is forgotten early.
#[derive(Clone, Debug)]
pub struct Window {
    slot: Duration,
    /// A ring; a slot whose number is another one than its time's is out of date.
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Since the start of time.
    number: u64,
    all: u32,
    marked: u32,
}

impl Window {
    /// An empty window over so long a time, at least 10 ns.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let slot = (length / 10).max(Duration::from_nanos(1));
        Self { slot, slots: [Slot::default(); SLOTS] }
    }

    /// Counts one, marked or not.
    pub fn add(&mut self, marked: bool, now: Duration) {
        let number = self.number(now);
        let slot = &mut self.slots[index(number)];
        // A caller that took the time a window ago and comes only now must not wipe out what is newer.
        if slot.number < number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.all = slot.all.saturating_add(1);
        slot.marked = slot.marked.saturating_add(u32::from(marked));
    }

    /// All that happened in the window until `now`, and the marked ones of them.
    #[must_use]
    pub fn counts(&self, now: Duration) -> (u64, u64) {
        let oldest = self.number(now).saturating_sub(SLOTS as u64 - 1);
        let current = self.slots.iter().filter(|slot| slot.number >= oldest);
        current
            .fold((0, 0), |(all, marked), slot| (all + u64::from(slot.all), marked + u64::from(slot.marked)))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots = [Slot::default(); SLOTS];
    }

    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_slot_by_slot() {
        let mut window = Window::new(at(10));
        window.add(true, at(100));
        window.add(false, at(101));
        window.add(false, at(109));
        assert_eq!(window.counts(at(109)), (3, 1));
        assert_eq!(window.counts(at(110)), (2, 0));
        assert_eq!(window.counts(at(111)), (1, 0));
        assert_eq!(window.counts(at(500)), (0, 0));
        window.add(false, at(500));
        assert_eq!(window.counts(at(500)), (1, 0));
    }

    #[test]
    fn a_late_caller_wipes_nothing_out() {
        let mut window = Window::new(at(10));
        window.add(true, at(110));
        window.add(true, at(100));
        assert_eq!(window.counts(at(110)), (2, 2));
    }

    #[test]
    fn a_cleared_window_is_empty() {
        let mut window = Window::new(at(10));
        window.add(true, at(3));
        window.clear();
        assert_eq!(window.counts(at(3)), (0, 0));
    }
}
