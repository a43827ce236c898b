//! The Helm chart: what it renders, what it refuses, and that no release takes users' objects away.

use std::collections::BTreeSet;

use authlink::api::all_crds;
use serde_json::{Value, json};

use crate::commands::{Place, Said, authlink, kubectl, root, run, scratch, with_cluster};

fn helm(arguments: &[&str]) -> Said {
    let home = scratch("helm");
    let mut command = with_cluster("helm", arguments);
    let command = command.current_dir(root()).env("HELM_CACHE_HOME", &home);
    run(command.env("HELM_CONFIG_HOME", &home).env("HELM_DATA_HOME", &home), "")
}

/// The rendered objects, for a release `r` in the namespace `home`.
fn render(settings: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "r", "charts/authlink", "--namespace", "home"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    serde_saphyr::from_multiple(&helm(&arguments).well()).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

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
    let kinds = all_crds().into_iter().map(|crd| crd.spec.names.plural).flat_map(|kind| {
        ["list", "watch"]
            .map(|verb| format!("authlink.dev/{kind} {verb}"))
            .into_iter()
            .chain([format!("authlink.dev/{kind}/status patch")])
    });
    let others = [
        "authlink.dev/serviceregistrations patch",
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

#[test]
fn helm_finds_nothing_to_complain_about() {
    helm(&["lint", "--strict", "charts/authlink"]).well();
}

#[test]
fn chart_app_and_crate_have_one_version() {
    let chart = std::fs::read_to_string(root().join("charts/authlink/Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&chart).unwrap();
    let version = json!(env!("CARGO_PKG_VERSION"));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version, &version));
}

#[test]
fn bad_values_are_refused_with_the_place_and_what_is_wanted() {
    let rows = [
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("logLevel=loud", "at '/logLevel': value must be one of 'error', 'warn', 'info', 'debug', 'trace'"),
        ("watchNamespaces={Bad_Name}", "at '/watchNamespaces/0': 'Bad_Name' does not match pattern"),
        ("statusRefresh=30", "at '/statusRefresh': got number, want string"),
        ("image.digest=abc", "at '/image/digest': 'abc' does not match pattern"),
        ("concurrency=0", "at '/concurrency': minimum: got 0, want 1"),
        ("watchNamespaces={a,a}", "at '/watchNamespaces': items at 0 and 1 are equal"),
    ];
    for (setting, message) in rows {
        let said = helm(&["template", "r", "charts/authlink", "--set", setting]);
        assert!(said.code == Some(1) && said.err.contains(message), "{setting}: {said:?}");
    }
}

#[test]
fn the_pod_runs_with_flags_that_the_program_knows() {
    let help = authlink(&["run", "--help"], "").well();
    let settings = [
        "watchNamespaces={a,b}",
        "extraArgs={--pass-deadline=30s}",
        "gateway.tls.secretName=cert",
        "egress.allowCIDRs={10.0.0.0/8}",
        "egress.clusterCIDRs={10.96.0.0/12,10.244.0.0/16}",
    ];
    for settings in [&[][..], &settings[..]] {
        let objects = render(settings);
        let container = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        let arguments = texts(&container["args"]);
        assert_eq!(arguments[0], "run");
        for flag in &arguments[1..] {
            let name = flag.split('=').next().unwrap();
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{name} <"))), "{flag}");
        }
        // The values too: with --help at the end, everything before it is read first.
        authlink(&[&arguments[..], &["--help"]].concat(), "").well();
    }
}

#[test]
fn the_whole_cluster_is_watched_by_one_cluster_role() {
    let objects = render(&["rbac.aggregate=false", "gateway.enabled=false"]);
    let roles = of_kind(&objects, "ClusterRole");
    assert_eq!(roles.len(), 1);
    assert_eq!(allowed(roles[0]), operators_rules());
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

#[test]
fn the_gateway_may_ask_who_calls_and_its_port_is_there_by_tls_or_without() {
    let objects = render(&["rbac.aggregate=false"]);
    let roles = of_kind(&objects, "ClusterRole");
    let role = roles.into_iter().find(|role| role["metadata"]["name"] == "r-authlink-gateway").unwrap();
    let reviews =
        ["authentication.k8s.io/tokenreviews create", "authorization.k8s.io/subjectaccessreviews create"];
    assert_eq!(allowed(role), reviews.map(str::to_owned).into());
    let port = |objects: &[Value]| of_kind(objects, "Service")[0]["spec"]["ports"][1]["port"].clone();
    assert_eq!(port(&objects), 80);
    let secured = render(&["gateway.tls.secretName=cert"]);
    assert_eq!(port(&secured), 443);
    let pod = &of_kind(&secured, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "cert");
    let without = render(&["gateway.enabled=false"]);
    assert_eq!(of_kind(&without, "Service")[0]["spec"]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn without_bindings_the_operator_can_write_no_secret() {
    let objects = render(&["rbac.bindings=false", "rbac.aggregate=false"]);
    let rules = allowed(of_kind(&objects, "ClusterRole")[0]);
    let secrets: Vec<_> = rules.iter().filter(|rule| rule.starts_with("/secrets")).collect();
    assert_eq!(secrets, ["/secrets get", "/secrets list", "/secrets watch"]);
}

#[test]
fn users_get_the_kinds_by_the_built_in_roles() {
    let objects = render(&[]);
    let role = |name: &str| {
        let roles = of_kind(&objects, "ClusterRole");
        let role = roles.into_iter().find(|role| role["metadata"]["name"] == name).unwrap().clone();
        (role["metadata"]["labels"].clone(), allowed(&role))
    };
    let (labels, rules) = role("r-authlink-view");
    assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    assert!(
        rules.iter().all(|rule| rule.ends_with("get") || rule.ends_with("list") || rule.ends_with("watch"))
    );
    let (labels, rules) = role("r-authlink-edit");
    assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
    assert!(labels.get("rbac.authorization.k8s.io/aggregate-to-view").is_none());
    for kind in all_crds().into_iter().map(|crd| crd.spec.names.plural) {
        assert!(rules.contains(&format!("authlink.dev/{kind} create")), "{rules:?}");
    }
}

/// The dotted paths of all values that are not objects, or empty ones.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => drop(found.insert(path.to_owned())),
        Some(fields) => fields.iter().for_each(|(name, value)| {
            leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
        }),
    }
}

#[test]
fn the_readme_describes_every_value_and_no_other() {
    let read = |file: &str| std::fs::read_to_string(root().join("charts/authlink").join(file)).unwrap();
    let mut values = BTreeSet::new();
    leaves(&serde_saphyr::from_str(&read("values.yaml")).unwrap(), "", &mut values);
    let readme = read("README.md");
    let section = readme.split("\n## Values\n").nth(1).unwrap();
    let described: BTreeSet<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let covers = |row: &str, value: &str| value == row || value.starts_with(&format!("{row}."));
    for value in &values {
        assert!(described.iter().any(|row| covers(row, value)), "README.md does not describe {value}");
    }
    for row in described {
        assert!(
            values.iter().any(|value| covers(row, value)),
            "README.md describes {row}, which is no value"
        );
    }
}

#[test]
fn upgrades_and_the_end_of_a_release_keep_crds_and_objects() {
    let place = Place::new("release");
    let release = format!("release-{}", std::process::id());
    let namespace = place.name();
    let helm = |verb: &[&str], more: &[&str]| {
        helm(&[verb, &[release.as_str()], more, &["--namespace", namespace]].concat())
    };
    // The CRDs may be there already, from another test.
    let install = ["charts/authlink", "--take-ownership", "--force-conflicts", "--set", "replicas=1"];
    helm(&["install"], &install).well();
    let database = json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": "Database", "metadata": { "name": "orders" },
        "spec": { "type": "redis", "host": "redis.example.com", "suspend": true },
    });
    place.kubectl(&["create", "-f", "-"], &database.to_string()).well();
    let field = |what: &str, path: &str| {
        place.kubectl(&["get", what, "-o", &format!("jsonpath={{{path}}}")], "").well()
    };
    let uid = field("database/orders", ".metadata.uid");
    let crd_uid = field("crd/databases.authlink.dev", ".metadata.uid");
    let deployment = format!("deployment/{release}-authlink");
    assert_eq!(field(&deployment, ".spec.replicas"), "1");

    let upgrade = ["charts/authlink", "--reset-values", "--force-conflicts", "--set"];
    let namespaces = format!("watchNamespaces={{{namespace}}}");
    helm(&["upgrade"], &[&upgrade[..], &[&namespaces, "--set", "logLevel=debug"]].concat()).well();
    assert_eq!(field(&deployment, ".spec.replicas"), "2");
    assert!(field(&deployment, ".spec.template.spec.containers[0].args").contains("--log-level=debug"));
    assert_eq!(field("database/orders", ".metadata.uid"), uid);

    // Taking the CRDs out of the release must not take them out of the cluster.
    helm(&["upgrade"], &[&upgrade[..], &["crds.install=false"]].concat()).well();
    helm(&["uninstall"], &[]).well();
    let gone = place.kubectl(&["get", &deployment], "");
    assert!(gone.err.contains("not found"), "{gone:?}");
    assert_eq!(field("database/orders", ".metadata.uid"), uid);
    assert_eq!(field("crd/databases.authlink.dev", ".metadata.uid"), crd_uid);
    let roles = kubectl(&["get", "clusterroles", "-l", &format!("app.kubernetes.io/instance={release}")], "");
    assert!(roles.err.contains("No resources found"), "{roles:?}");
}
