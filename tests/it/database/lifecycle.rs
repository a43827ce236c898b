//! Before the first pass, while nothing happens, over a restart, and at the end.

use std::collections::BTreeMap;

use authlink::api::v1alpha1::Database;
use k8s_openapi::api::core::v1;
use kube::{Api, Resource, api::DeleteParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::support::{Namespace, Operator, SOON, Server, System, condition, conditions, eventually};

async fn gone<K>(api: Api<K>, name: &str)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    eventually(SOON, "gone", async || match api.get_opt(name).await.expect("an answer") {
        None => Ok(()),
        Some(still) => Err(format!("{:?}", still.meta())),
    })
    .await;
}

fn databases<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(namespace: &Namespace) -> Api<K> {
    namespace.api()
}

#[tokio::test]
async fn an_object_is_pending_before_its_first_reconcile() {
    let namespace = Namespace::create().await;
    let database = namespace.database("db", &System::Redis.spec()).await;
    let pending = ["Accepted", "Connected", "Healthy", "PoolHealthy", "Ready", "ResolvedRefs"];
    let pending: BTreeMap<_, _> = pending.map(|kind| (kind, ("Unknown", "Pending"))).into();
    assert_eq!(conditions(&database), pending);
}

#[tokio::test]
async fn idle_objects_cause_no_writes_nor_does_a_restart_of_the_operator() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let names: Vec<_> = (0..16).map(|number| (format!("db-{number}"), System::ALL[number % 4])).collect();
    for (name, system) in &names {
        let bound = json!({ "binding": { "enabled": true } });
        namespace.database(name, &system.spec().with(&bound)).await;
    }
    for (name, _) in &names {
        namespace
            .until(name, SOON, "ready and bound", |database| {
                condition(database, "Ready").is_some_and(|ready| ready.status == "True")
                    && database.status.as_ref().is_some_and(|status| status.common.binding.is_some())
            })
            .await;
    }
    // The Secrets that were made ask for one more look at their objects.
    operator.more_probes(4).await;
    let (writes, events) = (namespace.writes(), namespace.events("db-0").await);
    operator.more_probes(6).await;
    assert_eq!(namespace.writes(), writes, "at rest");

    drop(operator);
    let operator = Operator::start(&namespace, &[]).await;
    operator.more_probes(6).await;
    assert_eq!(namespace.status_writes(), writes["patch databases/status"], "after a restart");
    assert_eq!(namespace.events("db-0").await, events);
    assert!(
        !operator.logs().to_lowercase().contains("forbidden"),
        "the chart gives every right that is needed"
    );
}

#[tokio::test]
async fn an_object_whose_server_is_gone_is_deleted_at_once() {
    let namespace = Namespace::create().await;
    let server = Server::start(System::Redis);
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &server.spec().probed_often()).await;
    namespace.ready("db").await;
    server.kill();
    namespace.expect("db", &[("Ready", "False", "ConnectionRefused")]).await;
    namespace.delete::<Database>("db").await;
    gone(databases::<Database>(&namespace), "db").await;
}

#[tokio::test]
async fn a_namespace_with_objects_in_any_state_is_deleted() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let bound = json!({ "binding": { "enabled": true } });
    namespace.database("good", &System::Redis.spec().with(&bound)).await;
    namespace.database("refused", &System::Redis.spec().with(&json!({ "port": 1 }))).await;
    namespace
        .database("unresolved", &System::Redis.spec().with(&json!({ "credentialsRef": { "name": "x" } })))
        .await;
    namespace.database("paused", &System::Redis.spec().with(&json!({ "suspend": true }))).await;
    namespace.ready("good").await;
    namespace.expect("unresolved", &[("Ready", "False", "SecretNotFound")]).await;
    let all = Api::<v1::Namespace>::all(namespace.client.clone());
    all.delete(&namespace.name, &DeleteParams::default()).await.expect("accepted");
    gone(all, &namespace.name).await;
}

#[tokio::test]
async fn an_object_of_the_same_name_starts_anew() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &System::Redis.spec()).await;
    let first = namespace.ready("db").await;
    namespace.delete::<Database>("db").await;
    gone(databases::<Database>(&namespace), "db").await;
    namespace.database("db", &System::Postgresql.spec()).await;
    let second = namespace.ready("db").await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    assert!(condition(&second, "Degraded").is_none(), "another object's server was not replaced");
}

#[tokio::test]
async fn a_changed_spec_is_reconciled_at_once() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    namespace.database("db", &System::Redis.spec().with(&json!({ "port": 1 }))).await;
    namespace.expect("db", &[("Ready", "False", "ConnectionRefused")]).await;
    namespace.database("db", &System::Redis.spec()).await;
    let database = namespace.ready("db").await;
    let status = database.status.expect("a status");
    assert_eq!(status.common.observed_generation, Some(2));
    assert_eq!(status.common.last_error.expect("kept").reason, "ConnectionRefused");
    let events: Vec<_> = namespace
        .events_with("db", "Available")
        .await
        .into_iter()
        .map(|event| (event.kind, event.reason))
        .collect();
    let wanted = [("Warning", "ConnectionRefused"), ("Normal", "Available")];
    assert_eq!(events, wanted.map(|(kind, reason)| (kind.to_owned(), reason.to_owned())));
}

#[tokio::test]
async fn the_numbers_in_a_status_are_at_most_as_old_as_configured() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &["--status-refresh", "2s"]).await;
    namespace.database("db", &System::Postgresql.spec().probed_often()).await;
    let probed = |database: &Database| {
        let health = database.status.as_ref().and_then(|status| status.common.health.as_ref());
        health.and_then(|health| health.last_probe_time.as_ref()).map(|time| time.0)
    };
    let first = probed(&namespace.ready("db").await).expect("a time");
    // Nothing else changes, and the next pass for its own sake is minutes away.
    let later = |database: &Database| probed(database).is_some_and(|last| last > first);
    namespace.until("db", SOON, "newer numbers", later).await;
}
