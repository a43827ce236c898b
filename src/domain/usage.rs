//! Usage statistics of an object over the last hour: gateways write them in time slots, the operator reads the sums.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::histogram::Histogram;

/// The length of a time slot.
pub const SLOT: Duration = Duration::from_mins(5);

/// The number of slots in the window, including the current one: the last 55 to 60 minutes.
const SLOTS: i64 = 12;

/// The number of the slot at a Unix time in seconds.
#[must_use]
pub fn slot(seconds: i64) -> i64 {
    seconds.div_euclid(i64::try_from(SLOT.as_secs()).unwrap_or(i64::MAX))
}

/// The oldest slot in the window, given the current one.
#[must_use]
pub fn oldest(now: i64) -> i64 {
    now - SLOTS + 1
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Whether it failed.
    pub failed: bool,
    /// Whether the rate limit rejected it.
    pub limited: bool,
    /// Its latency; none if it was not sent to the target.
    pub took: Option<Duration>,
}

/// The counts of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of calls.
    pub requests: u64,
    /// Number of failed calls.
    pub errors: u64,
    /// Number of calls rejected by the rate limit.
    pub limited: u64,
    /// Latencies of the calls that were sent to the target.
    pub latencies: Histogram,
}

impl Counts {
    /// Counts a call.
    pub fn add(&mut self, call: &Call) {
        self.requests += 1;
        self.errors += u64::from(call.failed);
        self.limited += u64::from(call.limited);
        if let Some(took) = call.took {
            self.latencies.add(took);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.limited += other.limited;
        self.latencies.merge(&other.latencies);
    }
}

/// The counts of one process for one object, until they are written to the store.
#[derive(Clone, Debug, Default)]
pub struct Tally(VecDeque<SlotCounts>);

#[derive(Clone, Debug)]
struct SlotCounts {
    slot: i64,
    counts: Counts,
    /// The number of requests at the last write.
    written: u64,
}

impl Tally {
    /// Counts a call in this slot, or in the last one if the clock was set back.
    pub fn add(&mut self, slot: i64, call: &Call) {
        if self.0.back().is_none_or(|last| last.slot < slot) {
            self.0.push_back(SlotCounts { slot, counts: Counts::default(), written: 0 });
        }
        if let Some(last) = self.0.back_mut() {
            last.counts.add(call);
        }
    }

    /// The slots that have changed since they were written, with all their counts.
    #[must_use]
    pub fn unwritten(&self) -> Vec<(i64, Counts)> {
        let changed = self.0.iter().filter(|it| it.counts.requests != it.written);
        changed.map(|it| (it.slot, it.counts.clone())).collect()
    }

    /// Marks a slot as written with this number of requests.
    pub fn written(&mut self, slot: i64, requests: u64) {
        if let Some(found) = self.0.iter_mut().find(|it| it.slot == slot) {
            found.written = requests;
        }
    }

    /// Drops slots that are written or older than the window; `now` is the current slot. Without a store, an hour is
    /// kept.
    pub fn trim(&mut self, now: i64) {
        let needed =
            |it: &SlotCounts| it.slot >= now || (it.slot >= oldest(now) && it.written != it.counts.requests);
        self.0.retain(needed);
    }

    /// Whether there are no counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The counts of all replicas, by object.
#[derive(Clone, Debug, Default)]
pub struct Usage(HashMap<String, BTreeMap<(i64, i64), Counts>>);

impl Usage {
    /// Sets the counts of a slot of a replica, replacing earlier ones.
    pub fn put(&mut self, uid: &str, slot: i64, replica: i64, counts: Counts) {
        match self.0.get_mut(uid) {
            Some(slots) => drop(slots.insert((slot, replica), counts)),
            None => drop(self.0.insert(uid.to_owned(), BTreeMap::from([((slot, replica), counts)]))),
        }
    }

    /// Drops slots that are older than the window; `now` is the current slot.
    pub fn trim(&mut self, now: i64) {
        let first = (oldest(now), i64::MIN);
        self.0.retain(|_, slots| {
            *slots = slots.split_off(&first);
            !slots.is_empty()
        });
    }

    /// The sum over the window; `now` is the current slot. None if the window has no counts.
    #[must_use]
    pub fn of(&self, uid: &str, now: i64) -> Option<Counts> {
        let mut sum = None;
        for (_, counts) in self.0.get(uid)?.range((oldest(now), i64::MIN)..) {
            sum.get_or_insert_with(Counts::default).merge(counts);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Call = Call { failed: false, limited: false, took: Some(Duration::from_millis(1)) };
    const FAILED: Call = Call { failed: true, limited: false, took: Some(Duration::from_millis(4)) };
    const LIMITED: Call = Call { failed: false, limited: true, took: None };

    fn counts(calls: &[Call]) -> Counts {
        let mut counts = Counts::default();
        for call in calls {
            counts.add(call);
        }
        counts
    }

    #[test]
    fn a_slot_is_five_minutes_long() {
        assert_eq!([slot(-1), slot(0), slot(299), slot(300)], [-1, 0, 0, 1]);
    }

    #[test]
    fn a_rejected_call_has_no_latency() {
        let all = counts(&[OK, FAILED, LIMITED]);
        assert_eq!((all.requests, all.errors, all.limited), (3, 1, 1));
        assert_eq!(all.latencies.p95(), Some(Duration::from_millis(4)));
        assert_eq!(counts(&[LIMITED]).latencies.p95(), None);
    }

    #[test]
    fn a_written_slot_is_dropped_at_its_end() {
        let mut tally = Tally::default();
        tally.add(100, &OK);
        tally.add(100, &FAILED);
        assert_eq!(tally.unwritten(), [(100, counts(&[OK, FAILED]))]);
        tally.written(100, 2);
        tally.trim(100);
        assert!(tally.unwritten().is_empty() && !tally.is_empty());
        tally.add(100, &OK);
        tally.add(101, &OK);
        assert_eq!(tally.unwritten(), [(100, counts(&[OK, FAILED, OK])), (101, counts(&[OK]))]);
        tally.written(100, 3);
        tally.trim(101);
        assert_eq!(tally.unwritten(), [(101, counts(&[OK]))]);
    }

    #[test]
    fn calls_that_are_counted_during_a_write_are_written_later() {
        let mut tally = Tally::default();
        tally.add(100, &OK);
        let [(slot, sent)] = &tally.unwritten()[..] else { panic!("one slot") };
        tally.add(100, &OK);
        tally.written(*slot, sent.requests);
        assert_eq!(tally.unwritten(), [(100, counts(&[OK, OK]))]);
    }

    #[test]
    fn without_a_store_one_hour_is_kept() {
        let mut tally = Tally::default();
        for slot in 100..130 {
            tally.add(slot, &OK);
            tally.trim(slot);
        }
        let kept: Vec<_> = tally.unwritten().iter().map(|(slot, _)| *slot).collect();
        assert_eq!(kept, (118..130).collect::<Vec<_>>());
    }

    #[test]
    fn no_call_is_lost_when_the_clock_is_set_back() {
        let mut tally = Tally::default();
        tally.add(100, &OK);
        tally.add(99, &OK);
        assert_eq!(tally.unwritten(), [(100, counts(&[OK, OK]))]);
    }

    #[test]
    fn replicas_and_slots_are_summed_and_a_slot_that_is_read_again_counts_once() {
        let mut usage = Usage::default();
        usage.put("a", 100, 1, counts(&[OK]));
        usage.put("a", 100, 1, counts(&[OK, FAILED]));
        usage.put("a", 100, 2, counts(&[LIMITED]));
        usage.put("a", 111, 1, counts(&[OK]));
        usage.put("b", 100, 1, counts(&[OK]));
        assert_eq!(usage.of("a", 111), Some(counts(&[OK, FAILED, LIMITED, OK])));
        assert_eq!(usage.of("a", 112), Some(counts(&[OK])), "an hour later");
        usage.trim(112);
        assert_eq!(usage.of("a", 111), Some(counts(&[OK])));
        assert_eq!(usage.of("b", 111), None);
        assert_eq!(usage.of("c", 111), None);
    }
}
