//! Whether the endpoint is there, and wants events: W06 of the cases, and R5.

use authlink::api::v1alpha1::Webhook;
use axum::http::Method;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{ALLOWED, Received, Receiver, apply, expect, manifest, message, operate, ready};
use crate::support::{Namespace, SOON, condition, eventually, free_port};

#[tokio::test]
async fn any_answer_to_head_proves_that_the_endpoint_is_there() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    for status in [200, 302, 401, 404, 405, 500, 501] {
        let receiver = Receiver::answering(status).await;
        let name = format!("hook-{status}");
        let headers = json!([{ "name": "X-Env", "value": "prod" }]);
        apply(&namespace, manifest(&name, &receiver.url(), json!({ "headers": headers }))).await;
        let wanted = [("Ready", "True", "Available"), ("EndpointReachable", "True", "Reachable")];
        let hook = expect(&namespace, &name, &wanted).await;
        let said = message(&hook, "EndpointReachable");
        assert_eq!(said.contains("HEAD with 50"), status >= 500, "{said}");
        let asked = receiver.received();
        let head = &asked[0];
        assert_eq!((asked.len(), &head.method, head.path.as_str()), (1, &Method::HEAD, "/h"));
        assert_eq!(head.headers["user-agent"], "Auth-Service-Webhook/1.0");
        assert_eq!(head.headers["x-env"], "prod");
    }
}

#[tokio::test]
async fn a_receiver_that_never_answers_head_is_told_of_with_the_way_out() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let receiver =
        Receiver::start(|asked| (asked.method == Method::POST).then(|| (200, String::new()))).await;
    apply(&namespace, manifest("hook", &receiver.url(), json!({}))).await;
    let wanted = [("Ready", "False", "Timeout"), ("EndpointReachable", "False", "Timeout")];
    let hook = expect(&namespace, "hook", &wanted).await;
    assert!(message(&hook, "EndpointReachable").contains("set spec.verification.mode to None"));
    apply(&namespace, manifest("hook", &receiver.url(), json!({ "verification": { "mode": "None" } }))).await;
    let wanted = [("Ready", "True", "Available"), ("EndpointReachable", "True", "NotProbed")];
    expect(&namespace, "hook", &wanted).await;
}

#[tokio::test]
async fn what_prevents_an_answer_is_told_and_after_the_first_answer_it_takes_several_failures() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let refused = format!("http://{}:{}/h", super::ADDRESS, free_port());
    apply(&namespace, manifest("refused", &refused, json!({}))).await;
    let wanted =
        [("Ready", "False", "ConnectionRefused"), ("EndpointReachable", "False", "ConnectionRefused")];
    expect(&namespace, "refused", &wanted).await;

    let receiver = Receiver::answering(405).await;
    let port = receiver.port;
    apply(&namespace, manifest("hook", &receiver.url(), json!({}))).await;
    let hook = ready(&namespace, "hook").await;
    let asked = hook.status.unwrap().verification.expect("asked");
    drop(receiver);
    expect(&namespace, "hook", &[("EndpointReachable", "False", "ConnectionRefused")]).await;
    // What it answered once is not asked again: a connection is enough.
    let wire = tokio::net::TcpListener::bind(("0.0.0.0", port)).await.expect("the port");
    let hook = ready(&namespace, "hook").await;
    assert_eq!(hook.status.unwrap().verification, Some(asked));
    drop((wire, operator));
}

fn challenge_of(asked: &Received) -> String {
    let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!(body["type"], "webhook.challenge");
    body["challenge"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_challenge_is_answered_by_its_text_in_the_usual_forms_and_by_nothing_else() {
    type Form = fn(&Received) -> (u16, String);
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let right: [(&str, Form); 4] = [
        ("json", |asked| (200, json!({ "challenge": challenge_of(asked) }).to_string())),
        ("text", |asked| (201, challenge_of(asked))),
        ("quoted", |asked| (200, json!(challenge_of(asked)).to_string())),
        ("line", |asked| (200, challenge_of(asked) + "\r\n")),
    ];
    let wrong: [(&str, Form); 4] = [
        ("echo", |asked| (200, String::from_utf8(asked.body.to_vec()).expect("text"))),
        ("success", |_| (200, "{\"status\":\"success\"}".to_owned())),
        ("unknown", |asked| (404, challenge_of(asked))),
        ("moved", |asked| (307, challenge_of(asked))),
    ];
    let start = async |name: &str, form: Form| {
        let receiver = Receiver::start(move |asked| Some(form(asked))).await;
        let mode = json!({ "verification": { "mode": "Challenge" } });
        apply(&namespace, manifest(name, &receiver.url(), mode)).await;
        receiver
    };
    for (name, form) in right {
        let receiver = start(name, form).await;
        let hook = ready(&namespace, name).await;
        assert_eq!(message(&hook, "EndpointReachable"), "the endpoint answered the challenge");
        let asked = &receiver.received()[0];
        assert_eq!(
            (&asked.method, &asked.headers["content-type"]),
            (&Method::POST, &"application/json".parse().unwrap())
        );
    }
    for (name, form) in wrong {
        let _receiver = start(name, form).await;
        let wanted =
            [("Ready", "False", "ChallengeFailed"), ("EndpointReachable", "False", "ChallengeFailed")];
        expect(&namespace, name, &wanted).await;
    }
}

#[tokio::test]
async fn an_endpoint_is_asked_once_for_each_url_whatever_else_happens() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let receiver = Receiver::start(|asked| Some((200, challenge_of(asked)))).await;
    let mode = json!({ "verification": { "mode": "Challenge" } });
    apply(&namespace, manifest("hook", &receiver.url(), mode.clone())).await;
    ready(&namespace, "hook").await;
    operator.more_probes(2).await;
    drop(operator);

    let operator = operate(&namespace, &ALLOWED).await;
    let now = Patch::Merge(json!({ "metadata": { "annotations": { "authlink.dev/reconcile": "now" } } }));
    namespace.api::<Webhook>().patch("hook", &PatchParams::default(), &now).await.expect("hook");
    operator.more_probes(2).await;
    assert_eq!(receiver.received().len(), 1);

    let elsewhere = format!("{}/other", receiver.url());
    apply(&namespace, manifest("hook", &elsewhere, mode)).await;
    let asked = eventually(SOON, "it is asked there", async || {
        let asked = receiver.received();
        if asked.len() > 1 { Ok(asked) } else { Err("not yet") }
    });
    assert_eq!(asked.await[1].path, "/h/other");
    ready(&namespace, "hook").await;
    // One that has forgotten its own texts is not asked for them.
    receiver.behave(|_| Some((500, String::new())));
    operator.more_probes(2).await;
    let hook = ready(&namespace, "hook").await;
    assert_eq!(receiver.received().len(), 2);
    assert!(condition(&hook, "Degraded").is_none());
}
