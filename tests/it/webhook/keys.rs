//! Keys that are generated, and the Secret that holds them: W34 of the cases.

use authlink::api::v1alpha1::Webhook;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{ALLOWED, apply, expect, message, operate, ready, silent};
use crate::support::{Namespace, SOON, admission::Admission, condition, eventually, secret};

const NAME: &str = "hook-signing-keys";

/// The Secret's value under this key.
pub(super) fn value(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key)).unwrap_or_else(|| panic!("no {key}"));
    String::from_utf8(value.0.clone()).expect("text")
}

async fn keys(namespace: &Namespace, name: &str) -> Secret {
    eventually(SOON, name, async || {
        namespace.api::<Secret>().get_opt(name).await.expect("an answer").ok_or("no Secret")
    })
    .await
}

async fn gone<K>(namespace: &Namespace, name: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    eventually(SOON, "it is gone", async || match namespace.api::<K>().get_metadata_opt(name).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The same object as from a backup.
fn restored<K: ResourceExt + serde::Serialize>(object: &K, kind: &str) -> Value {
    let mut json = serde_json::to_value(object).unwrap();
    let annotations: serde_json::Map<_, _> =
        object.annotations().iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json["metadata"] = json!({ "name": object.name_any(), "annotations": annotations });
    json["apiVersion"] = json!(if kind == "Secret" { "v1" } else { "authlink.dev/v1alpha1" });
    json["kind"] = json!(kind);
    json.as_object_mut().unwrap().remove("status");
    json
}

#[tokio::test]
async fn a_key_is_generated_where_none_is_named_and_goes_with_its_owner() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let hook = apply(&namespace, silent("hook", json!({}))).await;
    let pair = json!({ "signing": { "type": "Ed25519" } });
    apply(&namespace, silent("pair", pair)).await;
    let [hook, _] = [hook, ready(&namespace, "pair").await];
    let reported = ready(&namespace, "hook").await.status.unwrap();
    let secret = keys(&namespace, NAME).await;
    let key = value(&secret, "secret");
    assert!(key.starts_with("whsec_") && key.len() == 6 + 44, "{} characters", key.len());
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (&owner.kind[..], &owner.uid, owner.controller),
        ("Webhook", &hook.uid().unwrap(), Some(true))
    );
    assert_eq!(reported.webhook_id, hook.uid());
    let signing = reported.signing.unwrap();
    assert_eq!((signing.secret_name.as_deref(), signing.keys.len()), (Some(NAME), 1));
    let pair = keys(&namespace, "pair-signing-keys").await;
    assert!(value(&pair, "secret").starts_with("whsk_") && value(&pair, "public").starts_with("whpk_"));
    // A restart makes no new key, and writes nothing.
    drop(operator);
    let writes = namespace.writes();
    let operator = operate(&namespace, &ALLOWED).await;
    let again = json!({ "metadata": { "annotations": { "authlink.dev/reconcile": "now" } } });
    namespace
        .api::<Webhook>()
        .patch("hook", &PatchParams::default(), &Patch::Merge(again))
        .await
        .expect("hook");
    eventually(SOON, "a reconcile", async || {
        let done = operator.metric("authlink_reconcile_total", "kind=\"Webhook\"");
        if done >= 3.0 { Ok(()) } else { Err(done) }
    })
    .await;
    assert_eq!((value(&keys(&namespace, NAME).await, "secret"), namespace.writes()), (key.clone(), writes));
    assert!(!operator.logs().contains(&key) && !operator.logs().contains("whsk_"));

    namespace.delete::<Webhook>("hook").await;
    gone::<Webhook>(&namespace, "hook").await;
}

#[tokio::test]
async fn a_restored_key_is_taken_over_whichever_of_both_is_restored_first() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    apply(&namespace, silent("hook", json!({}))).await;
    let mut hook = ready(&namespace, "hook").await;
    let mut secret = keys(&namespace, NAME).await;
    let key = value(&secret, "secret");
    // With the references to its former owner the garbage collector may delete it before it is taken over.
    for secret_first in [false, true] {
        namespace.delete::<Webhook>("hook").await;
        gone::<Webhook>(&namespace, "hook").await;
        gone::<Secret>(&namespace, NAME).await;
        let backup = restored(&secret, "Secret");
        if secret_first {
            namespace.apply::<Secret>(backup.clone()).await;
        }
        let created = apply(&namespace, restored(&hook, "Webhook")).await;
        if !secret_first {
            // The operator may have made a key by now: the backup is applied over it.
            namespace.apply::<Secret>(backup).await;
        }
        let uid = created.uid().unwrap();
        secret = eventually(SOON, "the owner", async || {
            let secret = keys(&namespace, NAME).await;
            let owners: Vec<_> = secret.owner_references().iter().map(|it| it.uid.clone()).collect();
            if owners == [uid.clone()] { Ok(secret) } else { Err(format!("{owners:?}")) }
        })
        .await;
        assert_eq!(value(&secret, "secret"), key);
        hook = ready(&namespace, "hook").await;
        assert!(condition(&hook, "Degraded").is_none());
    }
    // And what an orphaning deletion leaves is found again.
    namespace.api::<Webhook>().delete("hook", &DeleteParams::orphan()).await.expect("hook");
    gone::<Webhook>(&namespace, "hook").await;
    apply(&namespace, silent("hook", json!({}))).await;
    ready(&namespace, "hook").await;
    assert_eq!(value(&keys(&namespace, NAME).await, "secret"), key);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone_and_told_of() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let foreign = namespace.apply::<Secret>(secret(NAME, "Opaque", &[("secret", "theirs")])).await;
    apply(&namespace, silent("hook", json!({}))).await;
    let wanted = [("Ready", "False", "SecretConflict"), ("SecretValid", "False", "SecretConflict")];
    let hook = expect(&namespace, "hook", &wanted).await;
    assert!(message(&hook, "SecretValid").contains(NAME));
    let after = keys(&namespace, NAME).await;
    assert_eq!(
        (after.data, after.metadata.resource_version),
        (foreign.data, foreign.metadata.resource_version)
    );

    // One that belongs to another webhook.
    let other = apply(&namespace, silent("other", json!({}))).await;
    let other = json!([other.owner_ref(&())]);
    let mut of_other = secret("more-signing-keys", "Opaque", &[("secret", "theirs")]);
    of_other["metadata"]["ownerReferences"] = other;
    namespace.apply::<Secret>(of_other).await;
    apply(&namespace, silent("more", json!({}))).await;
    expect(&namespace, "more", &wanted).await;

    // With a key of its own it signs, and a change of that has no overlap.
    namespace.apply::<Secret>(secret("key", "Opaque", &[("secret", super::KEY)])).await;
    apply(&namespace, silent("hook", json!({ "signing": { "secretRef": { "name": "key" } } }))).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "SecretConflict")];
    let hook = expect(&namespace, "hook", &wanted).await;
    assert_eq!(hook.status.unwrap().signing.unwrap().secret_name, None);
    namespace.delete::<Secret>(NAME).await;
    let hook =
        namespace.follow("hook", SOON, "its own", |hook: &Webhook| condition(hook, "Degraded").is_none());
    assert_eq!(hook.await.status.unwrap().signing.unwrap().secret_name.as_deref(), Some(NAME));
}

#[tokio::test]
async fn a_secret_that_is_refused_is_told_of() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let _policy = Admission::policy(&namespace, &["secrets"], "Forbidden").await;
    apply(&namespace, silent("hook", json!({}))).await;
    let hook = expect(&namespace, "hook", &[("SecretValid", "False", "SecretRefused")]).await;
    assert!(message(&hook, "SecretValid").contains("allow the operator to write Secrets"));
}

#[tokio::test]
async fn a_deleted_secret_is_made_anew_and_the_loss_of_its_key_is_told() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    apply(&namespace, silent("hook", json!({}))).await;
    ready(&namespace, "hook").await;
    let key = value(&keys(&namespace, NAME).await, "secret");
    namespace.delete::<Secret>(NAME).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "SigningKeyLost")];
    let hook = expect(&namespace, "hook", &wanted).await;
    assert!(message(&hook, "Degraded").contains("configure the receiver with the new key in the Secret"));
    let made = value(&keys(&namespace, NAME).await, "secret");
    assert!(made.starts_with("whsec_") && made != key);
    let told = namespace.events_with("hook", "SigningKeyLost").await;
    assert!(told.iter().any(|event| event.kind == "Warning" && event.reason == "SigningKeyLost"), "{told:?}");
    let hook = ready(&namespace, "hook").await;
    assert_eq!(hook.status.unwrap().signing.unwrap().keys.len(), 1);
}

#[tokio::test]
async fn the_longest_name_has_a_secret_too() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let name = "h".repeat(253);
    apply(&namespace, silent(&name, json!({}))).await;
    let signing = ready(&namespace, &name).await.status.unwrap().signing.unwrap();
    let secret = signing.secret_name.unwrap();
    assert!(secret.len() <= 253 && secret.ends_with("-signing-keys"), "{secret}");
    keys(&namespace, &secret).await;
}
