use super::*;
use crate::domain::delivery::outcome::Outcome;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

fn uid(number: usize) -> Uid {
    format!("endpoint-{number}").into()
}

fn item(id: i64, attempts: u32) -> Item<()> {
    Item { id, attempts, created: at(0), size: 1000, seed: 7, event: () }
}

fn owned(scheduler: &mut Scheduler<()>, uid: &Uid, config: EndpointConfig) {
    scheduler.configure(uid, config);
    scheduler.own(uid, &Snapshot::default(), 0, None, at(0));
}

/// A scheduler with so many endpoints that have nothing to do.
fn with(endpoints: usize, limits: Limits) -> Scheduler<()> {
    let mut scheduler = Scheduler::new(limits);
    for number in 0..endpoints {
        owned(&mut scheduler, &uid(number), EndpointConfig::default());
    }
    scheduler
}

fn sent(scheduler: &mut Scheduler<()>, now: Duration) -> Vec<Attempt<()>> {
    let steps = std::iter::from_fn(|| scheduler.next(now));
    let attempts = steps.map(|step| match step {
        Step::Send(attempt) => attempt,
        Step::Expire(attempt) => panic!("{attempt:?} is too old"),
    });
    attempts.collect()
}

fn finish(scheduler: &mut Scheduler<()>, attempt: &Attempt<()>, outcome: Outcome, now: Duration) -> Finished {
    let finished = scheduler.finish(attempt, Ended { outcome, asked_wait: None, took: Duration::ZERO }, now);
    let flush = match finished.decision {
        Decision::Delivered | Decision::Dead(_) => Flush::Gone,
        Decision::Retry { at, .. } => Flush::Due(at),
        Decision::Nothing => Flush::Unchanged,
    };
    scheduler.flushed(&attempt.uid, attempt.item.id, flush);
    finished
}

#[test]
fn endpoints_take_turns_each_within_its_concurrency() {
    let mut scheduler = with(2, Limits::default());
    for id in 0..100 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    scheduler.arrived(&uid(1), item(100, 0));
    let first = sent(&mut scheduler, at(0));
    assert_eq!(first.len(), 9, "8 and 1");
    assert!(first[..2].iter().any(|attempt| attempt.uid == uid(1)), "it need not wait for the other's 100");
    finish(&mut scheduler, &first[0], Outcome::Delivered, at(0));
    assert_eq!(sent(&mut scheduler, at(0)).len(), 1, "one ended, one begins");
}

#[test]
fn endpoints_that_hang_leave_slots_for_others() {
    let limits = Limits { in_flight: 64, ..Limits::default() };
    let mut scheduler = with(40, limits);
    for number in 0..30 {
        for id in 0..50 {
            scheduler.arrived(&uid(number), item(i64::try_from(number).unwrap() * 100 + id, 0));
        }
    }
    let hanging = sent(&mut scheduler, at(0));
    assert!(hanging.len() < 64, "{} of 64 slots are taken by endpoints that hang", hanging.len());
    for number in 30..36 {
        scheduler.arrived(&uid(number), item(10_000 + i64::try_from(number).unwrap(), 0));
        let [other] = &sent(&mut scheduler, at(1))[..] else { panic!("endpoint {number} has to wait") };
        finish(&mut scheduler, other, Outcome::Delivered, at(1));
    }
}

#[test]
fn what_has_failed_often_takes_a_third_of_the_slots_at_the_most() {
    let mut scheduler = Scheduler::new(Limits { in_flight: 100, ..Limits::default() });
    for number in 0..100 {
        owned(&mut scheduler, &uid(number), EndpointConfig::default());
        for id in 0..4_i64 {
            scheduler.arrived(&uid(number), item(i64::try_from(number).unwrap() * 10 + id, 3));
        }
    }
    let late = sent(&mut scheduler, at(0));
    assert_eq!(late.len(), 30);
    scheduler.arrived(&uid(7), item(5000, 0));
    assert_eq!(sent(&mut scheduler, at(0)).len(), 1, "what is new is not held up");
    finish(&mut scheduler, &late[0], Outcome::Delivered, at(0));
    assert_eq!(sent(&mut scheduler, at(0)).len(), 1);
}

#[test]
fn large_events_cost_their_endpoint_more_turns() {
    let mut scheduler = with(2, Limits { in_flight: 1000, ..Limits::default() });
    for number in 0..2 {
        owned(&mut scheduler, &uid(number), EndpointConfig { concurrency: 200, ..EndpointConfig::default() });
    }
    for id in 0..40 {
        scheduler.arrived(&uid(0), Item { size: 250 << 10, ..item(id, 0) });
        scheduler.arrived(&uid(1), item(100 + id, 0));
    }
    let order: Vec<_> = sent(&mut scheduler, at(0)).into_iter().take(20).map(|it| it.uid).collect();
    let large = order.iter().filter(|it| **it == uid(0)).count();
    assert!((3..=6).contains(&large), "{large} of the first 20 are large ones");
}

#[test]
fn a_rate_limit_spaces_requests_and_spends_nothing() {
    let mut scheduler = Scheduler::new(Limits::default());
    let rate = Some((2, Duration::from_secs(1)));
    owned(&mut scheduler, &uid(0), EndpointConfig { rate, ..EndpointConfig::default() });
    for id in 0..60 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    let mut now = at(0);
    let mut all = Vec::new();
    while all.len() < 60 {
        for attempt in sent(&mut scheduler, now) {
            assert_eq!(attempt.number(), 1);
            finish(&mut scheduler, &attempt, Outcome::Delivered, now);
            all.push(now);
        }
        now = scheduler.next_change().unwrap_or(now);
    }
    assert_eq!(all[59].saturating_sub(all[0]).as_millis(), 29_500, "59 gaps of half a second");
}

#[test]
fn a_receiver_that_asks_to_wait_gets_the_time_and_nothing_is_spent() {
    let mut scheduler = with(1, Limits::default());
    for id in 0..20 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    let first = sent(&mut scheduler, at(0));
    let asked =
        Ended { outcome: Outcome::Throttled, asked_wait: Some(Duration::from_secs(9)), took: Duration::ZERO };
    let finished = scheduler.finish(&first[0], asked, at(0));
    let Decision::Retry { attempts: 0, at: again, .. } = finished.decision else { panic!("{finished:?}") };
    assert!(again >= at(9));
    scheduler.flushed(&uid(0), first[0].item.id, Flush::Due(again));
    for attempt in &first[1..] {
        finish(&mut scheduler, attempt, Outcome::Delivered, at(1));
    }
    assert_eq!(sent(&mut scheduler, at(8)), []);
    assert!(!sent(&mut scheduler, at(9)).is_empty());
}

#[test]
fn during_an_outage_of_our_own_nothing_is_spent_and_nobody_is_disabled_in_ten_days() {
    let mut scheduler = with(20, Limits::default());
    let forever = EndpointConfig {
        retry: RetryPolicy { max_age: Duration::MAX, ..RetryPolicy::default() },
        ..EndpointConfig::default()
    };
    for number in 0..20 {
        scheduler.configure(&uid(number), forever.clone());
        scheduler.arrived(&uid(number), item(i64::try_from(number).unwrap(), 0));
    }
    let (mut now, mut outages) = (at(0), 0);
    while now < at(10 * 86_400) {
        for attempt in sent(&mut scheduler, now) {
            let finished = finish(&mut scheduler, &attempt, Outcome::ConnectFailed, now);
            outages += usize::from(finished.outage == Some(true));
            assert!(!matches!(finished.decision, Decision::Dead(_)), "{finished:?}");
            assert!(!finished.changes.iter().any(|change| matches!(change, Change::Disabled(_))));
            now += Duration::from_millis(700);
        }
        while let Some(load) = scheduler.load() {
            let id = load.uid.trim_start_matches("endpoint-").parse().unwrap();
            scheduler.loaded(&load.uid, vec![item(id, 1)], true, None);
        }
        now = scheduler.next_change().unwrap_or(now).max(now + Duration::from_secs(30));
    }
    assert_eq!(outages, 1);
    let attempt = sent(&mut scheduler, now).pop().expect("something is due");
    finish(&mut scheduler, &attempt, Outcome::Rejected, now);
    let (snapshot, _) = scheduler.state(&attempt.uid, now).unwrap();
    assert!(snapshot.disabled.is_none() && snapshot.failing.unwrap().failures < 20, "{snapshot:?}");
}

#[test]
fn a_backlog_that_cannot_be_sent_takes_no_memory() {
    let mut scheduler = with(1, Limits::default());
    for id in 0..200 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    while let Some(Step::Send(attempt)) = scheduler.next(at(0)) {
        finish(&mut scheduler, &attempt, Outcome::ServerError, at(0));
    }
    assert_eq!((scheduler.memory, scheduler.pending()), (0, 200), "the circuit is open");
    for id in 200..100_000 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    assert_eq!((scheduler.memory, scheduler.load()), (0, None));
    let load = loop {
        let now = scheduler.next_change().expect("it is tried again");
        assert_eq!(scheduler.next(now), None);
        if let Some(load) = scheduler.load() {
            break load;
        }
    };
    assert_eq!(load.limit, 1, "one, to see");
}

#[test]
fn what_ends_while_the_store_is_asked_is_not_sent_again_by_its_answer() {
    let mut scheduler = with(1, Limits { window: 4, ..Limits::default() });
    for id in 0..10 {
        scheduler.arrived(&uid(0), item(id, 0));
    }
    let first = sent(&mut scheduler, at(0));
    let load = scheduler.load().expect("more than the window");
    for attempt in &first {
        finish(&mut scheduler, attempt, Outcome::Delivered, at(0));
    }
    let items = (0..10).map(|id| item(id, 0)).collect();
    scheduler.loaded(&load.uid, items, true, None);
    let mut later: Vec<_> = sent(&mut scheduler, at(0)).iter().map(|attempt| attempt.item.id).collect();
    later.sort_unstable();
    assert_eq!(later, (4..10).collect::<Vec<_>>());
}
