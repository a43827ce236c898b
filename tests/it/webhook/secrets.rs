//! What Secrets hold, as tools write them: W02, W03 and W14 of the cases, and D10.

use authlink::api::v1alpha1::Webhook;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};

use super::{ALLOWED, KEY, apply, expect, message, operate, ready, silent};
use crate::support::{Namespace, condition, conditions, secret};

fn bytes(name: &str, value: &[u8]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
        "data": { "secret": ByteString(value.to_vec()) },
    })
}

fn signed(name: &str, schemes: &[&str], value: &[u8]) -> (Value, Value) {
    let signing = json!({ "schemes": schemes, "secretRef": { "name": name } });
    (silent(name, json!({ "signing": signing })), bytes(name, value))
}

#[tokio::test]
async fn a_value_that_can_be_read_in_one_way_alone_signs_and_any_other_is_refused_without_it() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let standard = ["StandardWebhooks"];
    let right = [
        ("plain", KEY.to_owned()),
        ("line", format!("{KEY}\n")),
        ("dos-line", format!("{KEY}\r\n")),
        ("hex", format!("whsec_{}", "ab".repeat(32))),
    ];
    let wrong: [(&str, Vec<u8>, &str); 11] = [
        ("blanks", format!(" {KEY} ").into_bytes(), "blanks"),
        ("version", format!("v1,{KEY}").into_bytes(), "begins with v1"),
        ("no-prefix", KEY.replace("whsec_", "").into_bytes(), "does not begin with whsec_"),
        ("unpadded", format!("whsec_{}", "A".repeat(43)).into_bytes(), "not base64"),
        ("url-safe", format!("whsec_{}", "_-".repeat(16)).into_bytes(), "not base64"),
        ("raw", vec![0xfe; 32], "encode it once more with base64"),
        ("junk", b"whsec_!!!!".to_vec(), "not base64"),
        ("prefix", b"whsec_".to_vec(), "is empty"),
        ("empty", Vec::new(), "is empty"),
        ("private", format!("whsk_{}", "A".repeat(43) + "=").into_bytes(), "private key"),
        ("short", b"whsec_c2hvcnQ=".to_vec(), "the scheme needs 24 to 64"),
    ];
    for (name, value) in &right {
        let (hook, secret) = signed(name, &standard, value.as_bytes());
        namespace.apply::<Secret>(secret).await;
        apply(&namespace, hook).await;
        ready(&namespace, name).await;
    }
    for (name, value, problem) in &wrong {
        let (hook, secret) = signed(name, &standard, value);
        namespace.apply::<Secret>(secret).await;
        apply(&namespace, hook).await;
        let wanted = [
            ("Ready", "False", "SecretInvalidValue"),
            ("ResolvedRefs", "True", "Resolved"),
            ("SecretValid", "False", "SecretInvalidValue"),
            ("Stalled", "True", "SecretInvalidValue"),
        ];
        let hook = expect(&namespace, name, &wanted).await;
        let said = message(&hook, "SecretValid");
        assert!(said.contains(problem) && said.contains(name) && said.contains("the key secret"), "{said}");
        assert!(hook.status.unwrap().signing.is_none_or(|signing| signing.keys.is_empty()));
    }
    let logs = operator.logs();
    for secret in ["YXV0aGxpbmst", "ababab", "!!!!", "c2hvcnQ="] {
        assert!(!logs.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_free_text_signs_for_github_and_hex_hmac_and_a_scheme_without_a_key_is_named() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let text = b"it is 18 bytes ok.";
    let all = ["StandardWebhooks", "HexHmac", "GitHub"];
    let rows: [(&str, &[&str], &[u8]); 3] =
        [("github", &["GitHub"], text), ("both", &all[1..], text), ("standard", &all, KEY.as_bytes())];
    for (name, schemes, value) in rows {
        let (hook, secret) = signed(name, schemes, value);
        namespace.apply::<Secret>(secret).await;
        apply(&namespace, hook).await;
        assert!(condition(&ready(&namespace, name).await, "Degraded").is_none(), "{name}");
    }
    let (hook, secret) = signed("mixed", &all, text);
    namespace.apply::<Secret>(secret).await;
    apply(&namespace, hook).await;
    let hook = expect(
        &namespace,
        "mixed",
        &[("Ready", "True", "Available"), ("Degraded", "True", "SchemeUnsigned")],
    )
    .await;
    let said = message(&hook, "Degraded");
    assert!(
        said.contains("the headers of the scheme StandardWebhooks are omitted")
            && !said.contains("18 bytes ok"),
        "{said}"
    );
    for (name, schemes, value) in [("weak", &all[1..2], "hunter2"), ("weaker", &all[..], "key")] {
        let (hook, secret) = signed(name, schemes, value.as_bytes());
        namespace.apply::<Secret>(secret).await;
        apply(&namespace, hook).await;
        let hook = expect(&namespace, name, &[("SecretValid", "False", "SecretInvalidValue")]).await;
        assert!(!message(&hook, "SecretValid").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_and_everything_resumes_alone_once_it_is_there() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let (hook, key) = signed("hook", &["StandardWebhooks"], KEY.as_bytes());
    apply(&namespace, hook).await;
    let missing = [
        ("Ready", "False", "SecretNotFound"),
        ("ResolvedRefs", "False", "SecretNotFound"),
        ("SecretValid", "False", "SecretNotFound"),
    ];
    let hook = expect(&namespace, "hook", &missing).await;
    assert!(message(&hook, "SecretValid").contains("the Secret hook does not exist"));
    namespace.apply::<Secret>(key).await;
    let hook = ready(&namespace, "hook").await;
    assert!(condition(&hook, "Stalled").is_none());
    namespace.delete::<Secret>("hook").await;
    expect(&namespace, "hook", &missing).await;
    namespace.apply::<Secret>(secret("hook", "Opaque", &[("other", "x")])).await;
    expect(&namespace, "hook", &[("SecretValid", "False", "SecretMissingKeys")]).await;
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_named_by_its_secret_and_its_key() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let values = [
        ("plain", "Bearer hunter2"),
        ("line", "Bearer hunter2\n"),
        ("dos-line", "Bearer hunter2\r\n"),
        ("inside", "Bearer hunter2\nX-Admin: yes"),
        ("two-lines", "Bearer hunter2\n\n"),
        ("not-ascii", "Bearer hünter2"),
    ];
    namespace.apply::<Secret>(secret("token", "Opaque", &values)).await;
    for key in ["plain", "line", "dos-line", "inside", "two-lines", "not-ascii", "none"] {
        let reference = json!({ "name": "token", "key": key });
        apply(
            &namespace,
            silent(key, json!({ "headers": [{ "name": "Authorization", "valueRef": reference }] })),
        )
        .await;
    }
    for key in ["plain", "line", "dos-line"] {
        ready(&namespace, key).await;
    }
    for key in ["inside", "two-lines", "not-ascii"] {
        let wanted =
            [("Ready", "False", "SecretInvalidValue"), ("SecretValid", "False", "SecretInvalidValue")];
        let hook: Webhook = expect(&namespace, key, &wanted).await;
        let said = message(&hook, "SecretValid");
        for words in ["the Secret token", key, "Authorization"] {
            assert!(said.contains(words), "{said}");
        }
        assert!(!format!("{:?}", conditions(&hook)).contains("nter2"));
    }
    expect(&namespace, "none", &[("SecretValid", "False", "SecretMissingKeys")]).await;
    assert!(!operator.logs().contains("nter2"));
}
