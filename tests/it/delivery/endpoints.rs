//! Endpoints that change while deliveries are pending.

use std::{sync::Arc, time::Duration};

use authlink::{
    delivery::{EndpointSettings, MatchedState, PayloadKind, Signing, TestError},
    domain::delivery::{
        health::Snapshot, keys::Scheme, outcome::Outcome, payload::Payload, scheduler::EndpointConfig,
    },
    store::delivery::Origin,
};
use serde_json::json;

use super::{
    bed::{Bed, configured, endpoint, event, key, retry},
    receiver::{KEY, Receiver, Reply},
};
use crate::support::{SOON, eventually};

fn failing(name: &str, url: &str) -> EndpointSettings {
    configured(endpoint(name, url), EndpointConfig { retry: retry(&[200], 100), ..EndpointConfig::default() })
}

#[tokio::test]
async fn what_is_pending_follows_the_object_as_it_is_now_with_the_same_ids_and_bytes() {
    let bed = Bed::make().await;
    let (old, new) = (Receiver::answering(&[500]).await, Receiver::start().await);
    let uid = bed.set(failing("hook", &old.url()));
    let mut ids = bed.accept_many(5).await;
    old.until(5).await;
    let changed = EndpointSettings {
        // It would not match them any more: that was decided when they were accepted.
        events: Vec::new(),
        headers: vec![("authorization".parse().expect("a name"), "Bearer new".parse().expect("a value"))],
        signing: Signing { hex_hmac: vec![key(Scheme::HexHmac, "it is 18 bytes ok.")], ..Signing::default() },
        ..failing("hook", &new.url())
    };
    bed.set(changed);
    bed.drained(&uid).await;
    let seen = new.seen();
    let mut received: Vec<_> = seen.iter().map(|seen| seen.header("x-webhook-id").to_owned()).collect();
    received.sort();
    ids.sort();
    assert_eq!(received, ids);
    assert!(seen.iter().all(|seen| seen.header("authorization") == "Bearer new" && seen.id().is_empty()));
    let before = old.seen();
    for seen in &seen {
        let same =
            before.iter().find(|old| old.id() == seen.header("x-webhook-id")).expect("an earlier attempt");
        assert_eq!(same.body, seen.body);
    }
}

#[tokio::test]
async fn what_comes_while_it_is_suspended_or_lacks_its_secret_waits_and_no_attempt_is_spent() {
    let bed = Bed::make().await;
    let receiver = Receiver::start().await;
    let settings = endpoint("hook", &receiver.url());
    let suspended = EndpointConfig { suspended: true, ..settings.config.clone() };
    for held in [
        configured(settings.clone(), suspended),
        EndpointSettings { unusable: Some("the Secret hook does not exist".to_owned()), ..settings.clone() },
    ] {
        let uid = bed.set(held);
        let before = receiver.count();
        for n in 0..10 {
            assert_eq!(bed.accept("a", json!(n)).await.matched[0].state, MatchedState::Held);
        }
        assert_eq!((receiver.count(), bed.pending(&uid)), (before, 10));
        bed.set(settings.clone());
        bed.drained(&uid).await;
        assert_eq!(receiver.count(), before + 10);
    }
    assert!(bed.attempts(&settings.uid).await.iter().all(|attempt| attempt.record.number == 1));
}

#[tokio::test]
async fn nothing_is_sent_after_it_was_suspended_in_the_middle_of_a_backoff() {
    let bed = Bed::make().await;
    let receiver = Receiver::answering(&[500]).await;
    let settings = failing("hook", &receiver.url());
    let uid = bed.set(settings.clone());
    bed.accept_many(3).await;
    bed.attempts_until(&uid, 3).await;
    let suspended = EndpointConfig { suspended: true, ..settings.config.clone() };
    bed.set(configured(settings, suspended));
    let sent = receiver.count();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((receiver.count(), bed.pending(&uid)), (sent, 3));
}

#[tokio::test]
async fn an_object_that_is_gone_takes_its_deliveries_along_and_one_of_the_same_name_gets_none_of_them() {
    let bed = Bed::make().await;
    let (old, new) = (Receiver::answering(&[500]).await, Receiver::start().await);
    let uid = bed.set(failing("hook", &old.url()));
    for _ in 0..20 {
        bed.accept_many(500).await;
    }
    old.until(5).await;
    let deleted = std::time::Instant::now();
    assert!(bed.engine.cancel(&uid).await.expect("cancelled") > 9_000);
    assert!(deleted.elapsed() < Duration::from_secs(10));
    let again = bed.set(EndpointSettings { uid: "uid-again".into(), ..endpoint("hook", &new.url()) });
    let id = bed.accept("a", json!(1)).await.id.expect("an id");
    bed.drained(&again).await;
    assert_eq!(new.seen().iter().map(|seen| seen.id().to_owned()).collect::<Vec<_>>(), [id]);
    assert_eq!(bed.store.deliveries().pending_of(&uid).await.expect("counted"), 0);
}

#[tokio::test]
async fn what_a_filter_cannot_be_asked_about_is_held_until_it_can() {
    let bed = Bed::make().await;
    let receiver = Receiver::start().await;
    let broken = EndpointSettings {
        filter: Some(Arc::new(|_| Err("no such key: tenant".to_owned()))),
        ..endpoint("hook", &receiver.url())
    };
    let uid = bed.set(broken.clone());
    for n in 0..10 {
        assert_eq!(bed.accept("a", json!(n)).await.matched[0].state, MatchedState::Held);
    }
    assert_eq!(bed.pending(&uid), 10);
    let even: authlink::delivery::Filter = Arc::new(|event| Ok(event.data.bytes[0] % 2 == 0));
    bed.set(EndpointSettings { filter: Some(even), ..broken });
    receiver.until(5).await;
    eventually(SOON, "nothing pending", async || {
        match bed.store.deliveries().pending_of(&uid).await.expect("counted") {
            0 => Ok(()),
            some => Err(some),
        }
    })
    .await;
    assert_eq!(receiver.count(), 5);
    assert_eq!(bed.accept("a", json!(1)).await.matched.len(), 0, "it is not wanted");
}

#[tokio::test]
async fn a_template_makes_the_body_and_one_that_fails_spends_no_attempt() {
    let bed = Bed::make().await;
    let receiver = Receiver::start().await;
    let templated = |template: authlink::delivery::Template| EndpointSettings {
        payload: PayloadKind::Template(template),
        ..failing("hook", &receiver.url())
    };
    let uid = bed.set(templated(Arc::new(|_| Err("no such key: user".to_owned()))));
    bed.accept("a", json!(1)).await;
    let attempt = bed.attempts_until(&uid, 1).await.remove(0).record;
    assert_eq!((attempt.outcome, receiver.count()), (Outcome::SecretUnavailable, 0));
    assert!(attempt.detail.contains("no such key: user"), "{attempt:?}");
    let second = bed.set(EndpointSettings {
        uid: "uid-second".into(),
        ..templated(Arc::new(|event| {
            Ok(Payload::json("application/json", format!("{{\"text\":\"{}\"}}", event.event_type)))
        }))
    });
    bed.accept("a.b", json!(1)).await;
    bed.drained(&second).await;
    let seen = receiver.seen().remove(0);
    assert_eq!((seen.text().as_str(), seen.verify(KEY)), (r#"{"text":"a.b"}"#, Ok(())));
}

#[tokio::test]
async fn a_test_tells_the_truth_and_leaves_no_trace_but_in_the_log() {
    let bed = Bed::make().await;
    let receiver = Receiver::that(|_| Reply::With(500, String::new(), b"invalid_payload".to_vec())).await;
    let filtered = EndpointSettings {
        events: Vec::new(),
        filter: Some(Arc::new(|_| Ok(false))),
        ..endpoint("hook", &receiver.url())
    };
    let uid = bed.set(filtered.clone());
    let example = || event(r#"{"type":"authlink.test","data":{}}"#);
    for _ in 0..12 {
        let report = bed.engine.test(&uid, example()).await.expect("sent");
        assert_eq!((report.outcome, report.status), (Outcome::ServerError, Some(500)));
        assert_eq!(report.body, b"invalid_payload");
    }
    let attempts = bed.attempts(&uid).await;
    assert!(attempts.len() == 12 && attempts.iter().all(|attempt| attempt.record.origin == Origin::Test));
    assert!(receiver.seen().iter().all(|seen| seen.verify(KEY).is_ok()));
    let (snapshot, pending) = bed.engine.state(&uid).expect("its own");
    assert_eq!((snapshot, pending, bed.changes_of(&uid)), (Snapshot::default(), 0, Vec::new()));
    let suspended = EndpointConfig { suspended: true, ..filtered.config.clone() };
    bed.set(configured(filtered, suspended));
    assert_eq!(bed.engine.test(&uid, example()).await, Err(TestError::Suspended));
    assert_eq!(bed.engine.test(&"nobody".into(), example()).await, Err(TestError::Unknown));
}
