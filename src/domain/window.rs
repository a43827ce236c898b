//! Counters over a sliding window.

use std::time::Duration;

const SLOTS: usize = 10;

/// Counts all events and the marked ones over a sliding window, which moves in steps of a tenth of its length. So it
/// never counts events that are older than the window, and drops those in its oldest tenth early.
#[derive(Clone, Debug)]
pub struct Window {
    slot: Duration,
    /// A ring buffer. A slot whose number is lower than the expected one is expired.
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The number of slots since time zero.
    number: u64,
    all: u32,
    marked: u32,
}

impl Window {
    /// An empty window of this length, at least 10 ns.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let slot = (length / 10).max(Duration::from_nanos(1));
        Self { slot, slots: [Slot::default(); SLOTS] }
    }

    /// Counts an event.
    pub fn add(&mut self, marked: bool, now: Duration) {
        let number = self.number(now);
        let slot = &mut self.slots[index(number)];
        // A caller with an old timestamp must not reset a newer slot.
        if slot.number < number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.all = slot.all.saturating_add(1);
        slot.marked = slot.marked.saturating_add(u32::from(marked));
    }

    /// The number of events in the window that ends at `now`, and of the marked ones.
    #[must_use]
    pub fn counts(&self, now: Duration) -> (u64, u64) {
        let oldest = self.number(now).saturating_sub(SLOTS as u64 - 1);
        let current = self.slots.iter().filter(|slot| slot.number >= oldest);
        current
            .fold((0, 0), |(all, marked), slot| (all + u64::from(slot.all), marked + u64::from(slot.marked)))
    }

    /// Resets the window.
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
    fn events_older_than_the_window_are_dropped_slot_by_slot() {
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
    fn an_old_timestamp_does_not_reset_a_newer_slot() {
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
