//! The Helm chart: what it renders, what it refuses, and that no release takes users' objects away.

mod layouts;
mod metrics;
mod release;
mod rights;
mod tls;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::commands::{Said, authlink, root, run, scratch, with_cluster};

fn helm(arguments: &[&str]) -> Said {
    let home = scratch("helm");
    let mut command = with_cluster("helm", arguments);
    let command = command.current_dir(root()).env("HELM_CACHE_HOME", &home);
    run(command.env("HELM_CONFIG_HOME", &home).env("HELM_DATA_HOME", &home), "")
}

/// With it, operators and gateways are apart.
const APART: &str = "store.postgres.uriSecretRef.name=store";

/// What `helm template` says, for a release `r` in the namespace `home`.
fn template(settings: &[&str]) -> Said {
    let mut arguments = vec!["template", "r", "charts/authlink", "--namespace", "home"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    helm(&arguments)
}

/// The rendered objects.
fn render(settings: &[&str]) -> Vec<Value> {
    serde_saphyr::from_multiple(&template(settings).well()).unwrap()
}

/// The one of this kind and name.
fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// What runs pods.
fn workloads(objects: &[Value]) -> Vec<&Value> {
    ["StatefulSet", "Deployment"].into_iter().flat_map(|kind| of_kind(objects, kind)).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
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
        ("store.persistence.size=big", "at '/store/persistence/size': 'big' does not match pattern"),
        (
            "store.persistence.accessModes={ReadOnlyMany}",
            "at '/store/persistence/accessModes/0': value must be",
        ),
        ("store.postgres.uri=x", "at '/store/postgres': additional properties 'uri' not allowed"),
        (
            "gateway.autoscaling.minReplicas=0",
            "at '/gateway/autoscaling/minReplicas': minimum: got 0, want 1",
        ),
        (
            "gateway.serviceAccount.create=false",
            "at '/gateway/serviceAccount/name': minLength: got 0, want 1",
        ),
        ("gateway.tls.secretName=cert", "gateway.tls.secretName is set, and gateway.tls.enabled is not"),
        (
            "gateway.tls.certManager.issuerRef.name=ca",
            "gateway.tls.certManager.issuerRef.name is set, and gateway.tls.enabled is not",
        ),
        ("concurrency=1001", "at '/concurrency': maximum: got 1,001, want 1,000"),
        (
            "egress.allowCIDRs={10.0.0.0/33}",
            "at '/egress/allowCIDRs/0': '10.0.0.0/33' does not match pattern",
        ),
        ("egress.allowCIDRs={fd00::/129}", "at '/egress/allowCIDRs/0': 'fd00::/129' does not match pattern"),
    ];
    for (setting, message) in rows {
        let said = template(&[setting]);
        assert!(said.code == Some(1) && said.err.contains(message), "{setting}: {said:?}");
    }
}

#[test]
fn the_pod_runs_with_flags_that_the_program_knows() {
    let help = authlink(&["run", "--help"], "").well();
    let settings = [
        "watchNamespaces={a,b}",
        "extraArgs={--reconcile-timeout=30s}",
        "gateway.tls.enabled=true",
        "egress.allowCIDRs={10.0.0.0/8}",
        "egress.clusterCIDRs={10.96.0.0/12,10.244.0.0/16}",
    ];
    let apart = [&settings[..], &[APART]].concat();
    for settings in [&[][..], &settings[..], &apart[..]] {
        let objects = render(settings);
        for workload in workloads(&objects) {
            let container = &workload["spec"]["template"]["spec"]["containers"][0];
            let arguments = texts(&container["args"]);
            assert_eq!(arguments[0], "run");
            for flag in &arguments[1..] {
                let name = flag.split('=').next().unwrap();
                assert!(
                    help.lines().any(|line| line.trim_start().starts_with(&format!("{name} <"))),
                    "{flag}"
                );
            }
            // The values too: with --help at the end, everything before it is read first.
            authlink(&[&arguments[..], &["--help"]].concat(), "").well();
        }
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
