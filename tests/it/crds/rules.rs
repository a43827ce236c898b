//! Every rule, asked of a real API server and of `authlink check`, which must agree.

mod database;
mod external_api;
mod webhook;

use authlink::runtime::check::Schemas;
use serde_json::{Value, json};

use crate::commands::Place;

/// A spec, what the API server says of it, and what `authlink check` says.
type Refused = (Value, &'static str, &'static str);

fn manifest(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": kind, "metadata": { "name": "orders" }, "spec": spec,
    })
}

#[test]
fn bad_manifests_are_refused_by_the_api_server_and_by_check_alike() {
    let place = Place::new("rules");
    let schemas = Schemas::new().unwrap();
    let all = [
        ("Database", database::refused()),
        ("Database", database::refused_addresses()),
        ("ExternalApi", external_api::refused()),
        ("Webhook", webhook::refused()),
    ];
    for (kind, refused) in all {
        let schema = schemas.kind("authlink.dev/v1alpha1", kind).unwrap();
        for (spec, by_server, by_check) in refused {
            let manifest = manifest(kind, &spec);
            let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
            let said = place.kubectl(&create, &manifest.to_string());
            let refused = said.code == Some(1) && said.err.contains(by_server);
            assert!(refused, "{spec}: wanted {by_server}: {said:?}");
            let problems = schema.admit(&mut manifest.clone()).join("; ");
            assert!(problems.contains(by_check), "{spec}: wanted {by_check}: {problems}");
        }
    }
}

#[test]
fn good_manifests_are_taken_by_the_api_server_and_by_check_with_the_same_defaults() {
    let place = Place::new("defaults");
    let schemas = Schemas::new().unwrap();
    let all =
        [("Database", database::good()), ("ExternalApi", external_api::good()), ("Webhook", webhook::good())];
    for (kind, good) in all {
        let schema = schemas.kind("authlink.dev/v1alpha1", kind).unwrap();
        for spec in good {
            let mut manifest = manifest(kind, &spec);
            let create = ["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"];
            let stored: Value =
                serde_json::from_str(&place.kubectl(&create, &manifest.to_string()).well()).unwrap();
            assert_eq!(schema.admit(&mut manifest), Vec::<String>::new(), "{spec}");
            assert_eq!(manifest["spec"], stored["spec"]);
        }
    }
}
