//! The cluster itself fails: the operator neither ends nor tells lies, and goes on when it is back.
//!
//! These break an API server, so they have one of their own.

use std::{path::PathBuf, process::Command};

use authlink::api::{all_crds, v1alpha1::Database};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{conditions::is_crd_established, wait::await_condition},
};

use crate::support::{
    Namespace, Operator, SOON, System, client_of, condition, eventually, free_port, test_dir, variable,
};

/// A Kubernetes API of its own, stopped with the value.
struct Cluster {
    dir: PathBuf,
}

impl Cluster {
    fn start() -> Self {
        let (api, etcd) = (free_port(), free_port());
        let cluster = Self { dir: test_dir().join(format!("cluster-{api}")) };
        let mut up = Command::new(PathBuf::from(variable("AUTHLINK_E2E")).join("cluster/up"));
        up.arg(&cluster.dir).arg("api");
        up.env("AUTHLINK_PORT_API", api.to_string()).env("AUTHLINK_PORT_ETCD", etcd.to_string());
        let started = up.status().expect("e2e/cluster/up runs");
        assert!(started.success(), "no second cluster");
        cluster
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A client, once the CRDs are installed.
    async fn client(&self) -> Client {
        let client = client_of(&self.kubeconfig()).await;
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        for crd in all_crds() {
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(&crd)).await.expect("a CRD");
            await_condition(crds.clone(), &name, is_crd_established()).await.expect("the CRD is served");
        }
        client
    }

    fn component(&self, verb: &str, name: &str) {
        let mut command = Command::new(PathBuf::from(variable("AUTHLINK_E2E")).join("cluster/component"));
        let done = command.arg(&self.dir).args([verb, name]).status().expect("e2e/cluster/component runs");
        assert!(done.success(), "{verb} {name}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(PathBuf::from(variable("AUTHLINK_E2E")).join("cluster/down"))
            .arg(&self.dir)
            .status();
    }
}

fn ready(database: &Database) -> (&str, &str) {
    condition(database, "Ready").map_or(("", ""), |it| (&*it.status, &*it.reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_its_crds_says_so_and_goes_on_when_they_come() {
    let cluster = Cluster::start();
    let operator = Operator::spawn(&cluster.kubeconfig(), "default", &[]);
    eventually(SOON, "the missing CRD is named", async || match operator.readiness() {
        Ok((503, text)) if text.contains("databases in namespace default: the CRD is not installed") => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    cluster.client().await;
    operator.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_outlives_its_api_server_and_its_etcd() {
    let cluster = Cluster::start();
    let namespace = Namespace::create_in(cluster.client().await).await;
    let operator =
        Operator::start_as(&cluster.kubeconfig(), &namespace, &["--reconcile-timeout", "5s"]).await;
    let spec = System::Postgresql.spec().probed_often();
    namespace.database("one", &spec).await;
    let is_ready = |database: &Database| ready(database) == ("True", "Available");
    namespace.until("one", SOON, "Ready", is_ready).await;

    // The API server is away: probes go on, the process stays.
    cluster.component("stop", "kube-apiserver");
    // Two API servers that start keep this machine busy: a probe may take too long, and none may fail otherwise.
    let passed = || {
        let (passed, failed) = operator.probes();
        assert!(failed.keys().all(|reason| reason == "Timeout"), "{failed:?}");
        passed
    };
    let before = passed();
    eventually(SOON, "more probes that pass", async || match passed() {
        after if after >= before + 3 => Ok(()),
        after => Err(after - before),
    })
    .await;
    cluster.component("start", "kube-apiserver");
    // A change that was made after the outage is seen, through the same watches.
    let moved = System::Postgresql.spec().with(&serde_json::json!({ "port": 1 }));
    eventually(SOON, "a change", async || namespace.try_database("one", &moved).await).await;
    let deadline = SOON * 2;
    namespace.until("one", deadline, "the change", |it| ready(it) == ("False", "ConnectionRefused")).await;

    // Etcd hangs: writes hang with it, and are tried again.
    cluster.component("pause", "etcd");
    operator.more_probes(1).await;
    cluster.component("resume", "etcd");
    eventually(SOON, "a change", async || namespace.try_database("one", &spec).await).await;
    namespace.until("one", deadline, "Ready again", is_ready).await;
    assert!(operator.metric("authlink_reconcile_errors_total", r#"reason="InvalidSpec""#) < 1.0);
}
