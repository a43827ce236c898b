//! A gateway that is a process of its own, under the account that the chart gives it.

use std::{collections::BTreeSet, fs};

use authlink::api::v1alpha1::ExternalApi;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::external_api::{ALLOWED, Backend, api};
use crate::support::{GATEWAY_ACCOUNT, Namespace, Operator, gateway::Gateway, variable};

/// `verb group/resource code` of each kind of request that the account made, by the API server's audit log.
fn requests(account: &str) -> BTreeSet<String> {
    let log = fs::read_to_string(variable("AUTHLINK_TEST_AUDIT")).expect("the audit log");
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = events.filter(|event| event["user"]["username"] == account);
    own.map(|event| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let target = &event["objectRef"];
        let (group, resource) = (text(&target["apiGroup"]), text(&target["resource"]));
        format!("{} {group}/{resource} {}", text(&event["verb"]), event["responseStatus"]["code"])
    })
    .collect()
}

#[tokio::test]
async fn it_serves_with_the_right_to_read_and_to_ask_who_calls() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let gateway = Gateway::start_alone(&namespace, &ALLOWED).await;
    let backend = Backend::start().await;
    namespace.apply::<ExternalApi>(api("billing", &[backend.url()], json!({}))).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    let token = namespace.caller("shop", &[("create", "externalapis/invoke", &[])]).await;
    let path = format!("/v1/apis/{}/billing/ok", namespace.name);
    assert_eq!(gateway.get(&path, &token).await.status, StatusCode::OK);

    let made = requests(GATEWAY_ACCOUNT);
    assert!(made.contains("create authentication.k8s.io/tokenreviews 201"), "{made:?}");
    assert!(made.iter().all(|request| !request.ends_with(" 403")), "{made:?}");
    for beyond in ["/services ", "/endpointslices ", "/leases ", "/events "] {
        assert!(made.iter().all(|request| !request.contains(beyond)), "{beyond}: {made:?}");
    }
    // What only an operator can know is not said a second time, and that it leads nothing is no alarm.
    let page = gateway.operator.metrics();
    assert!(page.contains("authlink_gateway_request_duration_seconds_count"), "{page}");
    for beyond in ["authlink_leader", "authlink_integration_condition{"] {
        assert!(!page.contains(beyond), "{page}");
    }
}
