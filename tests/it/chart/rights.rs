//! What the chart allows whom: no more than is used.

use std::collections::BTreeSet;

use authlink::{api::Kind, gateway};
use serde_json::{Value, json};

use super::{APART, named, of_kind, render, texts, workloads};

/// `group/resource verb` for everything that the rules allow.
fn allowed(role: &Value) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let verbs = texts(&rule["verbs"]).into_iter();
                allowed.extend(verbs.map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    allowed
}

fn operators_rules() -> BTreeSet<String> {
    let kinds = Kind::ALL.iter().flat_map(|kind| {
        let plural = kind.plural();
        let finalizer = kind.has_finalizer().then(|| format!("authlink.dev/{plural} patch"));
        let read = ["list", "watch"].map(|verb| format!("authlink.dev/{plural} {verb}"));
        read.into_iter().chain([format!("authlink.dev/{plural}/status patch")]).chain(finalizer)
    });
    let others = [
        "/secrets get",
        "/secrets list",
        "/secrets watch",
        "/secrets create",
        "/secrets patch",
        "/secrets delete",
        "/configmaps get",
        "/configmaps list",
        "/configmaps watch",
        "/services get",
        "/services list",
        "/services watch",
        "/services create",
        "/services patch",
        "/services delete",
        "discovery.k8s.io/endpointslices list",
        "discovery.k8s.io/endpointslices watch",
        "discovery.k8s.io/endpointslices create",
        "discovery.k8s.io/endpointslices patch",
        "discovery.k8s.io/endpointslices delete",
        "events.k8s.io/events create",
        "events.k8s.io/events patch",
    ];
    kinds.chain(others.map(str::to_owned)).collect()
}

/// Those of who watches the whole cluster.
fn everywhere(rules: BTreeSet<String>) -> BTreeSet<String> {
    rules.into_iter().chain(["networking.k8s.io/servicecidrs list".to_owned()]).collect()
}

const REVIEWS: [&str; 2] =
    ["authentication.k8s.io/tokenreviews create", "authorization.k8s.io/subjectaccessreviews create"];

fn gateways_rules() -> BTreeSet<String> {
    let kinds = Kind::ALL.iter().map(|kind| format!("authlink.dev/{}", kind.plural()));
    let watched = kinds.flat_map(|kind| ["list", "watch"].map(|verb| format!("{kind} {verb}")));
    let named = ["secrets", "configmaps"];
    let read =
        named.into_iter().flat_map(|kind| ["get", "list", "watch"].map(|verb| format!("/{kind} {verb}")));
    watched.chain(read).chain(REVIEWS.map(str::to_owned)).collect()
}

/// All that the account may do, wherever.
fn rights_of(objects: &[Value], account: &str) -> BTreeSet<String> {
    let bindings = ["ClusterRoleBinding", "RoleBinding"].into_iter().flat_map(|kind| of_kind(objects, kind));
    let bound = bindings.filter(|binding| binding["subjects"] == subjects(account));
    let roles = bound.flat_map(|binding| {
        let is_of = |role: &&Value| {
            (&role["kind"], &role["metadata"]["name"])
                == (&binding["roleRef"]["kind"], &binding["roleRef"]["name"])
                && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        };
        objects.iter().filter(is_of).flat_map(allowed).collect::<Vec<_>>()
    });
    roles.collect()
}

#[test]
fn the_whole_cluster_is_watched_by_one_cluster_role() {
    let objects = render(&["rbac.aggregate=false", "gateway.enabled=false"]);
    let roles = of_kind(&objects, "ClusterRole");
    assert_eq!(roles.len(), 1);
    assert_eq!(allowed(roles[0]), everywhere(operators_rules()));
    let bindings = of_kind(&objects, "ClusterRoleBinding");
    assert_eq!(
        bindings[0]["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "r-authlink", "namespace": "home" }])
    );
    let leases: Vec<_> = of_kind(&objects, "Role").into_iter().flat_map(allowed).collect();
    let lease = |verb| format!("coordination.k8s.io/leases {verb}");
    assert_eq!(leases, [lease("create"), lease("get"), lease("update")]);
}

#[test]
fn named_namespaces_are_watched_by_a_role_in_each_and_no_right_beyond() {
    let objects = render(&["watchNamespaces={a,b}", "rbac.aggregate=false", "gateway.enabled=false"]);
    assert!(
        of_kind(&objects, "ClusterRole").is_empty() && of_kind(&objects, "ClusterRoleBinding").is_empty()
    );
    let roles = of_kind(&objects, "Role");
    for namespace in ["a", "b"] {
        let roles: Vec<_> = roles.iter().filter(|role| role["metadata"]["namespace"] == namespace).collect();
        assert_eq!(roles.len(), 1);
        assert_eq!(allowed(roles[0]), operators_rules());
    }
    assert_eq!(of_kind(&objects, "RoleBinding").len(), 3);
}

/// What is written into the `subjects` of a binding for this account.
fn subjects(account: &str) -> Value {
    json!([{ "kind": "ServiceAccount", "name": account, "namespace": "home" }])
}

#[test]
fn the_one_pod_may_ask_who_calls_as_well() {
    let objects = render(&["rbac.aggregate=false"]);
    let reviews: BTreeSet<_> = REVIEWS.map(str::to_owned).into();
    assert_eq!(allowed(named(&objects, "ClusterRole", "r-authlink-gateway")), reviews);
    let binding = named(&objects, "ClusterRoleBinding", "r-authlink-gateway");
    assert_eq!(binding["subjects"], subjects("r-authlink"));
    assert_eq!(of_kind(&objects, "ServiceAccount").len(), 1);
}

#[test]
fn gateways_of_their_own_read_and_ask_and_change_nothing() {
    let objects = render(&[APART, "rbac.aggregate=false"]);
    let account = |name: &str| {
        named(&objects, "Deployment", name)["spec"]["template"]["spec"]["serviceAccountName"].clone()
    };
    assert_eq!(
        (account("r-authlink"), account("r-authlink-gateway")),
        (json!("r-authlink"), json!("r-authlink-gateway"))
    );
    assert_eq!(rights_of(&objects, "r-authlink-gateway"), everywhere(gateways_rules()));
    let leases = ["create", "get", "update"].map(|verb| format!("coordination.k8s.io/leases {verb}"));
    let operators: BTreeSet<_> = everywhere(operators_rules()).into_iter().chain(leases).collect();
    assert_eq!(rights_of(&objects, "r-authlink"), operators, "it is asked nothing, so it asks nothing");
}

#[test]
fn gateways_of_their_own_read_no_other_namespace_than_they_are_told_to() {
    let objects = render(&[APART, "watchNamespaces={a,b}", "rbac.aggregate=false"]);
    let reviews: BTreeSet<_> = REVIEWS.map(str::to_owned).into();
    assert_eq!(allowed(named(&objects, "ClusterRole", "r-authlink-gateway")), reviews);
    let bindings = of_kind(&objects, "RoleBinding");
    let mut bound: Vec<_> = bindings
        .iter()
        .filter(|binding| binding["subjects"] == subjects("r-authlink-gateway"))
        .map(|binding| binding["metadata"]["namespace"].as_str().unwrap())
        .collect();
    bound.sort_unstable();
    assert_eq!(bound, ["a", "b"]);
    assert_eq!(rights_of(&objects, "r-authlink-gateway"), gateways_rules());
}

#[test]
fn without_a_gateway_nobody_asks_who_calls() {
    for settings in [&["gateway.enabled=false"][..], &["gateway.enabled=false", APART]] {
        let objects = render(settings);
        let roles = of_kind(&objects, "ClusterRole");
        assert!(roles.iter().all(|role| role["metadata"]["name"] != "r-authlink-gateway"));
        assert_eq!((workloads(&objects).len(), of_kind(&objects, "ServiceAccount").len()), (1, 1));
    }
}

#[test]
fn without_bindings_the_operator_can_write_no_secret() {
    let objects = render(&["rbac.bindings=false", "rbac.aggregate=false"]);
    let rules = allowed(of_kind(&objects, "ClusterRole")[0]);
    let secrets: Vec<_> = rules.iter().filter(|rule| rule.starts_with("/secrets")).collect();
    assert_eq!(secrets, ["/secrets get", "/secrets list", "/secrets watch"]);
}

/// Labels and rules of a ClusterRole.
fn cluster_role(objects: &[Value], name: &str) -> (Value, BTreeSet<String>) {
    let role = named(objects, "ClusterRole", name);
    (role["metadata"]["labels"].clone(), allowed(role))
}

#[test]
fn users_get_the_kinds_by_the_built_in_roles() {
    let objects = render(&[]);
    let of_each_kind = |verbs: &[&str]| -> BTreeSet<String> {
        let rules = Kind::ALL
            .iter()
            .flat_map(|kind| verbs.iter().map(move |verb| format!("authlink.dev/{} {verb}", kind.plural())));
        rules.collect()
    };
    let (labels, rules) = cluster_role(&objects, "r-authlink-view");
    assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    let read = ["get", "list", "watch"];
    assert_eq!(rules, of_each_kind(&read));
    let (labels, rules) = cluster_role(&objects, "r-authlink-edit");
    assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
    assert!(labels.get("rbac.authorization.k8s.io/aggregate-to-view").is_none());
    let write = ["create", "update", "patch", "delete", "deletecollection"];
    assert_eq!(rules, of_each_kind(&[&read[..], &write].concat()));
}

#[test]
fn callers_get_what_the_routes_ask_for_by_the_invoker_role() {
    let (labels, rules) = cluster_role(&render(&[]), "r-authlink-invoker");
    let asked = gateway::permissions().into_iter();
    let asked: BTreeSet<_> = asked.map(|it| format!("authlink.dev/{} {}", it.resource(), it.verb)).collect();
    assert_eq!(rules, asked);
    let labels = labels.as_object().unwrap();
    assert!(labels.keys().all(|label| !label.contains("aggregate-to")), "it is bound to nobody: {labels:?}");
}
