//! The floors of the house: a lower one never imports a higher one. And no file is too long to read.

mod source;

use std::path::{Path, PathBuf};

use source::{code_of, roots_of};

use crate::commands::root;

/// The floors from below; those of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["api"],
    &["domain"],
    &["backends", "cluster", "store"],
    &["probing", "resolving", "delivery", "sync"],
    &["controllers", "gateway"],
    &["runtime"],
    &["cli", "main", "lib"],
];

/// A leaf: it uses `api` alone, and is there for everything that does IO.
const LEAF: &str = "telemetry";

/// Where the API server is talked to.
const CLIENTS: &[&str] = &["cluster", "controllers", "runtime"];

const MAX_LINES: usize = 400;

pub(crate) fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { files_under(&path, found) } else { found.push(path) }
    }
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Whether `from` may name `to`.
fn may_import(from: &str, to: &str) -> bool {
    match (from, to) {
        _ if from == to => true,
        (LEAF, to) => to == "api",
        (from, LEAF) => floor_of(from).is_some_and(|floor| floor >= 2),
        (from, to) => match (floor_of(from), floor_of(to)) {
            (Some(from), Some(to)) => to < from,
            _ => false,
        },
    }
}

/// What a file of the module, so many modules deep, does that its floor may not.
fn offences(module: &str, depth: usize, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    if floor_of(module).is_none() && module != LEAF {
        found.push(format!("{module} is on no floor"));
    }
    let modules = |name: &&String| floor_of(name).is_some() || *name == LEAF;
    // From as deep as this, and from a module of tests in it, the crate can also be reached by `super`.
    let roots =
        ["crate".to_owned(), ["super"].repeat(depth).join("::"), ["super"].repeat(depth + 1).join("::")];
    let named: Vec<_> = roots.iter().flat_map(|root| roots_of(&code, root)).collect();
    for to in named.iter().filter(modules) {
        if !may_import(module, to) {
            found.push(format!("{module} imports {to}"));
        }
    }
    let uses = |name: &str| !roots_of(&code, name).is_empty();
    let client =
        |name: &String| ["Client", "Api", "Config", "client", "config", "runtime"].contains(&name.as_str());
    if !CLIENTS.contains(&module) && roots_of(&code, "kube").iter().any(client) {
        found.push(format!("{module} uses the client of kube"));
    }
    if module == "backends" && (uses("kube") || uses("k8s_openapi")) {
        found.push("backends knows of Kubernetes".to_owned());
    }
    if ["api", "domain"].contains(&module) {
        let words = code.split(|char: char| !char.is_alphanumeric() && char != '_');
        if uses("tokio") || uses("futures") || words.clone().any(|word| word == "async" || word == "await") {
            found.push(format!("{module} is async"));
        }
        if ["std::fs", "std::net", "std::env", "::now("].iter().any(|name| code.contains(name)) {
            found.push(format!("{module} asks the world"));
        }
    }
    found
}

#[test]
fn imports_only_go_down() {
    let mut files = Vec::new();
    files_under(&root().join("src"), &mut files);
    assert!(files.len() > 40, "there are files to look at");
    let mut all = Vec::new();
    for file in files {
        let path = file.strip_prefix(root().join("src")).unwrap();
        let top = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let text = std::fs::read_to_string(&file).unwrap();
        let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
        all.extend(
            offences(top, depth, &text).into_iter().map(|offence| format!("{}: {offence}", path.display())),
        );
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_wrong_import_is_found_wherever_it_stands() {
    let samples = [
        ("api", "use crate::domain::health::Health;", "api imports domain"),
        ("domain", "use crate::{api::Reason, backends::{Fault, transport}};", "domain imports backends"),
        ("backends", "fn f() { crate::cluster::objects::go() }", "backends imports cluster"),
        ("cluster", "use crate::{\n  api::Reason,\n  store,\n};", "cluster imports store"),
        ("probing", "use crate::controllers::Context as Cx;", "probing imports controllers"),
        ("gateway", "use crate::controllers::Error;", "gateway imports controllers"),
        ("telemetry", "use crate::domain::backoff;", "telemetry imports domain"),
        ("domain", "use crate::telemetry::metrics::Metrics;", "domain imports telemetry"),
        ("api", "use super::super::domain::health;", "api imports domain"),
        ("api", "mod tests { use super::super::super::{domain}; }", "api imports domain"),
        ("probing", "use kube::{Client, ResourceExt};", "probing uses the client of kube"),
        ("api", "fn f(_: kube::Api<Secret>) {}", "api uses the client of kube"),
        ("backends", "use k8s_openapi::api::core::v1::Secret;", "backends knows of Kubernetes"),
        ("backends", "fn f(error: kube::Error) {}", "backends knows of Kubernetes"),
        ("domain", "async fn f() {}", "domain is async"),
        ("api", "use tokio::sync::watch;", "api is async"),
        ("domain", "fn f() { let _ = Timestamp::now(); }", "domain asks the world"),
        ("news", "", "news is on no floor"),
    ];
    for (module, text, offence) in samples {
        assert_eq!(offences(module, 2, text), [offence], "{text}");
    }
}

#[test]
fn a_right_import_is_let_through_and_so_are_comments_and_texts() {
    let samples = [
        ("runtime", "use crate::{api::Reason, cluster::fence::Fence, telemetry::log};"),
        ("api", "use kube::{CustomResource, KubeSchema}; use super::{Reason, super::api, domain};"),
        ("backends", "use crate::{api::Reason, domain::conditions::advise, telemetry::metrics::Metrics};"),
        ("domain", "// crate::runtime\n/* async tokio::spawn */ fn f() -> char { 'a' }"),
        ("domain", r##"const A: &str = "crate::runtime"; const B: &str = r#"async "tokio::x" "#;"##),
        ("domain", "fn f<'a>(x: &'a str, quote: char) -> bool { quote == '\"' && x == \"crate::cli\" }"),
        ("controllers", "use kube::{Api, runtime::{controller::Action}}; use crate::probing::Schedule;"),
    ];
    for (module, text) in samples {
        assert_eq!(offences(module, 2, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    let mut files = Vec::new();
    for folder in ["src", "tests", "e2e", "benches", ".ci"] {
        files_under(&root().join(folder), &mut files);
    }
    let long = files.iter().filter_map(|file| {
        let written = match file.extension() {
            Some(kind) => ["rs", "sh", "go", "py"].iter().any(|known| kind == *known),
            None => true,
        };
        let text = std::fs::read_to_string(file).ok().filter(|_| written)?;
        let lines = text.lines().count();
        // A file without an extension is a script if it says so.
        let script = file.extension().is_some() || text.starts_with("#!");
        (script && lines > MAX_LINES).then(|| format!("{}: {lines} lines", file.display()))
    });
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
