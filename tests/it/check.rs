//! `authlink check`, as a pipeline runs it: no cluster, and an exit code to rely on.

use std::process::Command;

use serde_json::{Value, json};

use crate::commands::{Said, address, authlink, run, scratch};

const LOGIN: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: shop}
type: kubernetes.io/basic-auth
stringData: {username: app, password: app-secret}
---
";

/// A Database in the namespace shop that reaches the test server.
fn database(changes: &Value) -> String {
    let (host, port) = address("POSTGRESQL");
    let mut spec = json!({
        "type": "postgresql", "host": host, "port": port, "database": "app",
        "credentialsRef": { "name": "login" }, "tls": { "mode": "Require" },
    });
    spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let metadata = json!({ "name": "orders", "namespace": "shop" });
    json!({ "apiVersion": "authlink.dev/v1alpha1", "kind": "Database", "metadata": metadata, "spec": spec })
        .to_string()
}

fn check(manifests: &str) -> Said {
    authlink(&["check", "-f", "-"], manifests)
}

/// Columns are separated by two blanks or more.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[track_caller]
fn not_ready(said: &Said, reason: &str, message: &str) {
    assert_eq!(said.code, Some(1), "{said:?}");
    let row = cells(said.out.lines().nth(1).unwrap());
    assert_eq!(row[..5], ["Database", "shop/orders", "False", reason, "-"], "{said:?}");
    assert!(row[5].contains(message), "{said:?}");
}

#[track_caller]
fn refused(said: &Said, message: &str) {
    assert!(said.code == Some(2) && said.out.is_empty() && said.err.contains(message), "{said:?}");
}

#[test]
fn a_server_that_answers_is_ready_and_the_exit_code_is_0() {
    let said = check(&format!("{LOGIN}{}", database(&json!({}))));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let lines: Vec<_> = said.out.lines().map(cells).collect();
    assert_eq!(lines[0], ["KIND", "NAMESPACE/NAME", "READY", "REASON", "VERSION", "MESSAGE"]);
    assert_eq!(lines[1][..4], ["Database", "shop/orders", "True", "Available"]);
    assert!(lines[1][4].starts_with(|first: char| first.is_ascii_digit()), "{said:?}");
}

#[test]
fn json_has_the_status_that_the_operator_would_write() {
    let manifests = format!("{LOGIN}{}", database(&json!({})));
    let said = authlink(&["check", "-f", "-", "--output", "json"], &manifests);
    let found: Value = serde_json::from_str(&said.well()).unwrap();
    let found = &found.as_array().unwrap()[0];
    let keys: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["kind", "message", "name", "namespace", "ready", "reason", "status"]);
    assert_eq!((&found["name"], &found["ready"]), (&json!("orders"), &json!("True")));
    let kinds: Vec<_> =
        found["status"]["conditions"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
    assert_eq!(kinds, ["Ready", "Accepted", "ResolvedRefs", "Connected", "Healthy", "PoolHealthy"]);
    assert_eq!(found["status"]["endpoints"][0]["ready"], true);
}

#[test]
fn one_that_is_not_ready_among_others_makes_the_exit_code_1() {
    let dead = database(&json!({ "port": 1 })).replace("\"orders\"", "\"dead\"");
    let said = check(&format!("{LOGIN}{}\n---\n{dead}", database(&json!({}))));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("shop/orders") && said.out.contains("ConnectionRefused"), "{said:?}");
}

#[test]
fn a_wrong_password_is_not_told() {
    let wrong = LOGIN.replace("app-secret", "wr0ng-but-secret");
    let manifests = format!("{wrong}{}", database(&json!({})));
    not_ready(&check(&manifests), "AuthenticationFailed", "check the user name and password");
    for output in ["table", "json"] {
        let said = authlink(&["check", "-f", "-", "-o", output], &manifests);
        assert!(!format!("{said:?}").contains("wr0ng"), "{said:?}");
    }
}

#[test]
fn a_missing_secret_is_named_and_a_secret_of_another_namespace_does_not_serve() {
    not_ready(&check(&database(&json!({}))), "SecretNotFound", "the Secret login does not exist");
    let elsewhere = LOGIN.replace(", namespace: shop", "");
    not_ready(&check(&format!("{elsewhere}{}", database(&json!({})))), "SecretNotFound", "login");
}

#[test]
fn the_environment_gives_secrets_and_wins_over_the_files() {
    let check = |arguments: &[&str], manifests: &str| {
        let command = &mut Command::new(env!("CARGO_BIN_EXE_authlink"));
        let command = command.args(["check", "-f", "-"]).args(arguments).env_remove("KUBECONFIG");
        run(command.env("DB_USER", "app").env("DB_PASSWORD", "app-secret").env_remove("DB_NOT"), manifests)
    };
    let both = ["--secret-from-env", "login/username=DB_USER", "--secret-from-env", "login=DB_PASSWORD"];
    check(&both, &database(&json!({}))).well();
    let wrong = LOGIN.replace("app-secret", "wrong");
    check(&both[2..], &format!("{wrong}{}", database(&json!({})))).well();
    refused(&check(&["--secret-from-env", "login=DB_NOT"], &database(&json!({}))), "DB_NOT is not set");
    refused(&check(&["--secret-from-env", "login"], &database(&json!({}))), "NAME/KEY=VARIABLE");
}

#[test]
fn what_the_api_server_would_refuse_is_told_by_path_and_not_probed() {
    let unknown = database(&json!({ "hostt": "a", "pool": { "maximum": 1 } }));
    not_ready(&check(&unknown), "InvalidSpec", "spec.pool.maximum: there is no such field");
    not_ready(&check(&unknown), "InvalidSpec", "spec.hostt: there is no such field");
    let rule = database(&json!({ "pool": { "min": 5, "max": 2 } }));
    not_ready(&check(&rule), "InvalidSpec", "spec.pool: pool.min must be at most pool.max");
    // The password is in the wrong place, which is no reason to print it.
    let said = check(&database(&json!({ "host": "postgres://app:app-secret@db" })));
    not_ready(&said, "InvalidSpec", "must be a host name or address without a port");
    assert!(!format!("{said:?}").contains("app-secret"), "{said:?}");
}

#[test]
fn a_query_that_cannot_be_prepared_is_told_of_a_server_that_is_ready() {
    let queries = json!({ "queries": [{ "name": "bad", "statement": "select nothing from nowhere" }] });
    let said = check(&format!("{LOGIN}{}", database(&queries)));
    assert!(
        said.code == Some(0) && said.out.contains("QueryInvalid: queries that cannot be prepared: bad"),
        "{said:?}"
    );
}

#[test]
fn a_suspended_object_is_not_probed_and_not_ready() {
    let said = check(&database(&json!({ "suspend": true })));
    assert!(said.code == Some(1) && said.out.contains("Unknown  Suspended"), "{said:?}");
}

#[test]
fn kinds_that_are_not_known_are_refused_by_name_and_those_of_others_are_passed_over() {
    let unknown = "apiVersion: authlink.dev/v1alpha1\nkind: Webhok\nmetadata: {name: a}\n";
    refused(&check(unknown), "standard input, document 1: this version does not know Webhok");
    let newer = database(&json!({})).replace("v1alpha1", "v9");
    refused(&check(&newer), "does not know Database (authlink.dev/v9)");
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n";
    let said = check(&format!("{other}{LOGIN}{}", database(&json!({}))));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("document 1: Deployment (apps/v1) is not checked"), "{said:?}");
}

#[test]
fn files_that_cannot_be_used_make_the_exit_code_2_and_never_show_a_value() {
    refused(&check(""), "there is nothing to check");
    refused(&check("kind: ["), "standard input: is no valid YAML (line 1");
    refused(&check("kind: a\nkind: b"), "standard input: has a key twice (line 2");
    refused(&check("just text"), "document 1: is no manifest");
    refused(&check("- a\n- b"), "document 1: is no manifest");
    refused(&check(&database(&json!({})).replace("\"orders\"", "\"\"")), "needs a metadata.name");
    let twice = format!("{0}\n---\n{0}", database(&json!({})));
    refused(&check(&twice), "the Database shop/orders is there twice");
    refused(&authlink(&["check", "-f", "/nowhere/at.yaml"], ""), "/nowhere/at.yaml: No such file");
    refused(&authlink(&["check"], ""), "--filename");
    for secret in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: 47114711}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: 47114711-}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: 47114711, password: 47114711}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: \"47114711}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: *47114711}\n",
    ] {
        let said = check(secret);
        assert!(said.code == Some(2) && !format!("{said:?}").contains("4711"), "{said:?}");
    }
}

#[test]
fn names_that_the_api_server_refuses_are_refused() {
    let named = |name: &str, namespace: &str| {
        let names = json!({ "name": name, "namespace": namespace }).to_string();
        check(&format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {names}}}\n---\n{LOGIN}{}",
            database(&json!({}))
        ))
    };
    let long = "a".repeat(254);
    for name in ["Orders_DB", "orders db", "-orders", "orders-", "orders..db", ".orders", "ördèrs", &long] {
        refused(&named(name, "shop"), "document 1: the ConfigMap cannot have the metadata.name \"");
    }
    for namespace in ["My.Team", "my.team", "-team", "team-", &long[..64]] {
        refused(
            &named("ca", namespace),
            "document 1: the ConfigMap ca cannot have the metadata.namespace \"",
        );
    }
    for (name, namespace) in [("0.orders-db.example", "0-team"), (&long[..253], &long[..63])] {
        named(name, namespace).well();
    }
}

#[test]
fn several_files_and_lists_are_read_as_one() {
    let folder = scratch("check");
    let [login, database_] = ["login.yaml", "database.yaml"].map(|name| folder.join(name));
    std::fs::write(&login, LOGIN).unwrap();
    let list =
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}]}}", database(&json!({})));
    std::fs::write(&database_, list).unwrap();
    authlink(&["check", "-f", &login.to_string_lossy(), "-f", &database_.to_string_lossy()], "").well();
}
