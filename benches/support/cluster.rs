//! The cluster as the operator finds it: CRDs, rights, objects.

use std::{path::PathBuf, time::Duration};

use authlink::controllers::Object;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
};
use serde_json::{Value, json};

use super::{Outcome, run, run_folder, variable};

/// Requests at the same time while objects are made: not measured, so as many as the API server likes.
const MAKERS: usize = 32;

/// What a bench works in.
pub(crate) struct Cluster {
    /// As an administrator.
    pub(crate) admin: Client,
    /// With the operator's own identity, so that the floor pays what the operator pays for authorization.
    pub(crate) operator: Client,
    /// The same, for the process.
    pub(crate) operator_kubeconfig: PathBuf,
    /// Of the bench.
    pub(crate) folder: PathBuf,
    /// The operator's namespace.
    pub(crate) home: String,
    /// Of the objects.
    pub(crate) namespace: String,
    /// The operator's name in the audit log.
    pub(crate) user: String,
}

impl Cluster {
    /// Installs the CRDs and the chart's rights, and makes the namespaces with the Secret that the objects name.
    pub(crate) async fn prepare(name: &str) -> Outcome<Self> {
        let folder = run_folder()?.join(format!("bench-{name}"));
        std::fs::create_dir_all(&folder)?;
        let (home, namespace) = (format!("{name}-system"), name.to_owned());
        // Cargo runs benches in the package root, where crds/ is.
        run("kubectl", &["apply", "--server-side", "-f", "crds"], "").await?;
        run("kubectl", &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "").await?;

        let admin = Client::try_default().await?;
        for namespace in [&home, &namespace] {
            let body = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
            Api::<Namespace>::all(admin.clone()).create(&PostParams::default(), &body).await?;
        }
        let chart = "charts/authlink";
        let parts = ["--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml"];
        // The Lease is named as the binary names it by default.
        let rights = [&["template", "authlink", chart, "-n", &home][..], &parts].concat();
        let rights = run("helm", &rights, "").await?;
        run("kubectl", &["apply", "-n", &home, "-f", "-"], &rights).await?;

        let operator_kubeconfig = folder.join("kubeconfig");
        std::fs::copy(variable("KUBECONFIG")?, &operator_kubeconfig)?;
        let token =
            run("kubectl", &["create", "token", "authlink", "-n", &home, "--duration=12h"], "").await?;
        let path = operator_kubeconfig.display().to_string();
        let token = format!("--token={token}");
        run("kubectl", &["--kubeconfig", &path, "config", "set-credentials", "operator", &token], "").await?;
        let current = ["--kubeconfig", &path, "config", "set-context", "--current", "--user=operator"];
        run("kubectl", &current, "").await?;
        let config = Kubeconfig::read_from(&operator_kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;

        let login = json!({
            "metadata": { "name": "login" },
            "type": "kubernetes.io/basic-auth",
            "stringData": { "username": "app", "password": "app-secret" },
        });
        let secrets = Api::<Secret>::namespaced(admin.clone(), &namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(login)?).await?;
        Ok(Self {
            admin,
            operator: Client::try_from(config)?,
            operator_kubeconfig,
            folder,
            user: format!("system:serviceaccount:{home}:authlink"),
            home,
            namespace,
        })
    }

    /// The objects' API, as the administrator.
    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Makes `count` objects, spread evenly over `specs`.
    pub(crate) async fn make<K: Object>(&self, specs: &[Value], count: usize) -> Outcome<Vec<K>> {
        let api = self.api::<K>();
        let bodies = specs.iter().cycle().take(count).enumerate().map(|(index, spec)| {
            json!({
                "apiVersion": K::api_version(&()), "kind": K::kind(&()),
                "metadata": { "name": format!("fleet-{index:05}") },
                "spec": spec,
            })
        });
        let made = stream::iter(bodies).map(|body| {
            let api = api.clone();
            async move {
                let body: K = serde_json::from_value(body)?;
                Outcome::Ok(api.create(&PostParams::default(), &body).await?)
            }
        });
        made.buffer_unordered(MAKERS).try_collect().await
    }

    /// The token of a new ServiceAccount that may create these subresources of all objects.
    pub(crate) async fn caller(&self, subresources: &[&str]) -> Outcome<String> {
        let namespace = ["-n", &self.namespace];
        let does = async |args: &[&str]| run("kubectl", &[&namespace[..], args].concat(), "").await;
        does(&["create", "serviceaccount", "caller"]).await?;
        let resources = format!("--resource={}", subresources.join(","));
        does(&["create", "role", "caller", "--verb=create", &resources]).await?;
        let subject = format!("--serviceaccount={}:caller", self.namespace);
        does(&["create", "rolebinding", "caller", "--role=caller", &subject]).await?;
        does(&["create", "token", "caller", "--audience=authlink", "--duration=2h"]).await
    }

    /// Deletes all objects, and waits until they and what they own are gone.
    pub(crate) async fn clear<K: Object>(&self) -> Outcome<()> {
        let api = self.api::<K>();
        // A large collection may take longer than one request: what is left then is deleted by the next.
        while !is_empty(&api, 0).await? {
            let _ = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let secrets = Api::<Secret>::namespaced(self.admin.clone(), &self.namespace);
        while !is_empty(&secrets, 1).await? {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }
}

/// Whether no more than so many objects are there.
async fn is_empty<K>(api: &Api<K>, spared: usize) -> Outcome<bool>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let limit = u32::try_from(spared)? + 1;
    let list = api.list_metadata(&ListParams::default().limit(limit)).await?;
    let items: Vec<PartialObjectMeta<K>> = list.items;
    Ok(items.len() <= spared)
}

/// A spec for each of the four servers of the run.
pub(crate) fn specs(binding: bool) -> Outcome<Vec<Value>> {
    let systems = [
        ("postgresql", "AUTHLINK_TEST_POSTGRESQL", Some("app")),
        ("mysql", "AUTHLINK_TEST_MARIADB", Some("app")),
        ("mongodb", "AUTHLINK_TEST_FERRETDB", Some("app")),
        ("redis", "AUTHLINK_TEST_REDIS", None),
    ];
    let spec = |(engine, address, database): (&str, &str, Option<&str>)| {
        let address = variable(address)?;
        let (host, port) = address.rsplit_once(':').ok_or("not HOST:PORT")?;
        let mut spec = json!({
            "type": engine, "host": host, "port": port.parse::<u16>()?,
            "credentialsRef": { "name": "login" },
            "tls": { "mode": "None" },
            "binding": { "enabled": binding },
        });
        if let Some(database) = database {
            spec["database"] = database.into();
        }
        Ok(spec)
    };
    systems.into_iter().map(spec).collect()
}
