//! The metrics that the chart's dashboard and alerts ask for.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::{
    commands::root,
    layers::files_under,
    support::{Namespace, Operator, SOON, System, eventually, password_secret},
};

/// The names in a file of the chart, as a page of metrics declares them.
fn asked(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("charts/authlink").join(file)).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("authlink_"));
    let suffixes = ["_total", "_bucket", "_info"];
    let family = |name: &str| suffixes.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name).to_owned();
    names.map(family).collect()
}

#[tokio::test]
async fn every_metric_that_the_dashboard_and_the_alerts_ask_for_is_declared_once() {
    let namespace = Namespace::create().await;
    let operator = Operator::start(&namespace, &[]).await;
    // What never happened has no metric: a probe, a pass that fails and a changed credential do happen here.
    namespace.database("db", &System::Redis.spec().probed_often()).await;
    let nowhere = System::Redis.spec().with(&json!({ "credentialsRef": { "name": "missing" } }));
    namespace.database("nowhere", &nowhere).await;
    namespace.ready("db").await;
    namespace.apply::<Secret>(password_secret("login", "app", "mistyped-password")).await;

    let asked = [asked("files/dashboard.json"), asked("files/alerts.yaml")];
    assert!(asked.iter().all(|names| names.len() > 1), "{asked:?}");
    let asked: BTreeSet<_> = asked.into_iter().flatten().collect();
    let declared = eventually(SOON, "all of them", async || {
        let page = operator.metrics();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let declared: Vec<_> = types.map(str::to_owned).collect();
        let missing: Vec<_> = asked.iter().filter(|name| !declared.contains(name)).collect();
        if missing.is_empty() { Ok(declared) } else { Err(format!("without {missing:?}")) }
    })
    .await;
    assert_eq!(declared.iter().collect::<BTreeSet<_>>().len(), declared.len(), "{declared:?}");
}

/// No one process brings all of them about, so they are looked up in the source.
#[test]
fn the_readme_describes_metrics_that_there_are() {
    let mut files = Vec::new();
    files_under(&root().join("src"), &mut files);
    let source: String = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let described = asked("README.md");
    assert!(described.len() > 10, "{described:?}");
    for name in described {
        let word = name.trim_start_matches("authlink_");
        let words = [word, word.trim_end_matches("_seconds")].map(|word| format!("\"{word}\""));
        assert!(words.iter().any(|word| source.contains(word)), "{name}");
    }
}
