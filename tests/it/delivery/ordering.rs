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
    receiver::{Receiver, Reply},
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
