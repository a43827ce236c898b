//! The rules of a `Webhook`.

use authlink::api::{Kind, Managed, shared::Reference, v1alpha1::Webhook};
use serde_json::{Value, json};

use super::{Refused, manifest};

/// A spec that is right, with some fields set otherwise.
fn spec(changes: Value) -> Value {
    let mut spec = json!({ "url": "https://hooks.example.com/auth", "events": ["user.*"] });
    let Value::Object(changes) = changes else { panic!("fields") };
    spec.as_object_mut().unwrap().extend(changes);
    spec
}

fn url(url: &str) -> Value {
    spec(json!({ "url": url, "verification": { "allowHttp": true } }))
}

/// A rule that both say in the same words.
fn both(spec: Value, message: &'static str) -> Refused {
    (spec, message, message)
}

pub(super) fn refused() -> Vec<Refused> {
    [urls(), events(), headers(), signing(), delivery(), rest()].concat()
}

fn urls() -> Vec<Refused> {
    let wrong = |text: &str| both(url(text), "url must be an http or https URL with a host");
    let ascii = |text: &str| both(url(text), "url must be ASCII without spaces");
    let label = format!("https://{}.example.com/", "a".repeat(64));
    vec![
        both(json!({ "events": ["*"] }), "exactly one of url and urlSecretRef must be set"),
        both(
            spec(json!({ "urlSecretRef": { "name": "chat", "key": "url" } })),
            "exactly one of url and urlSecretRef must be set",
        ),
        both(
            url("https://user:p%40ss@host/"),
            "url must not have a user or password: set the header Authorization",
        ),
        both(url("https://user@host/"), "url must not have a user or password"),
        both(url("https://host/a#b"), "url must not have a fragment"),
        wrong("file:///etc/passwd"),
        wrong("gopher://host/"),
        wrong("unix:///run/docker.sock"),
        wrong("https:///path"),
        wrong("https://[::1"),
        wrong("https://host:0/"),
        wrong("https://host:00"),
        ascii("https://b\u{fc}cher.example/"),
        ascii("https://\u{430}pple.example/"),
        ascii("https://host/a b"),
        both(url(&label), "url must have a host name whose labels have at most 63 characters"),
        both(
            spec(json!({ "url": "http://host/" })),
            "url must be https, unless verification.allowHttp is true",
        ),
        (url(&format!("https://host/{}", "a".repeat(2048))), "may not be more than 2048", "spec.url: "),
        both(
            spec(json!({
                "url": "http://host/", "verification": { "allowHttp": true }, "tls": { "caRef": { "name": "ca" } },
            })),
            "tls has no effect on http",
        ),
    ]
}

fn events() -> Vec<Refused> {
    let events = |events: &[&str]| spec(json!({ "events": events }));
    let wrong = |text: &str| (events(&[text]), "should match", "spec.events[0]: value does not match");
    vec![
        (
            json!({ "url": "https://host/" }),
            "spec.events: Required value",
            "\"events\" is a required property",
        ),
        (events(&[]), "should have at least 1 items", "spec.events: "),
        (events(&["a", "a"]), "spec.events[1]: Duplicate value", "spec.events[1]: is there twice"),
        wrong("user."),
        wrong("us*"),
        wrong("user created"),
        wrong("**"),
        (spec(json!({ "filter": "a".repeat(2049) })), "may not be more than 2048", "spec.filter: "),
    ]
}

fn headers() -> Vec<Refused> {
    let header = |name: &str| spec(json!({ "headers": [{ "name": name, "value": "x" }] }));
    let ours = |name: &str| both(header(name), "headers.name must not be a header that authlink sets itself");
    let mut refused: Vec<_> = [
        "webhook-ID",
        "X-Webhook-Signature",
        "x-webhook-id",
        "X-Hub-Signature-256",
        "X-GitHub-Event",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "ce-id",
        "Proxy-Authorization",
        "Host",
        "TE",
    ]
    .into_iter()
    .map(ours)
    .collect();
    let twice = json!([{ "name": "X-A", "value": "1" }, { "name": "x-a", "value": "2" }]);
    let neither = json!([{ "name": "X-A" }]);
    let two = json!([{ "name": "X-A", "value": "1", "valueRef": { "name": "s", "key": "k" } }]);
    let many: Vec<_> = (0..33).map(|number| json!({ "name": format!("X-{number}"), "value": "x" })).collect();
    refused.extend([
        both(header("User-Agent"), "headers.name must not be User-Agent: set userAgent"),
        both(spec(json!({ "headers": twice })), "headers must not have the same name twice"),
        both(
            spec(json!({ "headers": neither })),
            "exactly one of headers.value and headers.valueRef must be set",
        ),
        both(
            spec(json!({ "headers": two })),
            "exactly one of headers.value and headers.valueRef must be set",
        ),
        (header("X A"), "should match", "spec.headers[0].name: value does not match"),
        (
            spec(json!({ "headers": [{ "name": "X-A", "value": "a\r\nX-B: b" }] })),
            "should match",
            "spec.headers[0].value: value does not match",
        ),
        (spec(json!({ "headers": many })), "must have at most 32 items", "spec.headers: "),
        (spec(json!({ "userAgent": "a\nb" })), "should match", "spec.userAgent: value does not match"),
    ]);
    refused
}

fn signing() -> Vec<Refused> {
    let signing = |signing: Value| spec(json!({ "signing": signing }));
    let overlap = |text: &str| signing(json!({ "rotation": { "overlap": text } }));
    let message =
        "must be a duration from 0s to 168h, such as 30s or 120h (days in hours: 120h instead of 5d)";
    vec![
        (signing(json!({ "schemes": [] })), "should have at least 1 items", "spec.signing.schemes: "),
        (
            signing(json!({ "schemes": ["Stripe"] })),
            "Unsupported value: \"Stripe\"",
            "spec.signing.schemes[0]: must be one of",
        ),
        (
            signing(json!({ "schemes": ["GitHub", "GitHub"] })),
            "spec.signing.schemes[1]: Duplicate value",
            "spec.signing.schemes[1]: is there twice",
        ),
        both(
            signing(json!({ "type": "Ed25519", "schemes": ["StandardWebhooks", "HexHmac"] })),
            "signing.type Ed25519 needs the scheme StandardWebhooks only",
        ),
        both(overlap("7d"), message),
        both(overlap("169h"), message),
        both(overlap("soon"), message),
    ]
}

fn delivery() -> Vec<Refused> {
    let delivery = |delivery: Value| spec(json!({ "delivery": delivery }));
    let duration = |field: &str, text: &str, message| both(delivery(json!({ field: text })), message);
    let timeout =
        "must be a duration from 1s to 60s, such as 30s or 120h (days in hours: 120h instead of 5d)";
    let disable = "must be a duration from 1s to 8760h, such as 30s or 120h (days in hours: 120h instead of 5d), or Never";
    vec![
        duration("timeout", "0s", timeout),
        duration("timeout", "61s", timeout),
        duration("maxAge", "31d", "must be a duration from 1s to 720h"),
        duration("maxAge", "721h", "must be a duration from 1s to 720h"),
        duration("disableAfter", "5d", disable),
        duration("disableAfter", "never", disable),
        duration("maxRetryAfter", "25h", "must be a duration from 1s to 24h"),
        both(delivery(json!({ "schedule": ["0s"] })), "must be a duration from 100ms to 168h"),
        (
            delivery(json!({ "schedule": vec!["1s"; 17] })),
            "must have at most 16 items",
            "spec.delivery.schedule: ",
        ),
        both(
            delivery(json!({ "schedule": ["1s"], "backoff": {} })),
            "at most one of delivery.schedule and delivery.backoff can be set",
        ),
        both(
            delivery(json!({ "backoff": { "initial": "2h" } })),
            "delivery.backoff.initial must be at most delivery.backoff.max",
        ),
        (
            delivery(json!({ "maxAttempts": 0 })),
            "greater than or equal to 1",
            "spec.delivery.maxAttempts: value is less than the minimum of 1",
        ),
        (
            delivery(json!({ "concurrency": 257 })),
            "less than or equal to 256",
            "spec.delivery.concurrency: value is greater than the maximum of 256",
        ),
        (
            delivery(json!({ "rateLimit": {} })),
            "spec.delivery.rateLimit.requests: Required value",
            "spec.delivery.rateLimit: \"requests\" is a required property",
        ),
        (
            delivery(json!({ "ordering": "Strict" })),
            "Unsupported value",
            "spec.delivery.ordering: must be one of",
        ),
    ]
}

fn rest() -> Vec<Refused> {
    vec![
        (
            spec(json!({ "verification": { "mode": "Ping" } })),
            "Unsupported value",
            "spec.verification.mode: must be one of",
        ),
        (
            spec(json!({ "verification": { "allowPrivateAddresses": true } })),
            "unknown field \"spec.verification.allowPrivateAddresses\"",
            "spec.verification.allowPrivateAddresses: there is no such field",
        ),
        (
            spec(json!({ "deadLetterRef": { "kind": "MessageQueue", "name": "dlq" } })),
            "Unsupported value: \"MessageQueue\"",
            "spec.deadLetterRef.kind: must be one of",
        ),
        both(
            spec(json!({ "payload": { "form": "CloudEventsBinary", "template": "{}" } })),
            "payload.template replaces the body: it needs payload.form Standard",
        ),
    ]
}

pub(super) fn good() -> Vec<Value> {
    let value = json!({ "name": "s", "key": "k" });
    let durations = |overlap: &str| {
        spec(json!({
            "signing": { "rotation": { "overlap": overlap, "singleSignature": "Old" } },
            "delivery": {
                "maxAttempts": 8, "schedule": ["5s", "5m", "30m", "2h", "5h", "10h", "168h"], "timeout": "60s",
                "concurrency": 8, "disableAfter": "120h", "maxAge": "75h", "maxRetryAfter": "24h",
            },
        }))
    };
    vec![
        spec(json!({})),
        durations("168h"),
        durations("0s"),
        spec(
            json!({ "delivery": { "disableAfter": "Never", "backoff": { "initial": "100ms", "factor": 3 } } }),
        ),
        json!({ "urlSecretRef": value, "events": ["*", "user.*.added", "com.example/v1:user_created-2"] }),
        url("http://hooks.shop.svc.cluster.local.:8080/a?b=c&d=@e"),
        url("http://[2001:db8::1]:81/a%20b"),
        url("http://127.1/"),
        url("https://xn--bcher-kva.example:65535"),
        spec(json!({
            "filter": "event.data.tenant == \"acme\"",
            "headers": [{ "name": "Authorization", "valueRef": value }, { "name": "X-Env", "value": "" }],
            "userAgent": "Shop/2.0 (hooks)",
            "signing": { "schemes": ["GitHub", "HexHmac"], "secretRef": { "name": "hook-key" } },
            "verification": { "mode": "Challenge" },
            "deadLetterRef": { "name": "dead" },
            "payload": { "template": "{\"text\": event.type}" },
            "tls": { "caRef": { "name": "ca" }, "serverName": "a.example", "clientCertRef": { "name": "c" } },
        })),
        spec(json!({ "signing": { "type": "Ed25519" }, "payload": { "form": "CloudEventsBinary" } })),
    ]
}

#[test]
fn everything_that_a_webhook_names_is_a_reference_and_so_is_the_secret_of_its_keys() {
    let value = |name: &str| json!({ "name": name, "key": "k" });
    let hook = manifest(
        "Webhook",
        &json!({
            "urlSecretRef": value("url"), "events": ["*"],
            "headers": [{ "name": "a", "valueRef": value("header") }, { "name": "b", "value": "c" }],
            "signing": { "secretRef": { "name": "key" } },
            "tls": { "caRef": { "name": "ca" }, "clientCertRef": { "name": "pair" } },
            "deadLetterRef": { "name": "dead" },
        }),
    );
    let mut hook: Webhook = serde_json::from_value(hook).unwrap();
    let secrets = ["url", "header", "key", "pair", "orders-signing-keys"];
    let secrets = secrets.map(|name| Reference::Secret(name.to_owned()));
    let others =
        [Reference::ConfigMap("ca".to_owned()), Reference::Resource(Kind::Webhook, "dead".to_owned())];
    assert_eq!(hook.references(), [&secrets[..], &others].concat());
    let mut names = std::collections::BTreeSet::new();
    for last in ["a", "b"] {
        hook.metadata.name = Some("x.".repeat(126) + last);
        let name = hook.signing_secret_name();
        assert!(name.len() == 253 && !name.contains("..") && !name.contains(".-"), "{name}");
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "long names that begin alike");
}
