//! D20: what is secret is shown nowhere, however a delivery ends.

use authlink::api::v1alpha1::Webhook;
use hyper::Method;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{ADDRESS, ALLOWED, Receiver, apply, manifest};
use crate::support::{Namespace, SOON, eventually, gateway::Gateway, secret};

const KEY: &str = "whsec_c2VjcmV0LW9mLXRoZS1zaWduYXR1cmUx";
const TOKEN: &str = "t0ken-of-the-query";
const HEADER: &str = "hunter2-of-the-header";

#[tokio::test]
async fn no_key_no_header_and_no_path_is_in_logs_events_status_metrics_or_attempts() {
    let (namespace, receiver) = (Namespace::create().await, Receiver::answering(200).await);
    let gateway = Gateway::start(&namespace, &ALLOWED).await;
    let rights: [(&str, &str, &[&str]); 2] =
        [("create", "webhooks/trigger", &[]), ("get", "webhooks/attempts", &[])];
    let token = namespace.caller("producer", &rights).await;
    let url = format!("http://{ADDRESS}:{}/services/{TOKEN}?token={TOKEN}", receiver.port);
    let values = [("key", KEY), ("header", HEADER), ("url", &url)];
    namespace.apply::<Secret>(secret("secrets", "Opaque", &values)).await;
    let from = |key: &str| json!({ "name": "secrets", "key": key });
    let more = json!({
        "url": null, "urlSecretRef": from("url"),
        "signing": { "secretRef": from("key") },
        "headers": [{ "name": "Authorization", "valueRef": from("header") }],
        "delivery": { "schedule": ["100ms"], "maxAttempts": 2, "timeout": "1s" },
    });
    apply(&namespace, manifest("orders", "", more)).await;
    super::ready(&namespace, "orders").await;
    // Each way in which a delivery fails that has words of the receiver or of a library in it.
    let behaviours: [Box<dyn Fn() + Send>; 3] = [
        Box::new(|| receiver.behave(|_| Some((400, "no".to_owned())))),
        Box::new(|| receiver.behave(|_| None)),
        Box::new(|| receiver.behave(|_| Some((503, String::new())))),
    ];
    for (expected, behave) in (1..).zip(behaviours) {
        behave();
        let path = format!("/v1/events/{}", namespace.name);
        let event = json!({ "type": "order.paid", "data": 1 }).to_string();
        assert_eq!(gateway.call(Method::POST, &path, &token, &event).await.status, 202);
        namespace
            .follow("orders", SOON, "given up", |hook: &Webhook| {
                let counts = hook.status.as_ref().and_then(|status| status.deliveries.as_ref());
                counts.is_some_and(|counts| counts.dead >= expected)
            })
            .await;
    }
    let attempts = eventually(SOON, "attempts", async || {
        let path = format!("/v1/webhooks/{}/orders/attempts", namespace.name);
        let attempts = gateway.get(&path, &token).await.text();
        if attempts.matches("\"number\"").count() >= 6 { Ok(attempts) } else { Err(attempts) }
    })
    .await;
    let hook = namespace.api::<Webhook>().get("orders").await.expect("the object");
    let events = format!(
        "{:?}",
        namespace.events("orders").await.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>()
    );
    let shown = [
        ("the log", gateway.operator.logs()),
        ("the metrics", gateway.operator.metrics()),
        ("the events", events),
        ("the status", serde_json::to_string(&hook.status).expect("JSON")),
        ("the attempts", attempts),
    ];
    for (place, text) in shown {
        assert!(!text.is_empty());
        for secret in [KEY, &KEY[6..], TOKEN, HEADER] {
            assert!(!text.contains(secret), "{place}");
        }
    }
    // The receiver has got all of them.
    let received = receiver.received();
    let post = received.iter().find(|it| it.method == Method::POST).expect("a delivery");
    assert_eq!(
        (post.path.as_str(), &post.headers["authorization"]),
        (format!("/services/{TOKEN}").as_str(), &HEADER.parse().expect("a value"))
    );
}
