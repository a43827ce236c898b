//! `authlink check` of a directory: everything but the sync, and with `--plan` what that would do.

use serde_json::{Value, json};

use super::{Ldap, object, spec};
use crate::{
    commands::{authlink, certificate},
    support::password_secret,
};

fn manifests(spec: &Value) -> String {
    let mut object = object("corp", spec);
    object["metadata"]["namespace"] = "shop".into();
    let mut secret = password_secret("reader", "uid=app,ou=svc,dc=example,dc=org", "app-secret");
    secret["metadata"]["namespace"] = "shop".into();
    let ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca", "namespace": "shop" },
        "data": { "ca.crt": certificate("ca.pem") },
    });
    [object, secret, ca].map(|manifest| manifest.to_string()).join("\n---\n")
}

fn check(spec: &Value, flags: &[&str]) -> (Option<i32>, Value) {
    let args = [&["check", "-f", "-", "--output", "json"], flags].concat();
    let said = authlink(&args, &manifests(spec));
    assert!(!said.out.contains("app-secret"), "{said:?}");
    let found: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    (said.code, found[0].clone())
}

#[test]
fn a_directory_is_checked_without_a_cluster_and_its_plan_is_shown() {
    let ldap = Ldap::start(120);
    let mut spec = spec(ldap.port(), "1h");
    spec["test"] = json!({ "username": "user000007" });
    let (code, found) = check(&spec, &[]);
    assert_eq!((code, found["ready"].as_str()), (Some(0), Some("True")), "{found:#}");
    assert_eq!(found["status"]["test"]["groups"], json!(["group00000"]));
    assert!(found["status"].get("plan").is_none(), "{found:#}");
    let (code, found) = check(&spec, &["--plan"]);
    assert_eq!(code, Some(0), "{found:#}");
    assert_eq!(found["status"]["plan"]["summary"], json!({ "create": 120, "createGroup": 2 }));
    spec["test"] = json!({ "username": "nobody" });
    let (code, found) = check(&spec, &[]);
    assert_eq!((code, found["reason"].as_str()), (Some(1), Some("TestUserNotFound")), "{found:#}");
}
