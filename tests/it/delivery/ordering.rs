//! Deliveries in order, for endpoints that ask for it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use authlink::domain::delivery::{event::Event, scheduler::EndpointConfig};
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    bed::{Bed, NAMESPACE, configured, endpoint, event, retry},
    receiver::{Receiver, Reply, Seen},
};

#[tokio::test]
async fn of_one_subject_the_next_is_sent_when_the_one_before_is_over_and_other_subjects_do_not_wait() {
    let bed = Bed::make().await;
    // The first attempt of every third event fails.
    let tried = Mutex::new(BTreeSet::new());
    let receiver = Receiver::that(move |seen| {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let number = body["data"]["number"].as_u64().expect("a number");
        if number.is_multiple_of(3) && tried.lock().insert(number) {
            Reply::Status(500)
        } else {
            Reply::after(Duration::from_millis(2), 200)
        }
    })
    .await;
    let config = EndpointConfig { ordered: true, retry: retry(&[30], 100), ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    for number in 0..120_u32 {
        let (subject, text) =
            (number % 4, format!(r#"{{"type":"a","data":{{"subject":{},"number":{number}}}}}"#, number % 4));
        let event = Event { subject: Some(format!("s{subject}")), ..event(&text) };
        bed.engine.accept(NAMESPACE, vec![event]).await.expect("accepted");
    }
    bed.drained(&uid).await;
    let mut last: HashMap<u64, u64> = HashMap::new();
    for seen in receiver.seen() {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let [subject, number] =
            ["subject", "number"].map(|name| body["data"][name].as_u64().expect("a number"));
        let before = last.insert(subject, number);
        assert!(
            before.is_none_or(|before| before <= number),
            "{number} of subject {subject} after {before:?}"
        );
        // None is left out: each begins when the one before has been delivered.
        assert!(
            before.is_none_or(|before| number - before <= 4),
            "{number} of subject {subject} after {before:?}"
        );
    }
    assert_eq!(receiver.count(), 160, "40 came twice");
}

/// An event of a subject, with a number.
async fn accept(bed: &Bed, subject: &str, number: u32) {
    let event = Event {
        subject: Some(subject.to_owned()),
        ..event(&format!(r#"{{"type":"a","data":{{"number":{number}}}}}"#))
    };
    bed.engine.accept(NAMESPACE, vec![event]).await.expect("accepted");
}

fn number(seen: &Seen) -> u64 {
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    body["data"]["number"].as_u64().expect("a number")
}

#[tokio::test]
async fn an_order_that_is_given_up_after_a_failure_frees_those_that_waited_and_one_that_comes_back_holds() {
    let bed = Bed::make().await;
    // The first event fails, and is tried again an hour later.
    let receiver =
        Receiver::that(|seen| if number(seen) == 0 { Reply::Status(500) } else { Reply::Status(200) }).await;
    let settings = |ordered| {
        let config = EndpointConfig { ordered, retry: retry(&[3_600_000], 5), ..EndpointConfig::default() };
        configured(endpoint("hook", &receiver.url()), config)
    };
    let uid = bed.set(settings(true));
    for number in 0..20 {
        accept(&bed, "s", number).await;
    }
    bed.attempts_until(&uid, 1).await;
    accept(&bed, "other", 20).await;
    receiver.until(2).await;
    assert_eq!((receiver.count(), bed.pending(&uid)), (2, 20), "all others of the subject wait");
    bed.set(settings(false));
    let seen = receiver.until(21).await;
    let numbers: BTreeSet<_> = seen.iter().map(number).collect();
    assert_eq!((numbers, seen.len()), ((0..=20).collect(), 21));
    // In order again, what comes from now on waits for what has failed.
    bed.set(settings(true));
    accept(&bed, "s", 21).await;
    accept(&bed, "other", 22).await;
    let seen = receiver.until(22).await;
    assert_eq!((number(&seen[21]), seen.len(), bed.pending(&uid)), (22, 22, 2));
}
