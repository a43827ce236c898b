//! What fails is tried again, given up, asked for again; and endpoints that fail are left alone.

use std::time::Duration;

use authlink::{
    delivery::EndpointSettings,
    domain::delivery::{
        disable::{DisablePolicy, DisableReason},
        health::Change,
        outcome::Outcome,
        scheduler::EndpointConfig,
    },
    store::delivery::{Origin, ReplaySelection},
};
use serde_json::json;

use super::{
    bed::{Bed, configured, endpoint, retry},
    receiver::{Receiver, Reply},
};
use crate::support::{SOON, eventually};

#[tokio::test]
async fn there_are_as_many_attempts_as_said_at_the_waits_that_were_said() {
    let bed = Bed::make().await;
    for (name, waits, attempts) in [("a", &[100, 200][..], 5), ("b", &[100; 7], 3), ("c", &[100], 1)] {
        let receiver = Receiver::answering(&[403]).await;
        let config = EndpointConfig { retry: retry(waits, attempts), ..EndpointConfig::default() };
        let uid = bed.set(configured(endpoint(name, &receiver.url()), config));
        bed.accept(name, json!(1)).await;
        bed.drained(&uid).await;
        let seen = receiver.seen();
        assert_eq!(seen.len(), attempts as usize, "{name}");
        for (number, pair) in seen.windows(2).enumerate() {
            let wait = waits[number.min(waits.len() - 1)];
            let gap = (pair[1].at - pair[0].at).as_millis();
            assert!(gap >= u128::from(wait * 8 / 10), "{name}: {gap} ms and not {wait}");
            assert_eq!((pair[0].id(), &pair[0].body), (pair[1].id(), &pair[1].body), "the same id and bytes");
        }
        let numbers: Vec<_> = bed.attempts(&uid).await.iter().map(|attempt| attempt.record.number).collect();
        assert_eq!(numbers, (1..=attempts).collect::<Vec<_>>());
        bed.engine.remove_endpoint(&uid);
    }
}

#[tokio::test]
async fn each_answer_has_its_outcome_and_only_2xx_is_a_success() {
    let bed = Bed::make().await;
    let rows = [
        (Reply::Status(204), Outcome::Delivered),
        (Reply::Status(400), Outcome::Rejected),
        (Reply::Status(500), Outcome::ServerError),
        (
            Reply::With(307, "Location: http://127.0.0.1:1/secret?token=hunter2\r\n".to_owned(), Vec::new()),
            Outcome::Redirected,
        ),
        (
            Reply::With(302, "Location: https://hooks.example/\r\n".to_owned(), Vec::new()),
            Outcome::Redirected,
        ),
        (Reply::Reset, Outcome::ConnectionLost),
    ];
    for (number, (reply, outcome)) in rows.into_iter().enumerate() {
        let receiver = Receiver::that(move |_| reply.clone()).await;
        let config = EndpointConfig { retry: retry(&[100], 1), ..EndpointConfig::default() };
        let uid = bed.set(configured(endpoint(&format!("hook-{number}"), &receiver.url()), config));
        bed.accept("a", json!(1)).await;
        let attempt = bed.attempts_until(&uid, 1).await.remove(0).record;
        assert_eq!(attempt.outcome, outcome, "{attempt:?}");
        assert!(!attempt.detail.contains("hunter2"), "{attempt:?}");
        assert_eq!(receiver.count(), 1);
        bed.engine.remove_endpoint(&uid);
    }
}

#[tokio::test]
async fn a_receiver_that_says_429_costs_no_attempts_and_is_not_asked_all_the_time() {
    let bed = Bed::make().await;
    for status in [429, 503] {
        let last = parking_lot::Mutex::new(None::<std::time::Instant>);
        let receiver = Receiver::that(move |seen| {
            let mut last = last.lock();
            if last.is_some_and(|last| seen.at.duration_since(last) < Duration::from_millis(100)) {
                return Reply::retry_after(status, "1");
            }
            *last = Some(seen.at);
            Reply::Status(200)
        })
        .await;
        let config = EndpointConfig { retry: retry(&[100], 3), ..EndpointConfig::default() };
        let uid = bed.set(configured(endpoint(&format!("hook-{status}"), &receiver.url()), config));
        bed.accept_many(10).await;
        bed.drained(&uid).await;
        let (snapshot, _) = bed.engine.state(&uid).expect("its own");
        assert_eq!((snapshot.totals.delivered, snapshot.totals.dead), (10, 0));
        let refused =
            bed.attempts(&uid).await.iter().filter(|it| it.record.outcome == Outcome::Throttled).count();
        assert!((1..40).contains(&refused), "{refused} refusals");
        assert_eq!((bed.changes_of(&uid), snapshot.failing), (Vec::new(), None));
        bed.engine.remove_endpoint(&uid);
    }
}

#[tokio::test]
async fn a_circuit_opens_after_ten_failures_and_spends_nothing_while_it_is_open() {
    let bed = Bed::make().await;
    let receiver = Receiver::answering(&[500]).await;
    let config = EndpointConfig { retry: retry(&[10], 8), ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    bed.accept_many(100).await;
    eventually(SOON, "an open circuit", async || {
        let changes = bed.changes_of(&uid);
        if changes == [Change::CircuitOpened] { Ok(()) } else { Err(format!("{changes:?}")) }
    })
    .await;
    // Those that were under way when it opened end as well.
    bed.attempts_until(&uid, 10).await;
    let sent = receiver.count();
    assert!((10..=17).contains(&sent), "{sent} requests");
    bed.accept_many(100).await;
    assert_eq!((receiver.count(), bed.pending(&uid)), (sent, 200));
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_somebody_enables_it_and_nothing_is_lost() {
    let bed = Bed::make().await;
    let receiver = Receiver::answering(&[410, 200]).await;
    let uid = bed.set(endpoint("hook", &receiver.url()));
    let first = bed.accept("a", json!(1)).await;
    let disabled = Change::Disabled(DisableReason::Gone);
    eventually(SOON, "disabled", async || {
        let changes = bed.changes_of(&uid);
        if changes == [disabled] { Ok(()) } else { Err(format!("{changes:?}")) }
    })
    .await;
    for n in 0..10 {
        let accepted = bed.accept("a", json!(n)).await;
        assert_eq!(accepted.matched[0].state, authlink::delivery::MatchedState::Skipped);
    }
    let state = async || bed.store.deliveries().endpoints(&[&uid]).await.expect("read").remove(0).1;
    assert_eq!((state().await.skipped, bed.pending(&uid), receiver.count()), (10, 1, 1));
    bed.engine.enable(&uid).await.expect("enabled");
    bed.drained(&uid).await;
    assert_eq!(
        receiver.seen().iter().map(|seen| seen.id().to_owned()).collect::<Vec<_>>(),
        vec![first.id.expect("an id"); 2]
    );
    assert_eq!(bed.changes_of(&uid), [disabled, Change::Enabled]);
    let failed = ReplaySelection { only_failed: true, ..ReplaySelection::default() };
    assert_eq!(bed.engine.replay(&uid, &failed).await.expect("replayed"), 10);
    receiver.until(12).await;
    bed.drained(&uid).await;
    let origins: Vec<_> = bed.attempts(&uid).await.iter().map(|attempt| attempt.record.origin).collect();
    assert_eq!(origins[2..], [Origin::Replay; 10]);
}

#[tokio::test]
async fn an_endpoint_that_only_fails_is_disabled_by_its_policy_and_the_way_there_is_told() {
    let bed = Bed::make().await;
    let receiver = Receiver::answering(&[500]).await;
    let disable = Some(DisablePolicy { after: Duration::from_millis(1), min_failures: 8 });
    let config = EndpointConfig { retry: retry(&[20], 100), disable, ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    bed.accept("a", json!(1)).await;
    let wanted = [
        Change::DisableNotice(50),
        Change::DisableNotice(70),
        Change::Disabled(DisableReason::TooManyFailures),
    ];
    eventually(SOON, "disabled", async || {
        let changes = bed.changes_of(&uid);
        if changes == wanted { Ok(()) } else { Err(format!("{changes:?}")) }
    })
    .await;
    assert_eq!((receiver.count(), bed.pending(&uid)), (8, 1), "it is kept");
}

#[tokio::test]
async fn a_delivery_that_is_given_up_goes_to_the_dead_letter_endpoint_as_it_was() {
    let bed = Bed::make().await;
    let (broken, letters) = (Receiver::answering(&[500]).await, Receiver::start().await);
    let config = EndpointConfig { retry: retry(&[10], 2), ..EndpointConfig::default() };
    // Both want none but what is sent to them, and each is the other's: nothing goes round in circles.
    let quiet = |settings: EndpointSettings| EndpointSettings { events: Vec::new(), ..settings };
    let dlq = quiet(EndpointSettings {
        dead_letter: Some("uid-hook".into()),
        ..endpoint("letters", &letters.url())
    });
    let dlq = bed.set(dlq);
    let hook = configured(endpoint("hook", &broken.url()), config);
    let uid = bed.set(EndpointSettings { dead_letter: Some(dlq.clone()), ..hook });
    let id = bed.accept("a", json!({ "b": 1 })).await.id.expect("an id");
    let seen = letters.until(1).await.remove(0);
    let sent = broken.seen();
    assert_eq!((seen.id(), sent.len(), &seen.body), (id.as_str(), 2, &sent[0].body));
    bed.drained(&uid).await;
    bed.drained(&dlq).await;
    let (snapshot, _) = bed.engine.state(&uid).expect("its own");
    assert_eq!(snapshot.totals.dead, 1);
    assert_eq!(bed.attempts(&dlq).await[0].record.origin, Origin::DeadLetter);
    let failed = ReplaySelection { only_failed: true, ..ReplaySelection::default() };
    assert_eq!(bed.engine.replay(&uid, &failed).await.expect("replayed"), 1, "it is here still");
}

#[tokio::test]
async fn what_is_older_than_its_age_is_given_up_and_not_sent() {
    let bed = Bed::make().await;
    let receiver = Receiver::answering(&[500]).await;
    let policy = authlink::domain::delivery::retry::RetryPolicy {
        max_age: Duration::from_millis(500),
        ..retry(&[300], 100)
    };
    let config = EndpointConfig { retry: policy, ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    bed.accept("a", json!(1)).await;
    bed.drained(&uid).await;
    assert_eq!(receiver.count(), 2, "a third attempt would be too late");
    assert_eq!(bed.engine.state(&uid).expect("its own").0.totals.dead, 1);
}

#[tokio::test]
async fn what_becomes_too_old_while_nothing_is_sent_goes_to_the_dead_letter_endpoint_too() {
    let bed = Bed::make().await;
    let (held, letters) = (Receiver::start().await, Receiver::start().await);
    let quiet = |settings: EndpointSettings| EndpointSettings { events: Vec::new(), ..settings };
    let dlq = bed.set(quiet(endpoint("letters", &letters.url())));
    let policy = authlink::domain::delivery::retry::RetryPolicy {
        max_age: Duration::from_millis(100),
        ..retry(&[100], 5)
    };
    let config = EndpointConfig { retry: policy, suspended: true, ..EndpointConfig::default() };
    let hook = configured(endpoint("hook", &held.url()), config);
    let uid = bed.set(EndpointSettings { dead_letter: Some(dlq.clone()), ..hook });
    let id = bed.accept("a", json!(1)).await.id.expect("an id");
    assert_eq!(letters.until(1).await[0].id(), id);
    bed.drained(&dlq).await;
    bed.drained(&uid).await;
    assert_eq!((held.count(), bed.engine.state(&uid).expect("its own").0.totals.dead), (0, 1));
}
