//! What the status says of a spec that cannot work, and of one that does.

use serde_json::{Value, json};

use super::{Ldap, apply, is, pair, spec, status};
use crate::support::{Namespace, Operator, password_secret};

#[tokio::test]
async fn the_test_user_is_shown_redacted_and_with_groups() {
    let ldap = Ldap::start(10);
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let mut spec = spec(ldap.port(), "24h");
    spec["test"] = json!({ "username": "user000004" });
    apply(&namespace, "corp", &spec).await;
    let ready = status(&namespace, "corp", "Ready", |it| is(it, "Ready").0 == "True").await;
    let test = ready.test.clone().expect("a test");
    assert_eq!((test.matched, test.enabled, test.groups), (1, true, vec!["group00000".to_owned()]));
    assert_eq!(test.sample["username"], "us... (10)");
    let tls = ready.tls.clone().expect("TLS").not_after;
    assert!(tls.is_some(), "StartTLS is the default of ldap://");
    for (kind, reason) in [
        ("Connected", "LoginSucceeded"),
        ("BindValid", "BindSucceeded"),
        ("SearchBaseFound", "Found"),
        ("TestSearchPassed", "Passed"),
        ("MappingValid", "Passed"),
    ] {
        assert_eq!(is(&ready, kind), pair("True", reason));
    }
    let text = serde_json::to_string(&ready).unwrap();
    assert!(!text.contains("user000004") && !text.contains("dc=example"), "{text}");

    spec["test"] = json!({ "username": "nobody" });
    apply(&namespace, "corp", &spec).await;
    let failed =
        status(&namespace, "corp", "no such user", |it| is(it, "TestSearchPassed").0 == "False").await;
    assert_eq!(is(&failed, "Ready"), pair("False", "TestUserNotFound"));
}

#[tokio::test]
async fn each_mistake_has_its_condition_and_its_reason() {
    let ldap = Ldap::start(10);
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    let change = |change: fn(&mut Value)| {
        let mut spec = spec(ldap.port(), "24h");
        change(&mut spec);
        spec
    };
    let rows = [
        (
            "base",
            change(|spec| spec["userSearch"]["base"] = "ou=nowhere,dc=example,dc=org".into()),
            "SearchBaseFound",
            "SearchBaseMissing",
        ),
        ("no-dn", change(|spec| spec["userSearch"]["base"] = "people".into()), "Accepted", "InvalidSpec"),
        ("filter", change(|spec| spec["userSearch"]["filter"] = "(uid={}".into()), "Accepted", "InvalidSpec"),
        (
            "list",
            change(|spec| spec["userSearch"]["filter"] = "(uid:caseExactMatch:={})".into()),
            "Accepted",
            "InvalidSpec",
        ),
        ("mapping", change(|spec| spec["preset"] = "ActiveDirectory".into()), "MappingValid", ""),
        (
            "id",
            change(|spec| spec["userSearch"]["attributes"] = json!({ "uid": "noSuchAttribute" })),
            "MappingValid",
            "MappingInvalid",
        ),
        (
            "secret-attribute",
            change(|spec| spec["userSearch"]["attributes"] = json!({ "extra": { "x": "userpassword" } })),
            "Accepted",
            "InvalidSpec",
        ),
        (
            "port",
            change(|spec| spec["urls"] = json!(["ldap://127.0.0.1:1"])),
            "Connected",
            "ConnectionRefused",
        ),
        (
            "secret",
            change(|spec| spec["bind"]["secretRef"]["name"] = "none".into()),
            "ResolvedRefs",
            "SecretNotFound",
        ),
        ("ca", change(|spec| spec["tls"] = json!({})), "Connected", "TlsFailed"),
    ];
    for (name, spec, _, _) in &rows {
        apply(&namespace, name, spec).await;
    }
    for (name, _, kind, reason) in rows {
        let wanted = |it: &_| {
            let (status, found) = is(it, kind);
            (status == "False" && found == reason) || (reason.is_empty() && status != "Unknown")
        };
        status(&namespace, name, &format!("{name}: {kind} {reason}"), wanted).await;
    }
}

#[tokio::test]
async fn a_wrong_bind_password_is_tried_once_and_never_locks_the_account() {
    let ldap = Ldap::start(3);
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    let mut spec = spec(ldap.port(), "1s");
    spec["bind"]["secretRef"]["name"] = "wrong".into();
    let dn = "uid=app,ou=svc,dc=example,dc=org";
    namespace.apply::<k8s_openapi::api::core::v1::Secret>(password_secret("wrong", dn, "guess")).await;
    apply(&namespace, "corp", &spec).await;
    let refused = status(&namespace, "corp", "a refusal", |it| is(it, "BindValid").0 == "False").await;
    assert_eq!(is(&refused, "BindValid"), pair("False", "AuthenticationFailed"));
    // The policy of the directory locks an account after three: a dozen probes later it is not.
    operator.more_probes(12).await;
    let failures = ldap.values("ou=svc,dc=example,dc=org", "(uid=app)", "pwdFailureTime");
    assert_eq!(failures.values().next().map(Vec::len), Some(1), "{failures:?}");
    namespace.apply::<k8s_openapi::api::core::v1::Secret>(password_secret("wrong", dn, "app-secret")).await;
    status(&namespace, "corp", "the right one", |it| is(it, "Synced").0 == "True").await;
    assert!(!operator.logs().contains("guess"));
}
