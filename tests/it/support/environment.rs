//! What `e2e/with` has started, and what is installed into it once for all tests.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::commands::root;

const NAMESPACE: &str = "authlink-test";

/// A variable that `e2e/with` exports.
pub(crate) fn variable(name: &str) -> String {
    env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `make test`, which starts what the tests need"))
}

/// The folder of the run.
pub(crate) fn test_dir() -> PathBuf {
    variable("AUTHLINK_TEST_DIR").into()
}

/// One of the test certificates (`e2e/systems/certificates`), as PEM.
pub(crate) fn tls_file(name: &str) -> String {
    let path = test_dir().join("tls").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The API server as its administrator sees it. Each test has its own: a client lives in the test's runtime.
pub(crate) async fn admin() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    variable("KUBECONFIG");
    Client::try_default().await.expect("KUBECONFIG of a cluster")
}

/// The API server as whoever a kubeconfig is for sees it.
pub(crate) async fn client_of(kubeconfig: &Path) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// The kubeconfig of the chart's own ServiceAccount; installs CRDs, account and permissions on first use.
pub(crate) fn operator_kubeconfig() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let install = || {
        install_crds();
        install_account("authlink", "authlink", &[])
    };
    INSTALLED.get_or_init(install).clone()
}

/// The ServiceAccount that the chart gives to gateways of their own.
pub(crate) const GATEWAY_ACCOUNT: &str = "system:serviceaccount:authlink-test:apart-authlink-gateway";

/// The same for gateways that are pods of their own.
pub(crate) fn gateway_kubeconfig() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    operator_kubeconfig();
    let settings = ["--set", "store.postgres.uriSecretRef.name=store"];
    INSTALLED.get_or_init(|| install_account("apart", "apart-authlink-gateway", &settings)).clone()
}

fn install_crds() {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    kubectl_apply(&namespace.to_string());
    let crds = fs::read_dir(root().join("crds")).expect("the folder crds");
    let mut crds: Vec<_> = crds.map(|entry| entry.expect("a file").path()).collect();
    crds.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    for crd in crds {
        kubectl_apply(&fs::read_to_string(crd).expect("a CRD"));
    }
    run(
        Command::new("kubectl").args([
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ]),
        "",
    );
}

/// Installs accounts and permissions of a release, and gives the kubeconfig of one of the accounts.
fn install_account(release: &str, account: &str, settings: &[&str]) -> PathBuf {
    let permissions = run(
        Command::new("helm")
            .args(["template", release, "--namespace", NAMESPACE])
            .args(["--show-only", "templates/serviceaccount.yaml", "--show-only", "templates/rbac.yaml"])
            .args(settings)
            .arg(root().join("charts/authlink")),
        "",
    );
    kubectl_apply(&permissions);
    let token =
        run(Command::new("kubectl").args(["create", "token", account, "-n", NAMESPACE, "--duration=4h"]), "");
    let path = test_dir().join(format!("{account}-{}.kubeconfig", std::process::id()));
    fs::write(&path, kubeconfig(token.trim()).to_string()).expect("the test folder can be written to");
    path
}

/// The administrator's kubeconfig with the user replaced.
fn kubeconfig(token: &str) -> Value {
    let admin = Kubeconfig::read().expect("KUBECONFIG");
    let cluster = admin.clusters.first().and_then(|named| named.cluster.clone()).expect("a cluster");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "operator", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "operator" } }],
        "current-context": "test",
    })
}

fn kubectl_apply(manifest: &str) {
    run(Command::new("kubectl").args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), manifest);
}

fn run(command: &mut Command, input: &str) -> String {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("the program reads its input");
    let output = child.wait_with_output().expect("the program ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
    String::from_utf8(output.stdout).expect("text")
}
