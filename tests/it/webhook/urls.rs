//! Where events may be sent: D1, D5 and W04 of the cases.

use authlink::api::v1alpha1::Webhook;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{
    ADDRESS, ALLOWED, KEY, Receiver, Tripwire, apply, expect, manifest, message, operate, ready, silent,
};
use crate::support::{Namespace, condition, secret};

#[tokio::test]
async fn nothing_in_the_machine_its_cloud_and_its_cluster_is_ever_connected_to() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let wire = Tripwire::start().await;
    let denied = [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "localhost.",
        "localhost",
        "LOCALHOST",
    ];
    for (index, host) in denied.iter().enumerate() {
        for mode in ["HeadRequest", "Challenge", "None"] {
            let name = format!("hook-{index}-{}", mode.to_lowercase());
            let url = format!("http://{host}:{}/", wire.port);
            apply(&namespace, manifest(&name, &url, json!({ "verification": { "mode": mode } }))).await;
        }
    }
    for index in 0..denied.len() {
        for mode in ["headrequest", "challenge", "none"] {
            let wanted = [("Ready", "False", "AddressDenied"), ("UrlValid", "False", "AddressDenied")];
            let hook = expect(&namespace, &format!("hook-{index}-{mode}"), &wanted).await;
            assert!(message(&hook, "UrlValid").contains("allowed"), "{hook:?}");
        }
    }
    let url = format!("https://kubernetes.default.svc:{}/", wire.port);
    apply(&namespace, manifest("api-server", &url, json!({}))).await;
    let wanted = namespace.follow("api-server", crate::support::SOON, "UrlValid", |hook: &Webhook| {
        condition(hook, "UrlValid").is_some_and(|it| it.status == "False")
    });
    wanted.await;
    assert_eq!((wire.connections(), operator.probes().0), (0, 0));
}

#[tokio::test]
async fn a_private_receiver_is_for_the_operator_to_allow_and_the_message_says_how() {
    let namespace = Namespace::create().await;
    let receiver = Receiver::answering(200).await;
    let operator = operate(&namespace, &[]).await;
    apply(&namespace, manifest("hook", &receiver.url(), json!({}))).await;
    let hook = expect(&namespace, "hook", &[("Ready", "False", "AddressDenied")]).await;
    let said = message(&hook, "UrlValid");
    for words in [ADDRESS, "RFC 1918", "egress.allowCIDRs"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(receiver.received().is_empty());
    drop(operator);
    let _operator = operate(&namespace, &ALLOWED).await;
    let hook = ready(&namespace, "hook").await;
    assert!(condition(&hook, "Stalled").is_none());
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_told_and_the_url_is_only_shown_by_its_host() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let token = "t0ken-of-the-chat";
    let urls = [
        ("url", format!("http://{ADDRESS}:1/services/{token}\n")),
        ("unknown", format!("https://nowhere.invalid/{token}")),
        ("user", format!("https://u:{token}@host/")),
        ("scheme", format!("ftp://host/{token}")),
        ("blank", format!("https://host/{token} ")),
    ];
    let urls: Vec<_> = urls.iter().map(|(key, url)| (*key, url.as_str())).collect();
    namespace.apply::<Secret>(secret("chat", "Opaque", &urls)).await;
    for (key, wanted) in [
        ("url", ("UrlValid", "True", "Valid")),
        ("unknown", ("UrlValid", "False", "DnsFailed")),
        ("user", ("UrlValid", "False", "SecretInvalidValue")),
        ("scheme", ("UrlValid", "False", "SecretInvalidValue")),
        ("blank", ("UrlValid", "False", "SecretInvalidValue")),
        ("none", ("SecretValid", "False", "SecretMissingKeys")),
    ] {
        let reference = json!({ "name": "chat", "key": key });
        apply(&namespace, silent(key, json!({ "url": null, "urlSecretRef": reference }))).await;
        let hook = expect(&namespace, key, &[wanted]).await;
        let shown = serde_json::to_string(&hook.status).unwrap();
        assert!(!shown.contains(token), "{shown}");
    }
    let hook = ready(&namespace, "url").await;
    assert_eq!(hook.status.unwrap().common.endpoints[0].address, ADDRESS);
    assert!(!operator.logs().contains(token));
}

#[tokio::test]
async fn what_a_schema_cannot_refuse_is_not_accepted() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let rows = [
        (
            "filter",
            json!({ "filter": "evnt.type == 'a'" }),
            "spec.filter: unknown variable evnt; available: event",
        ),
        ("syntax", json!({ "filter": "event.type ==" }), "spec.filter: invalid CEL expression: line 1"),
        (
            "template",
            json!({ "payload": { "template": "{'a': now()}" } }),
            "spec.payload.template: unknown function now",
        ),
    ];
    for (name, more, problem) in rows {
        apply(&namespace, silent(name, more)).await;
        let wanted = [
            ("Ready", "False", "InvalidSpec"),
            ("Accepted", "False", "InvalidSpec"),
            ("Stalled", "True", "InvalidSpec"),
        ];
        let hook = expect(&namespace, name, &wanted).await;
        assert!(message(&hook, "Accepted").contains(problem), "{}", message(&hook, "Accepted"));
    }
    apply(&namespace, silent("filter", json!({ "filter": "event.type == 'a'" }))).await;
    ready(&namespace, "filter").await;
    // The port is one that no browser and no schema knows to be wrong.
    apply(&namespace, manifest("port", "https://host:70000/", json!({}))).await;
    let hook = expect(&namespace, "port", &[("UrlValid", "False", "InvalidSpec")]).await;
    assert!(!serde_json::to_string(&hook.status).unwrap().contains(KEY));
}
