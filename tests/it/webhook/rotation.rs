//! Keys that change while others still sign.

use authlink::api::v1alpha1::{Webhook, webhook::SigningKeyStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{ALLOWED, KEY, OTHER_KEY, apply, keys::value, operate, ready, silent};
use crate::support::{Namespace, SOON, secret};

const THIRD_KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAz";

fn in_force(hook: &Webhook) -> Vec<SigningKeyStatus> {
    hook.status.as_ref().and_then(|status| status.signing.clone()).unwrap_or_default().keys
}

async fn until(namespace: &Namespace, count: usize) -> Vec<SigningKeyStatus> {
    let what = format!("{count} keys");
    in_force(&namespace.follow("hook", SOON, &what, |hook: &Webhook| in_force(hook).len() == count).await)
}

async fn kept(namespace: &Namespace) -> (String, Value) {
    let secret = namespace.api::<Secret>().get("hook-signing-keys").await.expect("the Secret");
    (value(&secret, "secret"), serde_json::from_str(&value(&secret, "previous.json")).unwrap())
}

fn named(overlap: &str) -> Value {
    silent(
        "hook",
        json!({ "signing": { "secretRef": { "name": "key" }, "rotation": { "overlap": overlap } } }),
    )
}

async fn give(namespace: &Namespace, key: &str) {
    namespace.apply::<Secret>(secret("key", "Opaque", &[("secret", key)])).await;
}

#[tokio::test]
async fn neither_a_restart_nor_a_second_rotation_within_the_overlap_loses_a_key() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    give(&namespace, KEY).await;
    apply(&namespace, named("24h")).await;
    let first = until(&namespace, 1).await;
    give(&namespace, OTHER_KEY).await;
    let second = until(&namespace, 2).await;
    assert_eq!((&second[1].fingerprint, second[0].expires.is_none()), (&first[0].fingerprint, true));
    let told = namespace.events_with("hook", "CredentialRotated").await;
    assert!(told.iter().any(|event| event.kind == "Normal"), "{told:?}");
    drop(operator);
    // While nobody looks.
    give(&namespace, THIRD_KEY).await;
    let operator = operate(&namespace, &ALLOWED).await;
    let third = until(&namespace, 3).await;
    assert_eq!(third[2], second[1], "its end does not move");
    assert_eq!(third[1].fingerprint, second[0].fingerprint);
    let (current, previous) = kept(&namespace).await;
    assert_eq!((current.as_str(), previous.as_array().unwrap().len()), (THIRD_KEY, 2));
    // A key that comes back is not kept twice.
    give(&namespace, KEY).await;
    let back = namespace.follow("hook", SOON, "the first key", |hook: &Webhook| {
        in_force(hook).first().is_some_and(|key| key.fingerprint == first[0].fingerprint)
    });
    assert_eq!(in_force(&back.await).len(), 3);
    let shown = serde_json::to_string(&ready(&namespace, "hook").await.status).unwrap();
    for key in [KEY, OTHER_KEY, THIRD_KEY] {
        assert!(!shown.contains(key) && !operator.logs().contains(key));
    }
}

#[tokio::test]
async fn an_old_key_ends_with_its_overlap_and_at_once_when_that_is_shortened() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    give(&namespace, KEY).await;
    apply(&namespace, named("3s")).await;
    until(&namespace, 1).await;
    give(&namespace, OTHER_KEY).await;
    let two = until(&namespace, 2).await;
    let one = until(&namespace, 1).await;
    assert_eq!(one[0], two[0]);
    assert!(jiff::Timestamp::now() >= two[1].expires.as_ref().unwrap().0);
    assert_eq!(kept(&namespace).await, (OTHER_KEY.to_owned(), json!([])));

    apply(&namespace, named("24h")).await;
    give(&namespace, KEY).await;
    until(&namespace, 2).await;
    apply(&namespace, named("0s")).await;
    until(&namespace, 1).await;
    assert_eq!(kept(&namespace).await.0, KEY);
}

#[tokio::test]
async fn a_generated_key_is_replaced_when_the_annotation_changes_and_by_one_that_the_spec_names() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    apply(&namespace, silent("hook", json!({}))).await;
    until(&namespace, 1).await;
    let (first, _) = kept(&namespace).await;
    let rotate = async |word: &str| {
        let patch = json!({ "metadata": { "annotations": { "authlink.dev/rotate-key": word } } });
        let params = PatchParams::default();
        namespace.api::<Webhook>().patch("hook", &params, &Patch::Merge(patch)).await.expect("hook");
    };
    rotate("once").await;
    until(&namespace, 2).await;
    let (second, _) = kept(&namespace).await;
    assert!(second.starts_with("whsec_") && second != first);
    drop(operator);
    // Asked and answered: neither a restart nor the same word again makes another.
    let _operator = operate(&namespace, &ALLOWED).await;
    rotate("once").await;
    rotate("twice").await;
    until(&namespace, 3).await;
    give(&namespace, KEY).await;
    apply(&namespace, named("24h")).await;
    let four = until(&namespace, 4).await;
    assert_eq!((kept(&namespace).await.0.as_str(), four.len()), (KEY, 4));
    // Named no more, it goes on signing.
    apply(&namespace, silent("hook", json!({}))).await;
    ready(&namespace, "hook").await;
    assert_eq!(kept(&namespace).await.0, KEY);
}
