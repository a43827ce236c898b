//! The health checks for Argo CD, run by a real Lua over statuses that `authlink check` and the operator write.

use std::fmt::Write;

use authlink::api::v1alpha1::{ExternalApi, ServiceRegistration};
use serde_json::{Value, json};

use crate::{
    commands::root,
    http_api::nginx,
    support::{Namespace, Operator, free_port},
};

/// The script in `docs/argocd-cm.yaml`, as Argo CD reads it.
fn script() -> String {
    let file = std::fs::read_to_string(root().join("docs/argocd-cm.yaml")).expect("the ConfigMap");
    let map: Value = serde_saphyr::from_str(&file).expect("YAML");
    let customizations = map["data"]["resource.customizations"].as_str().expect("a text");
    let customizations: Value = serde_saphyr::from_str(customizations).expect("YAML");
    customizations["authlink.dev/*"]["health.lua"].as_str().expect("a script").to_owned()
}

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let bytes = text.bytes().fold(String::new(), |mut all, byte| {
                let _ = write!(all, "\\{byte:03}");
                all
            });
            format!("\"{bytes}\"")
        }
        Value::Array(values) => {
            format!("{{{}}}", values.iter().map(lua).collect::<Vec<_>>().join(","))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("[{}]={}", lua(&json!(name)), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

/// Health and message of an object.
fn health(object: &Value) -> (String, String) {
    let program = format!(
        "obj = {}\nlocal function health()\n{}\nend\nlocal hs = health()\nio.write(hs.status, '\\n', hs.message)",
        lua(object),
        script()
    );
    let output = std::process::Command::new("lua5.4").args(["-e", &program]).output();
    let output = output.expect("lua5.4: run e2e/prepare extras");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, message) = said.split_once('\n').expect("a status and a message");
    (status.to_owned(), message.to_owned())
}

#[tokio::test]
async fn argo_cd_shows_the_health_of_objects_as_the_operator_reports_it() {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &["--egress-allow-cidrs", "127.0.0.0/8"]).await;
    let manifest = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let api = |name: &str, urls: &[String]| {
        let endpoints: Vec<_> = urls.iter().map(|url| json!({ "url": url })).collect();
        let check = json!({ "unhealthyThreshold": 1 });
        manifest("ExternalApi", name, json!({ "endpoints": endpoints, "healthCheck": check }))
    };
    let up = nginx().0.replace("localhost", "127.0.0.1");
    let down = format!("http://127.0.0.1:{}", free_port());
    let rows = [
        ("up", vec![up.clone()], ("Ready", "True", "Available"), "Healthy", "Available: "),
        (
            "down",
            vec![down.clone()],
            ("Ready", "False", "ConnectionRefused"),
            "Degraded",
            "ConnectionRefused: ",
        ),
        ("half", vec![up, down], ("Degraded", "True", "SomeEndpointsDown"), "Healthy", "SomeEndpointsDown: "),
    ];
    for (name, urls, condition, status, message) in rows {
        namespace.apply::<ExternalApi>(api(name, &urls)).await;
        let object = namespace.expect_of::<ExternalApi>(name, &[condition]).await;
        let mut object = serde_json::to_value(object).expect("JSON");
        let found = health(&object);
        assert!(found.0 == status && found.1.starts_with(message), "{name}: {found:?}");
        object["metadata"]["generation"] = json!(7);
        assert_eq!(health(&object).0, "Progressing", "{name}: the operator has not seen this spec");
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(health(&object), ("Progressing".to_owned(), "being deleted".to_owned()));
    }
    let spec = json!({
        "serviceName": "billing", "instanceId": "1", "addresses": ["10.99.0.1"], "suspend": true,
        "ports": [{ "name": "http", "port": 80 }],
    });
    let suspended = manifest("ServiceRegistration", "suspended", spec);
    assert_eq!(health(&suspended).0, "Suspended");
    let applied = namespace.apply::<ServiceRegistration>(suspended).await;
    assert_eq!(health(&serde_json::to_value(applied).expect("JSON")).0, "Suspended");
}

#[test]
fn an_object_without_a_status_is_progressing() {
    let object = json!({ "metadata": { "name": "new", "generation": 1 }, "spec": {} });
    assert_eq!(health(&object), ("Progressing".to_owned(), "waiting for the operator".to_owned()));
    let pending = json!({ "type": "Ready", "status": "Unknown", "reason": "Pending", "message": "", "observedGeneration": 0 });
    let defaulted =
        json!({ "metadata": { "generation": 1 }, "spec": {}, "status": { "conditions": [pending] } });
    assert_eq!(health(&defaulted).0, "Progressing");
}
