//! Syncs as an administrator sees them.

use authlink::api::v1alpha1::{LdapDirectory, ldap_directory::LdapDirectoryStatus};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Ldap, PEOPLE, apply, is, outcome, pair, spec, status};
use crate::support::{Namespace, SOON, eventually, gateway::Gateway};

async fn annotate(namespace: &Namespace, name: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { name: value } } });
    let params = PatchParams::default();
    namespace.api::<LdapDirectory>().patch("corp", &params, &Patch::Merge(&patch)).await.expect("a patch");
}

fn active(status: &LdapDirectoryStatus) -> u64 {
    status.sync.as_ref().and_then(|sync| sync.known).map_or(0, |known| known.active)
}

fn delete(ldap: &Ldap, users: std::ops::Range<u32>) {
    ldap.modify(&users.fold(String::new(), |ldif, user| {
        format!("{ldif}dn: uid=user{user:06},{PEOPLE}\nchangetype: delete\n\n")
    }));
}

#[tokio::test]
async fn users_are_synced_an_emptied_directory_disables_nobody_and_a_plan_is_approved_by_its_hash() {
    let ldap = Ldap::start(200);
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &[]).await;
    apply(&namespace, "corp", &spec(ldap.port(), "1s")).await;
    let synced = status(&namespace, "corp", "a sync", |it| is(it, "Synced").0 == "True").await;
    let sync = synced.sync.as_ref().expect("a sync");
    let last = sync.last_run.as_ref().expect("a run");
    assert_eq!((active(&synced), sync.known.unwrap().groups, sync.method.as_str()), (200, 2, "Syncrepl"));
    assert_eq!((last.failed, last.conflicts, last.unresolved_members), (0, 0, 0));
    assert_eq!(is(&synced, "Ready"), pair("True", "Available"));
    assert_eq!(is(&synced, "DeletionGuard"), pair("False", "WithinLimits"));

    // Everybody is gone at once.
    delete(&ldap, 0..200);
    let held = status(&namespace, "corp", "the guard", |it| is(it, "DeletionGuard").0 == "True").await;
    assert_eq!(is(&held, "Synced"), pair("False", "DeletionThresholdExceeded"));
    assert_eq!(is(&held, "Ready"), pair("True", "Available"), "those who are known can still be served");
    assert_eq!(active(&held), 200);
    let plan = held.plan.expect("a plan");
    assert_eq!(plan.summary.get("disable"), Some(&200));
    assert!(plan.samples.len() <= 10 && !plan.hash.is_empty());

    // It stays so, however often it is seen, and whatever else somebody approves.
    annotate(&namespace, "authlink.dev/approve-deletions", "0123456789abcdef").await;
    eventually(SOON, "an Event about the approval", async || {
        let events = namespace.events("corp").await;
        if events.iter().any(|it| it.reason == "ApprovalIgnored") {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await;
    let still = status(&namespace, "corp", "another sync", |it| {
        it.sync.as_ref().is_some_and(|sync| sync.handled_approval.as_deref() == Some("0123456789abcdef"))
    })
    .await;
    assert_eq!((active(&still), still.plan.map(|plan| plan.hash)), (200, Some(plan.hash.clone())));

    annotate(&namespace, "authlink.dev/approve-deletions", &plan.hash).await;
    let done =
        status(&namespace, "corp", "what was approved", |it| active(it) == 0 && it.sync.is_some()).await;
    assert_eq!(done.sync.unwrap().known.unwrap().disabled, 200);
    let done = status(&namespace, "corp", "no guard", |it| is(it, "DeletionGuard").0 == "False").await;
    assert!(done.plan.is_none());
    assert_no_secrets(&gateway.operator.logs());
}

fn assert_no_secrets(text: &str) {
    for secret in ["app-secret", "pw-7", "userPassword"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_plan_changes_nothing_until_it_is_approved_and_then_does_exactly_that() {
    let ldap = Ldap::start(50);
    let namespace = Namespace::create().await;
    let _gateway = Gateway::start(&namespace, &[]).await;
    let mut spec = spec(ldap.port(), "24h");
    spec["sync"]["mode"] = "Plan".into();
    apply(&namespace, "corp", &spec).await;
    let planned = status(&namespace, "corp", "a plan", |it| outcome(it) == "Planned").await;
    assert_eq!(is(&planned, "Synced"), pair("False", "PlanPending"));
    let plan = planned.plan.clone().expect("a plan");
    assert_eq!((plan.summary.get("create"), plan.summary.get("createGroup")), (Some(&50), Some(&1)));
    assert_eq!(active(&planned), 0);
    annotate(&namespace, "authlink.dev/approve-deletions", &plan.hash).await;
    let done = status(&namespace, "corp", "what was planned", |it| outcome(it) == "Succeeded").await;
    let last = done.sync.as_ref().unwrap().last_run.as_ref().unwrap();
    assert_eq!((last.created, active(&done)), (50, 50));
}

#[tokio::test]
async fn a_sync_is_asked_for_by_an_annotation_and_a_restart_of_the_operator_is_no_reason_for_one() {
    let ldap = Ldap::start(20);
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/authlink.db", folder.path().display());
    let flags = ["--store", &url];
    let namespace = Namespace::create().await;
    let gateway = Gateway::start(&namespace, &flags).await;
    apply(&namespace, "corp", &spec(ldap.port(), "24h")).await;
    let first = status(&namespace, "corp", "a sync", |it| outcome(it) == "Succeeded").await;
    let id =
        |status: &LdapDirectoryStatus| status.sync.as_ref().unwrap().last_run.as_ref().unwrap().id.clone();
    drop(gateway);
    let gateway = Gateway::start(&namespace, &flags).await;
    gateway.operator.more_probes(3).await;
    let restarted = status(&namespace, "corp", "the status", |_| true).await;
    assert_eq!(id(&restarted), id(&first));
    annotate(&namespace, "authlink.dev/sync-now", "1").await;
    let asked = status(&namespace, "corp", "another sync", |it| id(it) != id(&first)).await;
    let last = asked.sync.as_ref().unwrap().last_run.as_ref().unwrap();
    assert_eq!((last.mode.as_str(), last.unchanged, last.created), ("Full", 20, 0), "everything was read");
}

#[tokio::test]
async fn a_webhook_gets_what_a_sync_has_changed() {
    let ldap = Ldap::start(3);
    let namespace = Namespace::create().await;
    let receiver = crate::webhook::Receiver::answering(204).await;
    let gateway = Gateway::start(&namespace, &crate::webhook::ALLOWED).await;
    namespace
        .apply::<authlink::api::v1alpha1::Webhook>(json!({
            "apiVersion": "authlink.dev/v1alpha1", "kind": "Webhook", "metadata": { "name": "users" },
            "spec": {
                "url": receiver.url(), "events": ["user.*", "group.*"],
                "verification": { "allowHttp": true, "mode": "None" },
            },
        }))
        .await;
    apply(&namespace, "corp", &spec(ldap.port(), "1s")).await;
    let events = |kind: &'static str| {
        let all = receiver.received();
        let bodies = all.iter().filter_map(|it| serde_json::from_slice::<Value>(&it.body).ok());
        bodies.filter(|body| body["type"] == kind).collect::<Vec<_>>()
    };
    eventually(SOON, "three new users", async || match events("user.created").len() {
        3 => Ok(()),
        count => Err(count.to_string() + &gateway.operator.logs()),
    })
    .await;
    let created = events("user.created");
    assert!(created.iter().any(|event| event["data"]["username"] == "user000001"), "{created:?}");
    assert!(!format!("{created:?}").contains("pw-"));
    ldap.modify(&format!(
        "dn: uid=user000001,{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: new@example.org\n"
    ));
    eventually(SOON, "a changed user", async || {
        let updated = events("user.updated");
        if updated.iter().any(|event| event["data"]["email"] == "new@example.org") {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await;
    assert_eq!(events("user.created").len(), 3, "each is told once");
}
