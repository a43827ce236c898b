//! The CRDs: generated, applied, and what they refuse.

mod reference;
mod rules;

use std::path::Path;

use authlink::api::{all_crds, to_yaml};
use serde_json::{Value, json};

use crate::commands::{Place, files, kubectl, root};

/// Compares a generated file, or writes it with UPDATE_GOLDEN=1.
#[track_caller]
pub(crate) fn golden(file: &Path, generated: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, generated).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(committed == generated, "{} is old: run the tests with UPDATE_GOLDEN=1", file.display());
}

#[test]
fn the_committed_crds_are_the_generated_ones_and_the_chart_has_the_same() {
    let mut names = Vec::new();
    for crd in all_crds() {
        let name = format!("{}.yaml", crd.metadata.name.as_deref().unwrap());
        let yaml = to_yaml(&crd).unwrap();
        golden(&root().join("crds").join(&name), &yaml);
        golden(&root().join("charts/authlink/files/crds").join(&name), &yaml);
        names.push(name);
    }
    for folder in ["crds", "charts/authlink/files/crds"] {
        let found = files(folder, ".yaml");
        assert_eq!(found.len(), names.len(), "{folder} has files of kinds that are gone: {found:?}");
    }
}

#[test]
fn the_field_reference_is_the_generated_one() {
    golden(&root().join("crds/README.md"), &reference::render(&all_crds()));
}

#[test]
fn the_api_server_takes_the_crds_without_a_warning() {
    let apply =
        ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f"];
    for crd in files("crds", ".yaml") {
        let said = kubectl(&[&apply[..], &[&crd.to_string_lossy()]].concat(), "");
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", crd.display());
    }
}

const MINIMAL: &str = "\
apiVersion: authlink.dev/v1alpha1
kind: Database
metadata: {name: orders}
spec: {type: postgresql, host: db.example.com}
";

#[test]
fn a_new_object_is_pending_at_once() {
    let place = Place::new("pending");
    let created =
        place.kubectl(&["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"], MINIMAL);
    let created: Value = serde_json::from_str(&created.well()).unwrap();
    let conditions = created["status"]["conditions"].as_array().unwrap();
    let kinds: Vec<_> = conditions.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Ready", "Accepted", "ResolvedRefs", "Connected", "Healthy", "PoolHealthy"]);
    for condition in conditions {
        assert_eq!((&condition["status"], &condition["reason"]), (&"Unknown".into(), &"Pending".into()));
    }
    assert_eq!(created["spec"]["pool"]["max"], 10);
    // A URI may say what it is.
    assert_eq!(created["spec"]["tls"], json!({}));
}

#[test]
fn kubectl_lists_the_objects_of_every_kind_in_columns() {
    let place = Place::new("columns");
    place.kubectl(&["create", "-f", "-"], &MINIMAL.replace("{type", "{suspend: true, type")).well();
    let listed = place.kubectl(&["get", "auth-integrations"], "").well();
    let header: Vec<_> = listed.lines().next().unwrap().split_whitespace().collect();
    let columns = ["NAME", "READY", "HEALTHY", "REASON", "ENGINE", "VERSION", "POOL", "LAST-CHANGE", "AGE"];
    assert_eq!(header, columns);
    assert!(
        listed.contains("orders") && listed.contains("Unknown") && listed.contains("postgresql"),
        "{listed}"
    );
    let wide = place.kubectl(&["get", "adb", "-o", "wide"], "").well();
    assert!(wide.contains("ENDPOINT") && wide.contains("MESSAGE"), "{wide}");
    let selected = place.kubectl(&["get", "adb", "--field-selector=spec.type=redis"], "");
    assert!(selected.err.contains("No resources found"), "{selected:?}");
}

#[test]
fn kubectl_lists_external_apis_by_their_short_name() {
    let place = Place::new("apis");
    let api = "\
apiVersion: authlink.dev/v1alpha1
kind: ExternalApi
metadata: {name: billing}
spec: {suspend: true, endpoints: [{url: \"https://billing.example.com\"}]}
";
    place.kubectl(&["create", "--validate=strict", "-f", "-"], api).well();
    let wide = place.kubectl(&["get", "eapi", "-o", "wide"], "").well();
    let header: Vec<_> = wide.lines().next().unwrap().split_whitespace().collect();
    let columns =
        ["NAME", "READY", "HEALTHY", "REASON", "ENDPOINTS", "LAST-CHANGE", "AGE", "ENDPOINT", "MESSAGE"];
    assert_eq!(header, columns);
    assert!(
        wide.contains("billing") && wide.contains("waiting for the operator's first reconcile"),
        "{wide}"
    );
}

#[test]
fn kubectl_explains_fields_with_their_defaults() {
    let explained = kubectl(&["explain", "databases.authlink.dev.spec.pool.max"], "").well();
    assert!(
        explained.contains("<integer>") && explained.contains("From 1 to 1000. Defaults to 10."),
        "{explained}"
    );
    let explained = |field: &str| {
        let text = kubectl(&["explain", &format!("databases.authlink.dev.spec.{field}")], "").well();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let interval = explained("healthCheck.interval");
    assert!(interval.contains("; at least 100ms. Defaults to 30s."), "{interval}");
    let lifetime = explained("pool.maxLifetime");
    assert!(lifetime.contains("From 1ms to 24h. Defaults to 1800s."), "{lifetime}");
}
