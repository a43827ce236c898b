//! Other webhooks and certificates that a webhook names, and its end.

use authlink::api::v1alpha1::Webhook;
use kube::ResourceExt;
use serde_json::json;

use super::{ALLOWED, Receiver, apply, expect, manifest, message, operate, ready, silent};
use crate::support::{Namespace, SOON, condition, eventually};

#[tokio::test]
async fn a_dead_letter_target_must_exist_and_lead_nowhere_back() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let to = |name: &str| json!({ "deadLetterRef": { "name": name } });
    apply(&namespace, silent("hook", to("dead"))).await;
    let wanted = [("Ready", "False", "RefNotFound"), ("ResolvedRefs", "False", "RefNotFound")];
    let hook = expect(&namespace, "hook", &wanted).await;
    assert!(message(&hook, "ResolvedRefs").contains("the Webhook dead does not exist"));
    apply(&namespace, silent("dead", json!({}))).await;
    ready(&namespace, "hook").await;

    apply(&namespace, silent("dead", to("hook"))).await;
    let hook = expect(&namespace, "dead", &[("Accepted", "False", "InvalidSpec")]).await;
    let said = message(&hook, "Accepted");
    assert!(said.contains("Webhook dead -> Webhook hook -> Webhook dead"), "{said}");
    apply(&namespace, silent("self", to("self"))).await;
    expect(&namespace, "self", &[("Accepted", "False", "InvalidSpec")]).await;

    // What is given up stays here while the target is away: that is no fault of the webhook's own.
    apply(&namespace, manifest("dead", "http://127.0.0.1/", json!({}))).await;
    expect(&namespace, "dead", &[("Ready", "False", "AddressDenied")]).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "RefNotReady")];
    expect(&namespace, "hook", &wanted).await;
}

#[tokio::test]
async fn a_missing_authority_is_told_and_a_receiver_that_cannot_be_trusted_is_not_reachable() {
    let namespace = Namespace::create().await;
    let _operator = operate(&namespace, &ALLOWED).await;
    let receiver = Receiver::answering(200).await;
    let https = receiver.url().replace("http:", "https:");
    let ca = |name: &str| json!({ "tls": { "caRef": { "name": name } } });
    apply(&namespace, manifest("no-ca", &https, ca("none"))).await;
    expect(&namespace, "no-ca", &[("Ready", "False", "RefNotFound"), ("UrlValid", "True", "Valid")]).await;
    apply(&namespace, manifest("no-tls", &https, ca("ca"))).await;
    expect(&namespace, "no-tls", &[("EndpointReachable", "False", "TlsFailed")]).await;
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_suspended_webhook_is_left_alone_and_a_deleted_one_goes() {
    let namespace = Namespace::create().await;
    let operator = operate(&namespace, &ALLOWED).await;
    let receiver = Receiver::answering(200).await;
    apply(&namespace, manifest("hook", &receiver.url(), json!({}))).await;
    let hook = ready(&namespace, "hook").await;
    assert_eq!(hook.finalizers(), ["authlink.dev/cleanup"]);
    apply(&namespace, manifest("hook", &receiver.url(), json!({ "suspend": true }))).await;
    let wanted = [("Ready", "True", "Available"), ("Suspended", "True", "Suspended")];
    expect(&namespace, "hook", &wanted).await;
    let probes = operator.probes();
    apply(&namespace, manifest("hook", &receiver.url(), json!({ "suspend": false }))).await;
    let resumed =
        namespace.follow("hook", SOON, "resumed", |hook: &Webhook| condition(hook, "Suspended").is_none());
    resumed.await;
    operator.more_probes(1).await;
    assert!(operator.probes() > probes);
    assert_eq!(receiver.received().len(), 1, "it was asked before");
    namespace.delete::<Webhook>("hook").await;
    eventually(SOON, "it is gone", async || {
        match namespace.api::<Webhook>().get_opt("hook").await.expect("an answer") {
            None => Ok(()),
            Some(hook) => Err(format!("{:?}", hook.finalizers())),
        }
    })
    .await;
}
