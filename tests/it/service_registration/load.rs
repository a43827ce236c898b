//! The load that instances tell of.

use authlink::api::v1alpha1::ServiceRegistration;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Spec, instance::Instance, ready, register};
use crate::support::{Namespace, Operator, SOON};

async fn until_load(namespace: &Namespace, name: &str, load: Option<&str>) {
    namespace
        .follow::<ServiceRegistration>(name, SOON, &format!("load {load:?}"), |registration| {
            registration.status.as_ref().is_some_and(|status| status.load.as_deref() == load)
        })
        .await;
}

#[tokio::test]
async fn a_load_is_read_from_a_header_or_from_json_and_is_worth_no_write() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let (one, two) = (Instance::start().await, Instance::start().await);
    one.says(200, Some("0.425"), "");
    two.says(200, None, r#"{ "system": { "load": 17 } }"#);
    let by_header = json!({ "fromHeader": "X-Load" });
    register(&namespace, "one", &Spec::new("1", one.port).asked_by_http().with("load", by_header)).await;
    let by_pointer = json!({ "jsonPointer": "/system/load" });
    register(&namespace, "two", &Spec::new("2", two.port).asked_by_http().with("load", by_pointer)).await;
    ready(&namespace, "one").await;
    ready(&namespace, "two").await;
    until_load(&namespace, "one", Some("0.43")).await;
    until_load(&namespace, "two", Some("17")).await;

    operator.more_probes(2).await; // the Events follow the statuses
    let before = namespace.writes();
    one.says(200, Some("0.9"), "");
    two.says(200, None, "no JSON");
    operator.more_probes(6).await;
    assert_eq!(namespace.writes(), before, "it moves all the time");
    // It rides along with something else.
    for (name, load) in [("one", Some("0.9")), ("two", None)] {
        let drained = json!({ "spec": { "drain": true } });
        let registrations = namespace.api::<ServiceRegistration>();
        registrations.patch(name, &PatchParams::default(), &Patch::Merge(&drained)).await.expect(name);
        until_load(&namespace, name, load).await;
    }
}
