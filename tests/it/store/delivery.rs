//! Events and deliveries, on each engine.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use authlink::{
    domain::delivery::{
        event::{Event, from_plain},
        health::Snapshot,
        outcome::Outcome,
    },
    store::{
        Error, Store,
        delivery::{
            Acceptance, AcceptedEvent, AttemptFilter, AttemptRecord, Completion, Ending, EndpointUpdate,
            FencingToken, FinalState, NewDelivery, NewState, Origin, ReplaySelection, Retention,
        },
    },
};
use jiff::Timestamp;

use super::Place;

pub(super) const NOW: Duration = Duration::from_secs(1_000_000);
const LEASE: &str = "delivery/shard/00";
const OWNER: &str = "one";
const TIME: Duration = Duration::from_secs(15);

pub(super) fn event(number: usize) -> Event {
    let text = format!(r#"{{"type":"user.created","data":{{"number":{number}, "b":1e400}}}}"#);
    let event = from_plain(&text.into(), "me", Timestamp::UNIX_EPOCH).expect("an event");
    Event { id: format!("evt_{number:06}"), ..event }
}

pub(super) fn delivery(endpoint: &str) -> NewDelivery {
    NewDelivery {
        endpoint: endpoint.into(),
        lease: LEASE.to_owned(),
        ordered: false,
        state: NewState::Pending,
    }
}

pub(super) fn accepted(event: Event, deliveries: Vec<NewDelivery>) -> AcceptedEvent {
    AcceptedEvent { namespace: "team".to_owned(), digest: event.digest(), event, deliveries }
}

fn named(number: usize, id: &str, data: u32) -> AcceptedEvent {
    let text = format!(r#"{{"type":"a","id":"{id}","data":{data}}}"#);
    let event = from_plain(&text.into(), "me", Timestamp::UNIX_EPOCH).expect("an event");
    accepted(Event { id: format!("evt_{number:06}"), ..event }, vec![delivery("a")])
}

pub(super) async fn accept(store: &Store, events: &[AcceptedEvent]) -> Vec<Acceptance> {
    store.deliveries().accept(OWNER, events, NOW).await.expect("accepted")
}

pub(super) async fn lease(store: &Store) -> FencingToken {
    let lease = store.leases().acquire(OWNER, &[LEASE], TIME).await.expect("an answer").pop().expect("free");
    FencingToken { lease: lease.name, epoch: lease.epoch }
}

pub(super) fn completion(id: i64, event: &Event, token: &FencingToken, ending: Ending) -> Completion {
    let record = AttemptRecord {
        endpoint: "a".to_owned(),
        event_id: event.id.clone(),
        number: 1,
        origin: Origin::Event,
        at: NOW,
        took: Duration::from_millis(7),
        outcome: Outcome::ServerError,
        status: Some(500),
        host: "hooks.example".to_owned(),
        detail: "the receiver answered 500".to_owned(),
        body: b"\0\xff".to_vec(),
    };
    Completion {
        id,
        endpoint: "a".into(),
        event_id: event.id.clone(),
        accepted: NOW,
        replay: 0,
        token: token.clone(),
        ending,
        attempt: Some(record),
    }
}

pub(super) fn delivered() -> Ending {
    Ending::Finished { state: FinalState::Delivered, attempts: 1, dead_letter: None }
}

pub(super) fn dead() -> Ending {
    Ending::Finished { state: FinalState::Dead, attempts: 8, dead_letter: None }
}

pub(super) async fn complete(store: &Store, completions: &[Completion]) -> Vec<bool> {
    store.deliveries().complete(OWNER, completions, &[], NOW).await.expect("completed")
}

/// Stores one event for the endpoint `a`, and gives the number of its delivery.
pub(super) async fn one(store: &Store, number: usize) -> (Event, i64) {
    let event = event(number);
    match &accept(store, &[accepted(event.clone(), vec![delivery("a")])]).await[..] {
        [Acceptance::Stored(numbers)] => (event, numbers[0].expect("a number")),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn due(store: &Store, now: Duration) -> Vec<String> {
    let loaded = store.deliveries().due("a", now, 1000, None).await.expect("loaded");
    loaded.deliveries.into_iter().map(|delivery| delivery.event.id).collect()
}

#[tokio::test]
async fn what_is_accepted_comes_back_as_it_was_in_order_and_never_twice_by_number() {
    for place in Place::each().await {
        let store = place.open();
        let events: Vec<_> = (0..700).map(event).collect();
        let batch: Vec<_> =
            events.iter().map(|event| accepted(event.clone(), vec![delivery("a"), delivery("b")])).collect();
        let answers = accept(&store, &batch).await;
        let numbers: BTreeSet<_> = answers
            .iter()
            .flat_map(|answer| match answer {
                Acceptance::Stored(numbers) => numbers.iter().map(|number| number.expect("a number")),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers.len(), 1400);
        let loaded = place.open().deliveries().due("a", NOW, 1000, None).await.expect("loaded");
        let back: Vec<_> = loaded.deliveries.iter().map(|delivery| delivery.event.clone()).collect();
        assert_eq!((back, loaded.complete, loaded.next_due), (events, true, None));
        let some = store.deliveries().due("a", NOW, 10, None).await.expect("loaded");
        assert_eq!((some.deliveries.len(), some.complete), (10, false));
        let mut counts = store.deliveries().pending().await.expect("counted");
        counts.sort_by(|one, other| one.endpoint.cmp(&other.endpoint));
        let counts: Vec<_> = counts.iter().map(|it| (it.endpoint.as_str(), it.pending, it.due)).collect();
        assert_eq!(counts, [("a", 700, Some(NOW)), ("b", 700, Some(NOW))]);
    }
}

#[tokio::test]
async fn an_id_of_a_producer_is_one_event_and_with_another_body_a_conflict() {
    for place in Place::each().await {
        let store = place.open();
        let stored = |numbers: &Acceptance| matches!(numbers, Acceptance::Stored(_));
        let first = [named(1, "x", 1), named(2, "x", 1), named(3, "x", 2), named(4, "y", 1)];
        let answers = accept(&store, &first).await;
        assert!(stored(&answers[0]) && stored(&answers[3]), "{answers:?}");
        let duplicate = Acceptance::Duplicate("evt_000001".to_owned());
        assert_eq!(answers[1..3], [duplicate.clone(), Acceptance::Conflict]);
        // In another namespace, or from another source, it is another event.
        let elsewhere = AcceptedEvent { namespace: "other".to_owned(), ..named(5, "x", 2) };
        let mut other_source = named(6, "x", 2);
        other_source.event.source = "you".to_owned();
        let answers = accept(&store, &[elsewhere, other_source, named(7, "x", 1)]).await;
        assert!(stored(&answers[0]) && stored(&answers[1]), "{answers:?}");
        assert_eq!(answers[2], duplicate);
        assert_eq!(due(&store, NOW).await.len(), 4);
        // Once it is forgotten, it is a new event.
        let later = NOW + Retention::default().dedupe + Duration::from_secs(1);
        while !store.deliveries().purge_logs(&Retention::default(), later).await.expect("purged") {}
        assert!(stored(&accept(&store, &[named(8, "x", 3)]).await[0]));
    }
}

#[tokio::test]
async fn of_a_hundred_that_come_at_once_one_is_the_event() {
    for place in Place::each().await {
        let store = Arc::new(place.open());
        store.prepare().await.expect("prepared");
        let posts = (0..100).map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { accept(&store, &[named(number, "x", 1)]).await.remove(0) })
        });
        let answers = futures::future::join_all(posts).await;
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("no panic")).collect();
        let first: Vec<_> = answers.iter().filter(|answer| matches!(answer, Acceptance::Stored(_))).collect();
        let same: BTreeSet<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Acceptance::Duplicate(id) => Some(id),
                _ => None,
            })
            .collect();
        assert_eq!((first.len(), same.len()), (1, 1), "{answers:?}");
        assert_eq!(due(&store, NOW).await, [same.first().expect("one").as_str()]);
    }
}

#[tokio::test]
async fn what_was_sent_is_gone_and_what_failed_is_due_later() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let [(first, one_id), (second, other_id)] = [one(&store, 1).await, one(&store, 2).await];
        let wait = Duration::from_secs(5);
        let retry = Ending::Retry { attempts: 1, due: NOW + wait, wait };
        let completions =
            [completion(one_id, &first, &token, delivered()), completion(other_id, &second, &token, retry)];
        assert_eq!(complete(&store, &completions).await, [true, true]);
        assert_eq!(due(&store, NOW).await, [""; 0]);
        let loaded = store.deliveries().due("a", NOW, 10, None).await.expect("loaded");
        assert_eq!(loaded.next_due, Some(NOW + wait));
        let again = store.deliveries().due("a", NOW + wait, 10, None).await.expect("loaded");
        assert_eq!((again.deliveries[0].attempts, again.deliveries.len()), (1, 1));
        // Written twice, because nobody knew whether it was.
        assert_eq!(complete(&store, &completions).await, [true, true]);
        let log = store.deliveries().attempts("a", &AttemptFilter::default(), 10).await.expect("a log");
        let ids: Vec<_> = log.iter().map(|attempt| attempt.record.event_id.as_str()).collect();
        assert_eq!(ids, ["evt_000002", "evt_000001", "evt_000002", "evt_000001"]);
        assert_eq!(log[0].record.body, b"\0\xff");
        let filter = AttemptFilter {
            event_id: Some("evt_000001".to_owned()),
            before: Some(log[1].id),
            ..AttemptFilter::default()
        };
        assert_eq!(store.deliveries().attempts("a", &filter, 10).await.expect("a log").len(), 1);
    }
}

#[tokio::test]
async fn whoever_has_lost_the_lease_writes_nothing() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let (event, id) = one(&store, 1).await;
        let old = completion(id, &event, &token, delivered());
        let update = EndpointUpdate {
            uid: "a".into(),
            token: token.clone(),
            snapshot: Snapshot { rounds: 9, ..Snapshot::default() },
            pending: 1,
        };
        place.run("update authlink_leases set expires = 0").await;
        store.leases().acquire("two", &[LEASE], TIME).await.expect("taken");
        let written = store.deliveries().complete(OWNER, &[old], &[update], NOW).await.expect("an answer");
        assert_eq!(written, [false]);
        assert_eq!(due(&store, NOW).await, ["evt_000001"]);
        assert_eq!(store.deliveries().endpoints(&["a"]).await.expect("read"), []);
        let log = store.deliveries().attempts("a", &AttemptFilter::default(), 10).await.expect("a log");
        assert_eq!(log, []);
        // Under the same name in another epoch is another holder, too.
        place.run("update authlink_leases set owner = 'one'").await;
        assert_eq!(complete(&store, &[completion(id, &event, &token, delivered())]).await, [false]);
    }
}

#[tokio::test]
async fn a_value_that_is_refused_is_told_apart_from_a_store_that_does_not_work() {
    for place in Place::each().await {
        let store = place.open();
        let (event, _) = one(&store, 1).await;
        let again = store.deliveries().accept(OWNER, &[accepted(event, vec![delivery("a")])], NOW).await;
        assert!(matches!(again, Err(Error::BadValue(_))), "{again:?}");
    }
}

#[tokio::test]
async fn of_each_subject_the_first_is_given_and_all_subjects_get_their_turn() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let ordered = |number: usize, subject: Option<&str>| {
            let event = Event { subject: subject.map(str::to_owned), ..event(number) };
            accepted(event, vec![NewDelivery { ordered: true, ..delivery("a") }])
        };
        let subjects = [Some("s1"), Some("s1"), Some("s2"), None, Some("s2"), Some("s3"), None, Some("s1")];
        let events: Vec<_> =
            subjects.iter().enumerate().map(|(number, subject)| ordered(number, *subject)).collect();
        let Acceptance::Stored(first) = accept(&store, &events).await.remove(0) else { panic!("new") };
        let heads = async |now, limit, after: &str| {
            let loaded = store.deliveries().due("a", now, limit, Some(after)).await.expect("loaded");
            let ids: Vec<_> = loaded.deliveries.iter().map(|it| it.event.id[9..].to_owned()).collect();
            (ids, loaded.complete, loaded.subject)
        };
        let ids = |numbers: &[&str]| numbers.iter().map(|number| (*number).to_owned()).collect::<Vec<_>>();
        assert_eq!(heads(NOW, 10, "").await, (ids(&["3", "6", "0", "2", "5"]), true, None));
        assert_eq!(heads(NOW, 2, "").await, (ids(&["3", "6", "0", "2"]), false, Some("s2".to_owned())));
        assert_eq!(
            heads(NOW, 3, "s2").await,
            (ids(&["3", "6", "5"]), false, None),
            "it goes on from the first"
        );
        // While the first of a subject waits, nobody passes it.
        let (number, wait) = (first[0].expect("a number"), Duration::from_secs(5));
        let retry = Ending::Retry { attempts: 1, due: NOW + wait, wait };
        complete(&store, &[completion(number, &events[0].event, &token, retry)]).await;
        assert_eq!(heads(NOW, 10, "").await.0, ids(&["3", "6", "2", "5"]));
        complete(&store, &[completion(number, &events[0].event, &token, dead())]).await;
        assert_eq!(heads(NOW, 10, "").await.0, ids(&["3", "6", "1", "2", "5"]));
    }
}

#[tokio::test]
async fn what_was_given_up_or_skipped_can_be_asked_for_again_and_what_is_pending_is_not_doubled() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let mut numbers = Vec::new();
        for number in 0..3 {
            numbers.push(one(&store, number).await);
        }
        let ends = [delivered(), dead()];
        let ended = numbers.iter().zip(ends).map(|((event, id), end)| completion(*id, event, &token, end));
        complete(&store, &ended.collect::<Vec<_>>()).await;
        let skipped = NewDelivery { state: NewState::Skipped, ..delivery("a") };
        accept(&store, &[accepted(event(3), vec![skipped])]).await;
        let replay = async |selection: ReplaySelection| {
            let made = store.deliveries().replay("a", LEASE, &selection, false, NOW).await.expect("replayed");
            (made, due(&store, NOW).await)
        };
        let failed = ReplaySelection { only_failed: true, ..ReplaySelection::default() };
        assert_eq!(
            replay(failed.clone()).await,
            (2, ["evt_000002", "evt_000001", "evt_000003"].map(str::to_owned).to_vec())
        );
        assert_eq!(replay(failed).await.0, 0, "all of them are pending");
        let woken = store.deliveries().wakeups(&[LEASE]).await.expect("read");
        assert!(woken.iter().any(|wakeup| wakeup.endpoint == "a" && wakeup.pending == 2), "{woken:?}");
        let one = ReplaySelection { event_id: Some("evt_000000".to_owned()), ..ReplaySelection::default() };
        assert_eq!(replay(one).await.0, 1);
        let none =
            ReplaySelection { since: Some(NOW + Duration::from_secs(1)), ..ReplaySelection::default() };
        assert_eq!(replay(none).await.0, 0);
        let loaded = store.deliveries().due("a", NOW, 10, None).await.expect("loaded");
        let replayed: Vec<_> =
            loaded.deliveries.iter().map(|it| (it.replay, it.origin, it.attempts)).collect();
        assert_eq!(replayed[1..], [(1, Origin::Replay, 0); 3]);
    }
}
