//! The connections that the server sees.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use sqlx::PgConnection;

use crate::support::{
    Namespace, Operator, SOON, Spec, System, condition, conditions, eventually, password_secret, postgresql,
};

struct Account {
    admin: PgConnection,
    role: String,
}

impl Account {
    /// A user of one's own, whose connections can be told from those of other tests.
    async fn create(namespace: &Namespace) -> (Self, Spec) {
        let mut admin = postgresql::admin().await;
        let role = postgresql::new_role(&mut admin, "own-password").await;
        namespace.apply::<Secret>(password_secret("own", &role, "own-password")).await;
        let spec =
            System::Postgresql.spec().probed_often().with(&json!({ "credentialsRef": { "name": "own" } }));
        (Self { admin, role }, spec)
    }

    async fn connections(&mut self, what: &str, holds: impl Fn(i64) -> bool) {
        eventually(SOON, what, async || {
            let open = postgresql::connections(&mut self.admin, &self.role).await;
            if holds(open) { Ok(()) } else { Err(format!("{open} connections")) }
        })
        .await;
    }
}

#[tokio::test]
async fn two_hundred_objects_on_one_server_share_one_pool() {
    const OBJECTS: usize = 200;
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (mut account, spec) = Account::create(&namespace).await;
    let spec = spec.with(&json!({ "pool": { "max": 3 } }));
    let names: Vec<_> = (0..OBJECTS).map(|number| format!("db-{number}")).collect();
    for some in names.chunks(20) {
        join_all(some.iter().map(|name| namespace.database(name, &spec))).await;
    }
    eventually(SOON * 2, "all are ready", async || {
        let all = namespace
            .api::<authlink::api::v1alpha1::Database>()
            .list(&kube::api::ListParams::default())
            .await;
        let all = all.expect("Databases").items;
        let ready =
            all.iter().filter(|it| condition(*it, "Ready").is_some_and(|ready| ready.status == "True"));
        match ready.count() {
            OBJECTS => Ok(()),
            ready => Err(format!("{ready} of {OBJECTS}")),
        }
    })
    .await;
    operator.more_probes(3).await;
    let open = postgresql::connections(&mut account.admin, &account.role).await;
    assert!((1..=3).contains(&open), "{open} connections");
}

#[tokio::test]
async fn a_suspended_object_holds_no_connection_and_keeps_its_conditions() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (mut account, spec) = Account::create(&namespace).await;
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
    account.connections("connected", |open| open > 0).await;

    namespace.database("db", &spec.clone().with(&json!({ "suspend": true }))).await;
    let suspended = [("Suspended", "True", "Suspended"), ("Ready", "True", "Available")];
    let database = namespace.expect("db", &suspended).await;
    assert_eq!(conditions(&database)["Connected"], ("True", "LoginSucceeded"));
    account.connections("let go", |open| open == 0).await;

    namespace.database("db", &spec).await;
    let database = namespace.ready("db").await;
    assert!(condition(&database, "Suspended").is_none());
    account.connections("connected again", |open| open > 0).await;
}

#[tokio::test]
async fn a_pool_opens_its_minimum_and_closes_when_the_object_is_deleted() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (mut account, spec) = Account::create(&namespace).await;
    let pool = json!({ "pool": { "min": 4, "max": 5, "monitorInterval": "5s" } });
    namespace.database("db", &spec.with(&pool)).await;
    namespace.ready("db").await;
    // A probe that comes while they are opened may open one for itself.
    account.connections("the minimum", |open| (4..=5).contains(&open)).await;
    namespace.delete::<authlink::api::v1alpha1::Database>("db").await;
    account.connections("let go", |open| open == 0).await;
}

#[tokio::test]
async fn an_operator_that_is_stopped_leaves_no_connection_behind() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (mut account, spec) = Account::create(&namespace).await;
    namespace.database("db", &spec).await;
    namespace.ready("db").await;
    account.connections("connected", |open| open > 0).await;
    drop(operator);
    account.connections("let go", |open| open == 0).await;
}
