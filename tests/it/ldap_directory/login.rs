//! Logins through the gateway.

use hyper::Method;
use serde_json::{Value, json};

use super::{Ldap, apply, is, pair, spec, status};
use crate::support::{
    Namespace,
    gateway::{Answer, Gateway},
};

const MAY_LOG_IN: (&str, &str, &[&str]) = ("create", "ldapdirectories/authenticate", &[]);

struct Bed {
    namespace: Namespace,
    gateway: Gateway,
    token: String,
}

impl Bed {
    async fn start(spec: &Value) -> Self {
        let namespace = Namespace::create().await;
        let gateway = Gateway::start(&namespace, &[]).await;
        apply(&namespace, "corp", spec).await;
        let token = namespace.caller("portal", &[MAY_LOG_IN]).await;
        Self { namespace, gateway, token }
    }

    async fn log_in(&self, username: &str, password: &str) -> Answer {
        let body = json!({ "username": username, "password": password }).to_string();
        let path = format!("/v1/ldap/{}/corp/authenticate", self.namespace.name);
        self.gateway.call(Method::POST, &path, &self.token, &body).await
    }
}

#[tokio::test]
async fn a_user_logs_in_with_groups_and_roles_and_nobody_else_does() {
    let ldap = Ldap::start(200);
    let mut spec = spec(ldap.port(), "24h");
    spec["sync"]["roleMappings"] = json!([{ "group": { "name": "group00001" }, "role": "admin" }]);
    let bed = Bed::start(&spec).await;
    status(&bed.namespace, "corp", "a sync", |it| is(it, "Synced").0 == "True").await;
    let answer = bed.log_in("user000123", "pw-123").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let user: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(user["username"], "user000123");
    assert_eq!((&user["groups"], &user["roles"]), (&json!(["group00001"]), &json!(["admin"])));
    let again: Value = serde_json::from_slice(&bed.log_in("USER000123", "pw-123").await.body).expect("JSON");
    assert_eq!(again["id"], user["id"]);

    let wrong = bed.log_in("user000005", "pw-6").await;
    let unknown = bed.log_in("nobody", "pw-6").await;
    assert_eq!(wrong.problem(), (401, "login-refused".to_owned()));
    assert_eq!((wrong.status, &wrong.body), (unknown.status, &unknown.body), "the same answer");
    for (name, password, kind) in [
        ("user000005", "", (400, "login-invalid")),
        ("", "x", (400, "login-invalid")),
        ("*", "pw-5", (401, "login-refused")),
        ("user00000*", "pw-5", (401, "login-refused")),
        ("user000005)(uid=*", "pw-5", (401, "login-refused")),
    ] {
        let answer = bed.log_in(name, password).await.problem();
        assert_eq!((answer.0, answer.1.as_str()), kind, "{name}");
    }
    assert_eq!(bed.log_in("user000005", "pw-5").await.status, 200);

    let log = bed.gateway.operator.logged(&["WrongPassword", "NoSuchUser"]).await;
    for secret in ["pw-123", "pw-6", "pw-5", "app-secret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    let stranger = bed.namespace.caller("stranger", &[]).await;
    let path = format!("/v1/ldap/{}/corp/authenticate", bed.namespace.name);
    let answer = bed.gateway.call(Method::POST, &path, &stranger, "{}").await;
    assert_eq!(answer.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn guesses_are_throttled_by_the_entry_before_the_directory_locks_it() {
    let ldap = Ldap::start(3);
    let mut spec = spec(ldap.port(), "24h");
    spec["userSearch"]["filter"] = "(|(uid={})(mail={}))".into();
    let bed = Bed::start(&spec).await;
    status(&bed.namespace, "corp", "a sync", |it| is(it, "Synced").0 == "True").await;
    // The same person under two names: they are counted together.
    let mut refused = 0;
    let throttled = loop {
        let name = if refused % 2 == 0 { "user000001" } else { "user000001@example.org" };
        let answer = bed.log_in(name, "wrong").await;
        if answer.status != 401 {
            break answer;
        }
        refused += 1;
        assert!(refused < 10, "never throttled");
    };
    assert_eq!(throttled.problem(), (429, "login-throttled".to_owned()));
    assert!(throttled.headers.contains_key("retry-after"));
    assert_eq!(bed.log_in("user000002", "pw-2").await.status, 200, "others are not");
}

#[tokio::test]
async fn a_directory_that_is_away_is_no_wrong_password_and_a_second_server_takes_over() {
    let (first, second) = (Ldap::start(3), Ldap::start(3));
    let mut spec = spec(first.port(), "24h");
    spec["urls"] =
        json!([format!("ldap://127.0.0.1:{}", first.port()), format!("ldap://127.0.0.1:{}", second.port())]);
    let bed = Bed::start(&spec).await;
    status(&bed.namespace, "corp", "Ready", |it| is(it, "Ready").0 == "True").await;
    assert_eq!(bed.log_in("user000001", "pw-1").await.status, 200);
    first.0.kill();
    assert_eq!(bed.log_in("user000001", "pw-1").await.status, 200, "by the second one");
    let degraded = status(&bed.namespace, "corp", "Degraded", |it| {
        it.common.endpoints.first().is_some_and(|endpoint| !endpoint.ready)
    })
    .await;
    assert_eq!(is(&degraded, "Degraded"), pair("True", "SomeEndpointsDown"));
    assert!(degraded.common.endpoints[1].ready);
    second.0.kill();
    let answer = bed.log_in("user000001", "pw-1").await;
    assert_eq!(answer.problem(), (503, "directory-unavailable".to_owned()));
    first.0.resume();
    status(&bed.namespace, "corp", "the first one again", |it| it.common.endpoints[0].ready).await;
    assert_eq!(bed.log_in("user000001", "pw-1").await.status, 200);
}

#[tokio::test]
async fn a_dn_template_binds_at_once_and_its_filter_still_counts() {
    let ldap = Ldap::start(10);
    let mut spec = spec(ldap.port(), "24h");
    spec["authentication"] =
        json!({ "mode": "DnTemplate", "dnTemplate": "uid={},ou=people,dc=example,dc=org" });
    spec["userSearch"]["filter"] = "(&(objectClass=inetOrgPerson)(departmentNumber=7)(uid={}))".into();
    let bed = Bed::start(&spec).await;
    status(&bed.namespace, "corp", "Ready", |it| is(it, "Ready").0 == "True").await;
    assert_eq!(bed.log_in("user000007", "pw-7").await.status, 200);
    let outside = bed.log_in("user000003", "pw-3").await;
    assert_eq!(outside.problem(), (401, "login-refused".to_owned()), "the filter does not find this one");
    let traversal = bed.log_in("user000007,ou=people", "pw-7").await;
    assert_eq!(traversal.problem(), (401, "login-refused".to_owned()));
}
