//! The chart in a cluster: no upgrade and no end of a release takes users' objects away.

use serde_json::json;

use super::{APART, helm};
use crate::commands::{Place, kubectl};

/// A release in a namespace of its own.
struct Release {
    name: String,
    place: Place,
}

impl Release {
    fn install(name: &str, settings: &[&str]) -> Self {
        let place = Place::new(name);
        let release = Self { name: format!("{name}-{}", std::process::id()), place };
        // The CRDs may be there already, from another test.
        let own = ["charts/authlink", "--take-ownership", "--force-conflicts"];
        release.helm("install", &[&own[..], &set(settings)].concat());
        release
    }

    /// With these settings, and the defaults for all others.
    fn upgrade(&self, settings: &[&str]) {
        let own = ["charts/authlink", "--reset-values", "--force-conflicts"];
        self.helm("upgrade", &[&own[..], &set(settings)].concat());
    }

    fn helm(&self, verb: &str, more: &[&str]) {
        helm(&[&[verb, self.name.as_str()], more, &["--namespace", self.place.name()]].concat()).well();
    }

    fn field(&self, what: &str, path: &str) -> String {
        self.place.kubectl(&["get", what, "-o", &format!("jsonpath={{{path}}}")], "").well()
    }

    /// The names of the workloads, as kind and name.
    fn workloads(&self) -> Vec<String> {
        let found = self.place.kubectl(&["get", "statefulsets,deployments", "-o", "name"], "").well();
        let names = found.lines().map(|name| name.replace(&self.name, "r").replace(".apps", ""));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn set<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

#[test]
fn upgrades_and_the_end_of_a_release_keep_crds_and_objects() {
    let release = Release::install("release", &[]);
    let database = json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": "Database", "metadata": { "name": "orders" },
        "spec": { "type": "redis", "host": "redis.example.com", "suspend": true },
    });
    release.place.kubectl(&["create", "-f", "-"], &database.to_string()).well();
    let uid = release.field("database/orders", ".metadata.uid");
    let crd_uid = release.field("crd/databases.authlink.dev", ".metadata.uid");
    let set = format!("statefulset/{}-authlink", release.name);
    assert_eq!(release.field(&set, ".spec.replicas"), "1");

    let namespaces = format!("watchNamespaces={{{}}}", release.place.name());
    release.upgrade(&[&namespaces, "logLevel=debug"]);
    let arguments = release.field(&set, ".spec.template.spec.containers[0].args");
    assert!(arguments.contains("--log-level=debug"), "{arguments}");
    assert_eq!(release.field("database/orders", ".metadata.uid"), uid);

    // Taking the CRDs out of the release must not take them out of the cluster.
    release.upgrade(&["crds.install=false"]);
    release.helm("uninstall", &[]);
    let gone = release.place.kubectl(&["get", &set], "");
    assert!(gone.err.contains("not found"), "{gone:?}");
    assert_eq!(release.field("database/orders", ".metadata.uid"), uid);
    assert_eq!(release.field("crd/databases.authlink.dev", ".metadata.uid"), crd_uid);
    let label = format!("app.kubernetes.io/instance={}", release.name);
    let roles = kubectl(&["get", "clusterroles", "-l", &label], "");
    assert!(roles.err.contains("No resources found"), "{roles:?}");
}

/// Earlier charts had a Deployment where the StatefulSet is now, as the layout with PostgreSQL has.
#[test]
fn an_upgrade_leads_from_each_layout_to_the_other_and_keeps_the_certificate() {
    let release = Release::install("layout", &["crds.install=false", "gateway.tls.enabled=true"]);
    let secret = format!("secret/{}-authlink-gateway-tls", release.name);
    let certificate = release.field(&secret, ".data");
    assert!(certificate.contains("ca.crt"), "{certificate}");
    assert_eq!(release.workloads(), ["statefulset/r-authlink"]);
    for _ in 0..2 {
        release.upgrade(&["crds.install=false", "gateway.tls.enabled=true", APART]);
        assert_eq!(release.workloads(), ["deployment/r-authlink", "deployment/r-authlink-gateway"]);
        assert_eq!(release.field(&secret, ".data"), certificate);
        release.upgrade(&["crds.install=false", "gateway.tls.enabled=true"]);
        assert_eq!(release.workloads(), ["statefulset/r-authlink"]);
        assert_eq!(release.field(&secret, ".data"), certificate);
    }
    release.helm("uninstall", &[]);
    assert!(release.workloads().is_empty());
}
