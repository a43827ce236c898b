//! The table of kinds: everything that a kind needs beside its line there.

use authlink::{api::Kind, gateway};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    commands::{authlink, files, root},
    crds::golden,
};

/// What the chart needs to know of the kinds.
#[derive(Serialize)]
struct Table {
    kinds: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    plural: String,
    /// Whether the operator sets one.
    finalizer: bool,
    /// What the gateway asks of its callers.
    permissions: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    resource: String,
    verb: &'static str,
}

impl Entry {
    fn new(kind: Kind) -> Self {
        let permissions = gateway::permissions().into_iter().filter(|it| it.kind == kind);
        Self {
            plural: kind.plural(),
            finalizer: kind.has_finalizer(),
            permissions: permissions.map(|it| Rule { resource: it.resource(), verb: it.verb }).collect(),
        }
    }
}

#[test]
fn the_chart_has_the_generated_table() {
    let table = Table { kinds: Kind::ALL.iter().map(|kind| Entry::new(*kind)).collect() };
    let head = "# Generated from the table of kinds: UPDATE_GOLDEN=1 cargo test --test it kinds\n";
    let yaml = serde_saphyr::to_string(&table).unwrap();
    golden(&root().join("charts/authlink/files/kinds.yaml"), &format!("{head}{yaml}"));
}

#[test]
fn each_kind_has_its_files_under_the_same_name() {
    for kind in Kind::ALL {
        let (stem, plural) = (kind.stem(), kind.plural());
        let files = [
            format!("src/api/v1alpha1/{stem}.rs"),
            format!("src/controllers/{stem}.rs"),
            format!("src/gateway/{stem}.rs"),
            format!("tests/it/{stem}.rs"),
            format!("crds/{plural}.authlink.dev.yaml"),
            format!("charts/authlink/files/crds/{plural}.authlink.dev.yaml"),
        ];
        for file in files {
            assert!(root().join(&file).is_file(), "the kind {kind} lacks {file}");
        }
    }
}

#[test]
fn each_kind_is_in_the_field_reference() {
    let reference = std::fs::read_to_string(root().join("crds/README.md")).unwrap();
    for kind in Kind::ALL {
        for heading in
            [format!("\n## {kind} ("), format!("\n### {kind} spec\n"), format!("\n### {kind} status\n")]
        {
            assert!(reference.contains(&heading), "crds/README.md lacks {heading}");
        }
    }
}

#[test]
fn each_kind_has_an_example_that_check_knows() {
    for kind in Kind::ALL {
        let mut manifests = examples(*kind);
        // Suspended, so that nothing is probed.
        for manifest in &mut manifests {
            manifest["spec"]["suspend"] = json!(true);
        }
        let text: Vec<_> = manifests.iter().map(Value::to_string).collect();
        let said = authlink(&["check", "-f", "-", "--output", "json"], &text.join("\n---\n"));
        let findings: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        assert!(!findings.is_empty(), "the kind {kind} lacks an example");
        for finding in findings {
            assert_eq!(
                (&finding["kind"], &finding["reason"]),
                (&json!(kind.as_str()), &json!("Suspended")),
                "{finding}"
            );
        }
    }
}

/// The objects of a kind in its examples.
fn examples(kind: Kind) -> Vec<Value> {
    let stem = kind.stem().replace('_', "-");
    let mut found = Vec::new();
    for file in files("crds/examples", ".yaml") {
        if file.file_name().unwrap().to_string_lossy().starts_with(&stem) {
            let text = std::fs::read_to_string(file).unwrap();
            found.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
        }
    }
    found.retain(|manifest| manifest["kind"] == kind.as_str());
    found
}
