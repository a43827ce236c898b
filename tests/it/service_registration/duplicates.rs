//! Two objects that register the same instance.

use authlink::api::v1alpha1::ServiceRegistration;
use futures::future::join_all;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    Spec, expect, instance::Instance, ready, register, register_later, serving, until, until_deleted,
};
use crate::{
    discovery::ADDRESS,
    support::{Namespace, Operator, SOON, condition},
};

const DUPLICATE: [(&str, &str, &str); 3] =
    [("Accepted", "False", "Duplicate"), ("Ready", "False", "Duplicate"), ("Stalled", "True", "Duplicate")];

#[tokio::test]
async fn the_older_one_has_the_instance_and_the_younger_one_names_it_until_it_goes() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (old, young) = (Instance::start().await, Instance::start().await);
    register(&namespace, "old", &Spec::new("1", old.port)).await;
    ready(&namespace, "old").await;
    register_later(&namespace, "young", &Spec::new("1", young.port).asked_by_http()).await;
    let refused = expect(&namespace, "young", &DUPLICATE).await;
    let message = &condition(&refused, "Accepted").expect("Accepted").message;
    let named = "the instance 1 of billing was registered before, by the ServiceRegistration old";
    assert!(message.starts_with(named), "{message}");
    until(&namespace, &[serving(ADDRESS, old.port)]).await;
    assert_eq!(young.asked(), 0, "it is not probed");
    // The other one is nobody's duplicate.
    ready(&namespace, "old").await;

    // It takes over at once, beside the other one, which is drained.
    namespace.delete::<ServiceRegistration>("old").await;
    let taken = ready(&namespace, "young").await;
    assert!(condition(&taken, "Stalled").is_none());
    until(&namespace, &[serving(ADDRESS, young.port)]).await;
    until_deleted(&namespace, "old").await;
}

#[tokio::test]
async fn a_duplicate_goes_without_being_drained_and_changes_nothing() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let old = Instance::start().await;
    register(&namespace, "old", &Spec::new("1", old.port)).await;
    ready(&namespace, "old").await;
    let patient = Spec::new("1", old.port).with("drainSeconds", json!(3600));
    register_later(&namespace, "young", &patient).await;
    expect(&namespace, "young", &DUPLICATE).await;
    let before = super::discovery_writes(&namespace);
    namespace.delete::<ServiceRegistration>("young").await;
    until_deleted(&namespace, "young").await;
    until(&namespace, &[serving(ADDRESS, old.port)]).await;
    assert_eq!(super::discovery_writes(&namespace), before);
}

#[tokio::test]
async fn of_two_that_race_one_wins_and_the_other_one_gets_it_when_that_goes() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Instance::start().await;
    // In both orders of their names, and as fast as they can be made.
    let races = (0..4).map(async |race| {
        let names = [format!("a-{race}"), format!("b-{race}")];
        let spec = Spec::new(&race.to_string(), one.port)
            .with("serviceName", json!(format!("race-{race}")))
            .with("drainSeconds", json!(0));
        let made = join_all(names.iter().map(|name| register(&namespace, name, &spec))).await;
        let age =
            |object: &ServiceRegistration| (object.creation_timestamp().map(|time| time.0), object.uid());
        let winner = made.iter().min_by_key(|object| age(object)).expect("two").name_any();
        let loser = names.iter().find(|name| **name != winner).expect("another one").clone();
        ready(&namespace, &winner).await;
        expect(&namespace, &loser, &DUPLICATE).await;
        namespace.delete::<ServiceRegistration>(&winner).await;
        ready(&namespace, &loser).await;
    });
    join_all(races).await;
}

#[tokio::test]
async fn an_owner_that_is_torn_away_leaves_the_instance_to_the_next() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (old, young) = (Instance::start().await, Instance::start().await);
    register(&namespace, "old", &Spec::new("1", old.port).with("suspend", json!(true))).await;
    expect(&namespace, "old", &[("Suspended", "True", "Suspended")]).await;
    register_later(&namespace, "young", &Spec::new("1", young.port)).await;
    expect(&namespace, "young", &DUPLICATE).await;
    // Without its finalizer, as somebody does who is out of patience.
    let registrations = namespace.api::<ServiceRegistration>();
    let without = json!({ "metadata": { "finalizers": [] } });
    registrations.patch("old", &PatchParams::default(), &Patch::Merge(&without)).await.expect("old");
    registrations.delete("old", &DeleteParams::default()).await.expect("old");
    ready(&namespace, "young").await;
    until(&namespace, &[serving(ADDRESS, young.port)]).await;
}

#[tokio::test]
async fn an_object_that_is_made_anew_under_its_name_is_another_one() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Instance::start().await;
    let spec = Spec::new("1", one.port).with("drainSeconds", json!(0));
    register(&namespace, "a", &spec).await;
    let first = ready(&namespace, "a").await;
    namespace.delete::<ServiceRegistration>("a").await;
    until_deleted(&namespace, "a").await;
    register(&namespace, "b", &spec).await;
    ready(&namespace, "b").await;
    register_later(&namespace, "a", &spec).await;
    let again = namespace
        .follow::<ServiceRegistration>("a", SOON, "Duplicate", |a| {
            condition(a, "Accepted").is_some_and(|accepted| accepted.reason == "Duplicate")
        })
        .await;
    assert_ne!(first.uid(), again.uid());
}
