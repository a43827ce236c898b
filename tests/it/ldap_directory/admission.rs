//! What the API server refuses, with a message that names the field and the remedy.

use authlink::api::v1alpha1::LdapDirectory;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{object, spec};
use crate::support::Namespace;

#[tokio::test]
async fn mistakes_are_refused_at_admission() {
    let namespace = Namespace::create().await;
    let change = |change: fn(&mut Value)| {
        let mut spec = spec(389, "1h");
        change(&mut spec);
        spec
    };
    let rows = [
        (
            change(|spec| spec["urls"] = json!(["ldap://a", "ldaps://b"])),
            "urls must all be ldap:// or all be ldaps://",
        ),
        (change(|spec| spec["urls"] = json!(["http://a"])), "urls must all be"),
        (change(|spec| spec["urls"] = json!(["ldap://a/dc=x"])), "urls must have a scheme, a host"),
        (change(|spec| spec["tls"]["mode"] = "Ldaps".into()), "tls.mode Ldaps needs ldaps:// urls"),
        (change(|spec| spec["tls"] = json!({ "mode": "None" })), "set insecure to true"),
        (change(|spec| spec["tls"]["mode"] = "None".into()), "have no effect with tls.mode None"),
        (change(|spec| spec["bind"] = json!({})), "bind.secretRef must be set for bind.mode Simple"),
        (
            change(|spec| spec["bind"] = json!({ "mode": "External" })),
            "bind.mode External needs tls.clientCertRef",
        ),
        (change(|spec| spec["authentication"] = json!({ "mode": "DnTemplate" })), "dnTemplate must be set"),
        (
            change(|spec| {
                spec["authentication"] = json!({ "mode": "DnTemplate", "dnTemplate": "uid=x,dc=example" });
            }),
            "dnTemplate must contain {}",
        ),
        (change(|spec| spec["userSearch"]["listFilter"] = "(uid={})".into()), "listFilter finds all users"),
        (
            change(|spec| spec["sync"]["schedule"] = "0 * * * *".into()),
            "at most one of sync.interval and sync.schedule",
        ),
        (change(|spec| spec["sync"]["interval"] = "10ms".into()), "must be a duration from 1s to 168h"),
        (
            change(|spec| spec["sync"]["linkPolicy"] = json!({ "mode": "Attribute" })),
            "linkPolicy.attribute must be set",
        ),
        (
            change(|spec| {
                spec["groupSearch"] = Value::Null;
                spec["sync"]["roleMappings"] = json!([{ "group": { "name": "x" }, "role": "y" }]);
            }),
            "sync.roleMappings needs groupSearch",
        ),
        (
            change(|spec| spec["sync"]["roleMappings"] = json!([{ "group": {}, "role": "y" }])),
            "set exactly one of group.dn, group.name and group.regex",
        ),
    ];
    let api = namespace.api::<LdapDirectory>();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |spec: &Value| {
        let object = serde_json::from_value(object("corp", spec)).map_err(|error| error.to_string())?;
        api.create(&params, &object).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(create(&spec(389, "1h")).await, Ok(()));
    for (spec, message) in rows {
        let error = create(&spec).await.expect_err(message);
        assert!(error.contains(message), "{message}: {error}");
    }
}
