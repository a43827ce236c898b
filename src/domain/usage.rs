//! What gateways count for an object, over the last hour: written in slots of a few minutes, read as sums.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::histogram::Histogram;

/// How long a slot is.
pub const SLOT: Duration = Duration::from_mins(5);

/// Slots that count, the one that is under way included: together the last 55 to 60 minutes.
const SLOTS: i64 = 12;

/// The number of the slot, so many seconds after 1970.
#[must_use]
pub fn slot(seconds: i64) -> i64 {
    seconds.div_euclid(i64::try_from(SLOT.as_secs()).unwrap_or(i64::MAX))
}

/// The oldest slot that counts, while this one is under way.
#[must_use]
pub fn oldest(now: i64) -> i64 {
    now - SLOTS + 1
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// It failed.
    pub failed: bool,
    /// The rate limit refused it.
    pub limited: bool,
    /// How long it took, of one that reached the target.
    pub took: Option<Duration>,
}

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those that the rate limit refused.
    pub limited: u64,
    /// How long those took that reached the target.
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

/// What one process has counted for one object, kept until it is written.
#[derive(Clone, Debug, Default)]
pub struct Tally(VecDeque<Page>);

/// One slot of it.
#[derive(Clone, Debug)]
struct Page {
    slot: i64,
    counts: Counts,
    /// Its requests when it was last written.
    written: u64,
}

impl Tally {
    /// Counts a call in this slot. A clock that was set back counts in the last one.
    pub fn add(&mut self, slot: i64, call: &Call) {
        if self.0.back().is_none_or(|page| page.slot < slot) {
            self.0.push_back(Page { slot, counts: Counts::default(), written: 0 });
        }
        if let Some(page) = self.0.back_mut() {
            page.counts.add(call);
        }
    }

    /// The slots that have changed since they were written, whole.
    #[must_use]
    pub fn unwritten(&self) -> Vec<(i64, Counts)> {
        let changed = self.0.iter().filter(|page| page.counts.requests != page.written);
        changed.map(|page| (page.slot, page.counts.clone())).collect()
    }

    /// A slot was written when it had so many requests.
    pub fn written(&mut self, slot: i64, requests: u64) {
        if let Some(page) = self.0.iter_mut().find(|page| page.slot == slot) {
            page.written = requests;
        }
    }

    /// Drops what nobody needs any more, `now` being the slot that is under way; an hour without a store is kept.
    pub fn trim(&mut self, now: i64) {
        let needed = |page: &Page| {
            page.slot >= now || (page.slot >= oldest(now) && page.written != page.counts.requests)
        };
        self.0.retain(needed);
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What all replicas have written, by object.
#[derive(Clone, Debug, Default)]
pub struct Usage(HashMap<String, BTreeMap<(i64, i64), Counts>>);

impl Usage {
    /// Takes what a replica has written of a slot, in place of what it had written before.
    pub fn put(&mut self, uid: &str, slot: i64, replica: i64, counts: Counts) {
        match self.0.get_mut(uid) {
            Some(slots) => drop(slots.insert((slot, replica), counts)),
            None => drop(self.0.insert(uid.to_owned(), BTreeMap::from([((slot, replica), counts)]))),
        }
    }

    /// Drops what is older than the window, `now` being the slot that is under way.
    pub fn trim(&mut self, now: i64) {
        let first = (oldest(now), i64::MIN);
        self.0.retain(|_, slots| {
            *slots = slots.split_off(&first);
            !slots.is_empty()
        });
    }

    /// The sum over the window, `now` being the slot that is under way; none where nothing was counted in it.
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

    const WELL: Call = Call { failed: false, limited: false, took: Some(Duration::from_millis(1)) };
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
    fn a_refused_call_has_no_latency() {
        let all = counts(&[WELL, FAILED, LIMITED]);
        assert_eq!((all.requests, all.errors, all.limited), (3, 1, 1));
        assert_eq!(all.latencies.p95(), Some(Duration::from_millis(4)));
        assert_eq!(counts(&[LIMITED]).latencies.p95(), None);
    }

    #[test]
    fn what_is_written_is_dropped_once_its_slot_is_over() {
        let mut tally = Tally::default();
        tally.add(100, &WELL);
        tally.add(100, &FAILED);
        assert_eq!(tally.unwritten(), [(100, counts(&[WELL, FAILED]))]);
        tally.written(100, 2);
        tally.trim(100);
        assert!(tally.unwritten().is_empty() && !tally.is_empty());
        tally.add(100, &WELL);
        tally.add(101, &WELL);
        assert_eq!(tally.unwritten(), [(100, counts(&[WELL, FAILED, WELL])), (101, counts(&[WELL]))]);
        tally.written(100, 3);
        tally.trim(101);
        assert_eq!(tally.unwritten(), [(101, counts(&[WELL]))]);
    }

    #[test]
    fn what_was_counted_while_it_was_written_is_written_later() {
        let mut tally = Tally::default();
        tally.add(100, &WELL);
        let [(slot, sent)] = &tally.unwritten()[..] else { panic!("one slot") };
        tally.add(100, &WELL);
        tally.written(*slot, sent.requests);
        assert_eq!(tally.unwritten(), [(100, counts(&[WELL, WELL]))]);
    }

    #[test]
    fn an_hour_without_a_store_is_kept_and_no_more() {
        let mut tally = Tally::default();
        for slot in 100..130 {
            tally.add(slot, &WELL);
            tally.trim(slot);
        }
        let kept: Vec<_> = tally.unwritten().iter().map(|(slot, _)| *slot).collect();
        assert_eq!(kept, (118..130).collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_call() {
        let mut tally = Tally::default();
        tally.add(100, &WELL);
        tally.add(99, &WELL);
        assert_eq!(tally.unwritten(), [(100, counts(&[WELL, WELL]))]);
    }

    #[test]
    fn replicas_and_slots_add_up_and_a_slot_that_is_read_again_counts_once() {
        let mut usage = Usage::default();
        usage.put("a", 100, 1, counts(&[WELL]));
        usage.put("a", 100, 1, counts(&[WELL, FAILED]));
        usage.put("a", 100, 2, counts(&[LIMITED]));
        usage.put("a", 111, 1, counts(&[WELL]));
        usage.put("b", 100, 1, counts(&[WELL]));
        assert_eq!(usage.of("a", 111), Some(counts(&[WELL, FAILED, LIMITED, WELL])));
        assert_eq!(usage.of("a", 112), Some(counts(&[WELL])), "an hour later");
        usage.trim(112);
        assert_eq!(usage.of("a", 111), Some(counts(&[WELL])));
        assert_eq!(usage.of("b", 111), None);
        assert_eq!(usage.of("c", 111), None);
    }
}
