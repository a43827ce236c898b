//! Instances that leave: by wish, by deletion, and by having other addresses.

use std::time::{Duration, Instant};

use authlink::api::v1alpha1::ServiceRegistration;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{
    Spec, down, draining, expect, instance::Instance, ready, register, serving, until, until_deleted,
};
use crate::{
    discovery::{ADDRESS, until_gone},
    support::{Namespace, Operator, SOON, eventually},
};

#[tokio::test]
async fn an_instance_is_drained_by_wish_and_comes_back_by_wish() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (one, two) = (Instance::start().await, Instance::start().await);
    let spec = Spec::new("1", one.port);
    register(&namespace, "one", &spec).await;
    register(&namespace, "two", &Spec::new("2", two.port)).await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    register(&namespace, "one", &spec.clone().with("drain", json!(true))).await;
    until(&namespace, &[draining(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    let drained = ready(&namespace, "one").await;
    assert!(drained.status.expect("a status").draining_since.is_some());
    register(&namespace, "one", &spec).await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
}

#[tokio::test]
async fn a_deleted_instance_is_drained_and_then_gone_and_the_service_goes_with_the_last() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let (mut one, two) = (Instance::start().await, Instance::start().await);
    register(&namespace, "one", &Spec::new("1", one.port).with("drainSeconds", json!(6))).await;
    register(&namespace, "two", &Spec::new("2", two.port)).await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    let asked = Instant::now();
    namespace.delete::<ServiceRegistration>("one").await;
    until(&namespace, &[draining(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    // It is still probed: clients that have no other endpoint want to know.
    one.kill().await;
    let (address, port, ..) = down(ADDRESS, one.port);
    until(&namespace, &[(address, port, false, false, true), serving(ADDRESS, two.port)]).await;
    until_deleted(&namespace, "one").await;
    // The API server keeps whole seconds.
    assert!(asked.elapsed() >= Duration::from_secs(5), "{:?}", asked.elapsed());
    until(&namespace, &[serving(ADDRESS, two.port)]).await;
    assert_eq!(namespace.events("one").await, [], "that it stays for a while is no failure");

    namespace.delete::<ServiceRegistration>("two").await;
    until(&namespace, &[draining(ADDRESS, two.port)]).await;
    until_deleted(&namespace, "two").await;
    until_gone(&namespace, "billing").await;
}

/// How many passes have put off the end of a deleted object.
fn put_off(operator: &Operator) -> f64 {
    operator.metric("authlink_reconcile_total", "outcome=\"cleaning\"")
}

#[tokio::test]
async fn an_instance_that_was_drained_by_wish_need_not_be_drained_again() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (one, two) = (Instance::start().await, Instance::start().await);
    // The other one has all the time in the world.
    register(&namespace, "two", &Spec::new("2", two.port).with("drainSeconds", json!(3600))).await;
    let spec = Spec::new("1", one.port).with("drain", json!(true));
    register(&namespace, "one", &spec).await;
    until(&namespace, &[draining(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    let moved = spec.with("addresses", json!(["10.99.0.77"]));
    register(&namespace, "one", &moved).await;
    let gone = ("10.99.0.77".to_owned(), i32::from(one.port), false, false, true);
    until(&namespace, &[gone, serving(ADDRESS, two.port)]).await;

    let drained = namespace.api::<ServiceRegistration>().get("one").await.expect("one");
    let since = drained.status.and_then(|status| status.draining_since).expect("a time").0;
    eventually(SOON, "its two seconds are over", async || {
        let over = jiff::Timestamp::now().duration_since(since).as_secs();
        if over >= 2 { Ok(()) } else { Err(over) }
    })
    .await;
    namespace.delete::<ServiceRegistration>("one").await;
    until_deleted(&namespace, "one").await;
    until(&namespace, &[serving(ADDRESS, two.port)]).await;
    assert!(put_off(&operator) < 1.0);
}

#[tokio::test]
async fn an_instance_without_a_time_to_drain_goes_at_once_whatever_the_others_have() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (one, two) = (Instance::start().await, Instance::start().await);
    register(&namespace, "two", &Spec::new("2", two.port).with("drainSeconds", json!(3600))).await;
    register(&namespace, "one", &Spec::new("1", one.port).with("drainSeconds", json!(0))).await;
    until(&namespace, &[serving(ADDRESS, one.port), serving(ADDRESS, two.port)]).await;
    namespace.delete::<ServiceRegistration>("one").await;
    until_deleted(&namespace, "one").await;
    until(&namespace, &[serving(ADDRESS, two.port)]).await;
    assert!(put_off(&operator) < 1.0);
}

#[tokio::test]
async fn an_address_that_an_instance_has_no_more_is_drained() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let one = Spec::unprobed("1", "10.99.0.7").with("drainSeconds", json!(4));
    register(&namespace, "one", &one).await;
    register(&namespace, "two", &Spec::unprobed("2", "10.99.0.8")).await;
    until(&namespace, &[serving("10.99.0.7", 8080), serving("10.99.0.8", 8080)]).await;
    register(&namespace, "one", &one.with("addresses", json!(["10.99.0.9", "fd00::9"]))).await;
    let after = [serving("10.99.0.8", 8080), serving("10.99.0.9", 8080), serving("fd00::9", 8080)];
    until(&namespace, &[&[draining("10.99.0.7", 8080)], &after[..]].concat()).await;
    until(&namespace, &after).await;
}

#[tokio::test]
async fn an_instance_that_is_torn_away_leaves_no_endpoint_behind() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    register(&namespace, "one", &Spec::unprobed("1", "10.99.0.7")).await;
    register(&namespace, "two", &Spec::unprobed("2", "10.99.0.8")).await;
    until(&namespace, &[serving("10.99.0.7", 8080), serving("10.99.0.8", 8080)]).await;
    let registrations = namespace.api::<ServiceRegistration>();
    registrations.delete("one", &DeleteParams::default()).await.expect("one");
    let without = json!({ "metadata": { "finalizers": [] } });
    // Gone already, if the machine was so slow that its time is over.
    let _ = registrations.patch("one", &PatchParams::default(), &Patch::Merge(&without)).await;
    until_deleted(&namespace, "one").await;
    until(&namespace, &[serving("10.99.0.8", 8080)]).await;
    expect(&namespace, "two", &[("Ready", "True", "Available")]).await;
}
