//! `authlink check` of a webhook: the same observation, without a cluster.

use serde_json::{Value, json};

use super::{KEY, manifest};
use crate::commands::{Said, address, authlink, certificate};

fn check(documents: &[Value]) -> Said {
    let documents: Vec<_> = documents.iter().map(Value::to_string).collect();
    authlink(&["check", "-f", "-", "-o", "json"], &documents.join("\n---\n"))
}

fn found(said: &Said) -> Value {
    let found: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    found[0].clone()
}

fn reason<'a>(found: &'a Value, kind: &str) -> &'a str {
    let conditions = found["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|it| it["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    condition["reason"].as_str().unwrap()
}

#[test]
fn a_receiver_that_answers_is_ready_with_http_and_with_https() {
    let (host, port) = address("NGINX");
    let plain = check(&[manifest("hook", &format!("http://{host}:{port}/h"), json!({}))]);
    assert_eq!((plain.code, &found(&plain)["ready"]), (Some(0), &json!("True")), "{plain:?}");
    assert_eq!(reason(&found(&plain), "EndpointReachable"), "Reachable");
    let url = format!("https://{host}:{}/h", port + 1);
    let untrusted = check(&[manifest("hook", &url, json!({}))]);
    assert_eq!((untrusted.code, reason(&found(&untrusted), "EndpointReachable")), (Some(1), "TlsFailed"));
    let ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca" }, "data": { "ca.crt": certificate("ca.pem") },
    });
    let trusted = check(&[ca, manifest("hook", &url, json!({ "tls": { "caRef": { "name": "ca" } } }))]);
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
}

#[test]
fn a_pipeline_finds_bad_filters_bad_keys_and_missing_targets_before_the_cluster_does() {
    let hook = |more: Value| manifest("hook", "https://hooks.invalid/", more);
    let silent = |mut more: Value| {
        more["verification"] = json!({ "mode": "None" });
        more
    };
    let secret = |value: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key" }, "stringData": { "secret": value } });
    let signing = json!({ "signing": { "secretRef": { "name": "key" } } });
    let rows = [
        (vec![hook(json!({ "filter": "event.typ == 'a'" }))], "Accepted", "InvalidSpec"),
        (vec![hook(json!({ "url": "https://u:hunter2@host/" }))], "Accepted", "InvalidSpec"),
        (vec![hook(silent(json!({})))], "UrlValid", "DnsFailed"),
        (vec![hook(silent(signing.clone()))], "SecretValid", "SecretNotFound"),
        (vec![hook(silent(signing.clone())), secret("hunter2")], "SecretValid", "SecretInvalidValue"),
        (vec![hook(silent(json!({ "deadLetterRef": { "name": "dead" } })))], "ResolvedRefs", "RefNotFound"),
    ];
    for (documents, kind, expected) in rows {
        let said = check(&documents);
        assert_eq!((said.code, reason(&found(&said), kind)), (Some(1), expected), "{said:?}");
        assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
    }
    let (host, port) = address("NGINX");
    let url = json!({ "url": format!("http://{host}:{port}/"), "verification": { "allowHttp": true } });
    let mut good = hook(signing);
    good["spec"].as_object_mut().unwrap().extend(url.as_object().unwrap().clone());
    let said = check(&[secret(KEY), good]);
    assert_eq!(said.code, Some(0), "{said:?}");
}
