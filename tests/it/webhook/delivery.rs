//! Events on their way from a producer to an endpoint, as users see it: the gateway's routes, and `kubectl`.

use authlink::api::v1alpha1::{
    Webhook,
    webhook::{DeliveryCounts, WebhookStatus},
};
use hyper::Method;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{ALLOWED, KEY, Receiver, apply, expect, manifest, ready};
use crate::support::{Namespace, SOON, eventually, gateway::Gateway, secret};

/// Rights on everything that the routes offer.
const RIGHTS: [(&str, &str, &[&str]); 3] = [
    ("create", "webhooks/trigger", &[]),
    ("get", "webhooks/attempts", &[]),
    ("create", "webhooks/replay", &[]),
];

/// Attempts that follow each other at once, up to three.
fn eager() -> Value {
    json!({ "schedule": ["100ms", "100ms"], "maxAttempts": 3, "timeout": "2s" })
}

async fn send(gateway: &Gateway, namespace: &Namespace, token: &str, event: &Value) -> Value {
    let path = format!("/v1/events/{}", namespace.name);
    let answer = gateway.call(Method::POST, &path, token, &event.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Waits until the counts of the status are so.
async fn counted(
    namespace: &Namespace,
    what: &str,
    holds: impl Fn(&DeliveryCounts) -> bool,
) -> WebhookStatus {
    let holds = |webhook: &Webhook| {
        let counts = webhook.status.as_ref().and_then(|status| status.deliveries.as_ref());
        counts.is_some_and(&holds)
    };
    namespace.follow::<Webhook>("orders", SOON, what, holds).await.status.expect("a status")
}

async fn webhook(namespace: &Namespace, receiver: &Receiver, more: Value) {
    apply(namespace, manifest("orders", &receiver.url(), more)).await;
    ready(namespace, "orders").await;
}

#[tokio::test]
async fn the_event_that_is_sent_once_it_is_ready_arrives_signed() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(204).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("producer", &RIGHTS).await;
    namespace.apply::<Secret>(secret("key", "Opaque", &[("key", KEY)])).await;
    let signing = json!({ "secretRef": { "name": "key", "key": "key" } });
    webhook(&namespace, &receiver, json!({ "events": ["order.*"], "signing": signing })).await;
    let accepted =
        send(&gateway, &namespace, &token, &json!({ "type": "order.paid", "data": { "n": 1 } })).await;
    assert_eq!(accepted["webhooks"], json!([{ "name": "orders", "state": "Pending" }]), "{accepted}");
    send(&gateway, &namespace, &token, &json!({ "type": "user.created" })).await;
    let status = counted(&namespace, "delivered", |counts| counts.delivered == 1).await;
    let counts = status.deliveries.expect("counts");
    assert_eq!((counts.pending, counts.dead, counts.failed_attempts), (0, 0, 0));
    let posts: Vec<_> = receiver.received().into_iter().filter(|it| it.method == Method::POST).collect();
    assert_eq!(posts.len(), 1, "what it did not ask for is not sent");
    let (headers, body) = (&posts[0].headers, &posts[0].body);
    assert_eq!(headers["webhook-id"], accepted["id"].as_str().expect("an id"));
    // By a library that is not ours.
    let verifier = standardwebhooks::Webhook::new(KEY).expect("a key");
    verifier.verify(body, headers).expect("the signature fits");
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]), (&json!("order.paid"), &json!({ "n": 1 })));
}

#[tokio::test]
async fn what_a_failing_endpoint_does_not_take_is_retried_given_up_and_replayed() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(500).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("producer", &RIGHTS).await;
    webhook(&namespace, &receiver, json!({ "delivery": eager() })).await;
    let accepted = send(&gateway, &namespace, &token, &json!({ "type": "order.paid" })).await;
    let status = counted(&namespace, "given up", |counts| counts.dead == 1).await;
    assert_eq!(status.deliveries.as_ref().map(|it| (it.failed_attempts, it.pending)), Some((3, 0)));
    let failure = status.last_failure.expect("a failure");
    assert_eq!((failure.code, failure.event_id.as_deref()), (Some(500), accepted["id"].as_str()));
    expect(&namespace, "orders", &[("Degraded", "True", "DeadLettersPresent")]).await;

    let path = |rest: &str| format!("/v1/webhooks/{}/orders/{rest}", namespace.name);
    let attempts = gateway.get(&path("attempts"), &token).await;
    let attempts: Value = serde_json::from_slice(&attempts.body).expect("JSON");
    let numbers: Vec<_> =
        attempts["attempts"].as_array().expect("a list").iter().map(|it| &it["number"]).collect();
    assert_eq!(numbers, [3, 2, 1], "{attempts}");

    receiver.behave(|_| Some((200, String::new())));
    let replayed = gateway
        .call(Method::POST, &path("replay"), &token, &json!({ "eventId": accepted["id"] }).to_string())
        .await;
    assert_eq!((replayed.status.as_u16(), replayed.text()), (202, r#"{"replayed":1}"#.to_owned()));
    counted(&namespace, "replayed", |counts| (counts.delivered, counts.dead) == (1, 0)).await;
}

#[tokio::test]
async fn a_test_says_how_it_went_and_counts_nothing() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(200).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("producer", &RIGHTS).await;
    webhook(&namespace, &receiver, json!({})).await;
    let path = format!("/v1/webhooks/{}/orders/test", namespace.name);
    let report = gateway.call(Method::POST, &path, &token, "").await;
    let report: Value = serde_json::from_slice(&report.body).expect("JSON");
    assert_eq!((&report["outcome"], &report["status"]), (&json!("Delivered"), &json!(200)), "{report}");
    receiver.behave(|_| Some((503, "closed".to_owned())));
    let report = gateway.call(Method::POST, &path, &token, "").await;
    let report: Value = serde_json::from_slice(&report.body).expect("JSON");
    assert_eq!((&report["status"], &report["response"]), (&json!(503), &json!("closed")), "{report}");
}

#[tokio::test]
async fn callers_without_the_right_and_events_that_are_wrong_are_refused() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(200).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("producer", &[("create", "webhooks/trigger", &[])]).await;
    let reader = namespace.caller("reader", &[("get", "webhooks", &[])]).await;
    webhook(&namespace, &receiver, json!({})).await;
    let path = format!("/v1/events/{}", namespace.name);
    let event = |id: &str, n: u32| json!({ "type": "order.paid", "id": id, "data": n }).to_string();
    let call = async |token: &str, body: &str| gateway.call(Method::POST, &path, token, body).await.problem();
    assert_eq!(call(&reader, &event("1", 1)).await, (403, "forbidden".to_owned()));
    assert_eq!(call(&token, r#"{"type": "order paid"}"#).await, (400, "bad-request".to_owned()));
    let large = json!({ "type": "order.paid", "data": "x".repeat(256 * 1024) }).to_string();
    assert_eq!(call(&token, &large).await, (413, "too-large".to_owned()));
    let first =
        send(&gateway, &namespace, &token, &json!({ "type": "order.paid", "id": "1", "data": 1 })).await;
    let again =
        send(&gateway, &namespace, &token, &json!({ "type": "order.paid", "id": "1", "data": 1 })).await;
    assert_eq!((&again["id"], &again["state"]), (&first["id"], &json!("Duplicate")));
    assert_eq!(call(&token, &event("1", 2)).await, (409, "event-conflict".to_owned()));
    let path = format!("/v1/webhooks/{}/none/test", namespace.name);
    let missing = gateway.call(Method::POST, &path, &token, "").await;
    assert_eq!(missing.problem(), (404, "service-not-found".to_owned()));
}

/// D15: what was pending goes with the object, and one of the same name that comes later gets none of it.
#[tokio::test]
async fn a_webhook_that_is_made_anew_gets_nothing_of_the_one_before() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(503).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let token = namespace.caller("producer", &RIGHTS).await;
    webhook(&namespace, &receiver, json!({})).await;
    send(&gateway, &namespace, &token, &json!({ "type": "order.paid", "data": "old" })).await;
    let posts = |from: usize| {
        let received = receiver.received().split_off(from);
        received.into_iter().filter(|it| it.method == Method::POST).collect::<Vec<_>>()
    };
    let some = async |from: usize| if posts(from).is_empty() { Err("none yet") } else { Ok(()) };
    eventually(SOON, "an attempt", async || some(0).await).await;
    namespace.delete::<Webhook>("orders").await;
    let gone = async || match namespace.api::<Webhook>().get_opt("orders").await {
        Ok(None) => Ok(()),
        there => Err(format!("{:?}", there.map(|it| it.map(|it| it.metadata)))),
    };
    eventually(SOON, "the object is gone", gone).await;
    receiver.behave(|_| Some((200, String::new())));
    webhook(&namespace, &receiver, json!({})).await;
    let before = receiver.received().len();
    send(&gateway, &namespace, &token, &json!({ "type": "order.paid", "data": "new" })).await;
    eventually(SOON, "the new event", async || some(before).await).await;
    assert!(posts(before).iter().all(|it| String::from_utf8_lossy(&it.body).contains("new")));
}
