//! A gateway, and callers with tokens and rights of their own.

use std::{net::SocketAddr, path::Path};

use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::{Role, RoleBinding},
};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{
    Namespace, Operator,
    environment::{gateway_kubeconfig, operator_kubeconfig},
    free_port,
};

/// A process with both roles, or a gateway alone.
pub(crate) struct Gateway {
    pub(crate) operator: Operator,
    pub(crate) address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Status and `urn:authlink:` type of a problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let document: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(document["status"], self.status.as_u16());
        let kind = document["type"].as_str().and_then(|kind| kind.strip_prefix("urn:authlink:"));
        (self.status.as_u16(), kind.expect("a type").to_owned())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Gateway {
    /// Starts one for this namespace, and waits until it is ready.
    pub(crate) async fn start(namespace: &Namespace, flags: &[&str]) -> Self {
        Self::start_as(&operator_kubeconfig(), "operator,gateway", namespace, flags).await
    }

    /// The same without an operator, and as the chart's ServiceAccount for that.
    pub(crate) async fn start_alone(namespace: &Namespace, flags: &[&str]) -> Self {
        Self::start_as(&gateway_kubeconfig(), "gateway", namespace, flags).await
    }

    async fn start_as(kubeconfig: &Path, roles: &str, namespace: &Namespace, flags: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen = address.to_string();
        let own = ["--roles", roles, "--gateway-addr", &listen];
        let operator = Operator::start_as(kubeconfig, namespace, &[&own, flags].concat()).await;
        Self { operator, address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Calls a path as whoever the token belongs to.
    pub(crate) async fn call(&self, method: Method, path: &str, token: &str, body: &str) -> Answer {
        self.send(method, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    /// The same by GET.
    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, "").await
    }

    /// Sends a request with these headers.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        let answer = self.client.request(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        // One that breaks off in the middle has what came until then.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Answer { status: head.status, headers: head.headers, body }
    }
}

impl Namespace {
    /// A token for the gateway, of a new ServiceAccount with these rights: verb, resource, and names (all if none).
    pub(crate) async fn caller(&self, name: &str, rights: &[(&str, &str, &[&str])]) -> String {
        let rules: Vec<_> = rights
            .iter()
            .map(|(verb, resource, names)| {
                json!({ "apiGroups": ["authlink.dev"], "verbs": [verb], "resources": [resource], "resourceNames": names })
            })
            .collect();
        let named = json!({ "name": name });
        self.apply::<ServiceAccount>(
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named }),
        )
        .await;
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": named, "rules": rules });
        self.apply::<Role>(role).await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": named,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": self.name }],
        });
        self.apply::<RoleBinding>(binding).await;
        self.token(name, "authlink").await
    }

    /// A token of this ServiceAccount for this audience.
    pub(crate) async fn token(&self, account: &str, audience: &str) -> String {
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts = self.api::<ServiceAccount>();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        answer.expect("a token").status.expect("a status").token
    }
}
