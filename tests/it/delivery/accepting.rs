//! Events that are accepted, and what a receiver gets of them.

use std::{collections::BTreeSet, time::Duration};

use authlink::{
    delivery::{AcceptError, EndpointSettings, EngineSettings, MatchedState, PayloadKind, Signing},
    domain::delivery::{
        event::Event, event_type::Pattern, keys::Scheme, payload::PayloadForm, scheduler::EndpointConfig,
    },
};
use serde_json::json;

use super::{
    bed::{Bed, NAMESPACE, configured, endpoint, event, key},
    receiver::{KEY, Receiver, Reply},
};

#[tokio::test]
async fn a_receiver_gets_the_data_byte_for_byte_under_a_signature_that_its_library_accepts() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let uid = bed.set(endpoint("hook", &receiver.url()));
    for data in [r#"{"b":1, "a":2}"#, "1e400", r#"{"a":1,"a":2}"#, "\"\u{fc}\""] {
        let accepted = bed.accept_event(event(&format!(r#"{{"type":"user.created","data":{data}}}"#))).await;
        let seen = receiver.until(receiver.count() + 1).await.pop().expect("a request");
        assert!(seen.text().ends_with(&format!(",\"data\":{data}}}")), "{}", seen.text());
        assert_eq!(Some(seen.id()), accepted.id.as_deref());
        assert_eq!(seen.verify(KEY), Ok(()));
        assert_eq!(
            (seen.header("user-agent"), seen.header("content-type")),
            ("Auth-Service-Webhook/1.0", "application/json")
        );
    }
    bed.drained(&uid).await;
}

#[tokio::test]
async fn an_event_goes_to_each_endpoint_of_its_namespace_that_wants_its_type() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let wanting = |name: &str, pattern: &str| EndpointSettings {
        events: vec![Pattern::parse(pattern).expect("a pattern")],
        ..endpoint(name, &format!("{}/{name}", receiver.url()))
    };
    bed.set(wanting("users", "user.*"));
    bed.set(wanting("all", "*"));
    bed.set(wanting("sessions", "session.revoked"));
    bed.set(EndpointSettings { namespace: "other".to_owned(), ..wanting("elsewhere", "*") });
    let accepted = bed.accept("user.created", json!(1)).await;
    let names: BTreeSet<_> = accepted.matched.iter().map(|matched| matched.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["all", "users"]));
    assert!(accepted.matched.iter().all(|matched| matched.state == MatchedState::Pending));
    let seen = receiver.until(2).await;
    let targets: BTreeSet<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, BTreeSet::from(["/h/all", "/h/users"]));
    assert_eq!(bed.accept("nobody.wants", json!(1)).await.matched.len(), 1);
}

#[tokio::test]
async fn one_id_of_a_producer_is_delivered_once_however_often_it_is_sent() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let uid = bed.set(endpoint("hook", &receiver.url()));
    let post = || event(r#"{"type":"a","id":"order.1 2","data":1}"#);
    let posts = (0..100).map(|_| bed.accept_event(post()));
    let accepted = futures::future::join_all(posts).await;
    let ids: BTreeSet<_> = accepted.iter().map(|accepted| accepted.id.clone()).collect();
    assert_eq!((ids.len(), accepted.iter().filter(|accepted| accepted.duplicate).count()), (1, 99));
    let other = bed.accept_event(event(r#"{"type":"a","id":"order.1 2","data":2}"#)).await;
    assert_eq!((other.id, other.duplicate), (None, true), "another body under the same id");
    bed.drained(&uid).await;
    assert_eq!(receiver.count(), 1);
    let seen = &receiver.seen()[0];
    assert!(!seen.id().contains(['.', ' ']) && seen.text().contains(r#""id":"order.1 2""#), "{seen:?}");
}

#[tokio::test]
async fn every_scheme_and_every_form_of_payload_arrives_as_receivers_expect_it() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let text = "it is 18 bytes ok.";
    let signing = Signing {
        standard: vec![key(Scheme::StandardWebhooks, KEY)],
        hex_hmac: vec![key(Scheme::HexHmac, text)],
        github: vec![key(Scheme::GitHub, text)],
    };
    let all = EndpointSettings {
        signing,
        headers: vec![("x-env".parse().expect("a name"), "prod".parse().expect("a value"))],
        payload: PayloadKind::Form(PayloadForm::Binary),
        ..endpoint("hook", &receiver.url())
    };
    bed.set(all.clone());
    let sent =
        Event { subject: Some("a \u{fc}".to_owned()), ..event(r#"{"type":"user.created","data":{"a": 1}}"#) };
    let id = bed.accept_event(sent).await.id.expect("an id");
    let seen = receiver.until(1).await.remove(0);
    assert_eq!((seen.verify(KEY), seen.text().as_str()), (Ok(()), r#"{"a": 1}"#));
    let hex = hex_hmac(text.as_bytes(), &seen.body);
    assert_eq!(seen.header("x-webhook-signature"), hex);
    assert_eq!(seen.header("x-hub-signature-256"), format!("sha256={hex}"));
    assert_eq!(
        (seen.header("x-github-event"), seen.header("x-github-delivery")),
        ("user.created", id.as_str())
    );
    assert_eq!((seen.header("x-webhook-id"), seen.header("x-env")), (id.as_str(), "prod"));
    assert_eq!((seen.header("ce-id"), seen.header("ce-subject")), (id.as_str(), "a%20%C3%BC"));
    bed.set(EndpointSettings { payload: PayloadKind::Form(PayloadForm::Structured), ..all });
    bed.accept("user.created", json!({ "a": 1 })).await;
    let seen = receiver.until(2).await.remove(1);
    assert_eq!(seen.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let body: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]), (&json!("user.created"), &json!({ "a": 1 })));
}

/// As `openssl dgst -sha256 -hmac` has it.
fn hex_hmac(key: &[u8], body: &[u8]) -> String {
    use aws_lc_rs::hmac;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), body);
    tag.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[tokio::test]
async fn who_sends_more_than_may_be_pending_is_asked_to_wait() {
    let settings = EngineSettings { max_pending: (10, 1000), ..EngineSettings::default() };
    let bed = Bed::on("sqlite::memory:", settings).await;
    let receiver = Receiver::that(|_| Reply::Status(200)).await;
    let suspended = EndpointConfig { suspended: true, ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), suspended));
    bed.accept_many(10).await;
    let refused = bed.engine.accept(NAMESPACE, vec![event(r#"{"type":"a"}"#)]).await;
    assert!(
        matches!(refused, Err(AcceptError::Backlog { retry_after }) if retry_after > Duration::ZERO),
        "{refused:?}"
    );
    // Nobody else is held up.
    bed.engine.accept("other", vec![event(r#"{"type":"a"}"#)]).await.expect("accepted");
    bed.set(endpoint("hook", &receiver.url()));
    bed.drained(&uid).await;
    bed.accept_many(1).await;
    receiver.until(11).await;
}

#[tokio::test]
async fn what_was_accepted_before_an_orderly_end_is_delivered_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/authlink.db", folder.path().display());
    let receiver = Receiver::that(|_| Reply::after(Duration::from_millis(20), 200)).await;
    let bed = Bed::on(&url, EngineSettings::default()).await;
    bed.set(endpoint("hook", &receiver.url()));
    let ids: BTreeSet<_> = bed.accept_many(100).await.into_iter().collect();
    receiver.until(20).await;
    bed.end().await;
    let before = receiver.count();
    let bed = Bed::on(&url, EngineSettings::default()).await;
    let uid = bed.set(endpoint("hook", &receiver.url()));
    receiver.until(100).await;
    bed.drained(&uid).await;
    let seen = receiver.seen();
    let received: BTreeSet<_> = seen.iter().map(|seen| seen.id().to_owned()).collect();
    assert_eq!((received, seen.len()), (ids, 100), "each once: {before} before the end");
}
