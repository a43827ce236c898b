//! What changes while something else stays as it is.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::json;

use super::{ADDRESS, redis, registered};
use crate::support::{Namespace, Operator, SOON, dns::Dns, eventually};

#[tokio::test]
async fn the_name_of_a_server_that_has_none_any_more_is_taken_off_the_service() {
    let namespace = Namespace::create().await;
    let dns = Dns::start().await;
    dns.answer(&[ADDRESS]);
    let resolv_conf = dns.resolv_conf();
    let _operator =
        Operator::start(&namespace, &["--resolv-conf", resolv_conf.to_str().expect("a path")]).await;
    let server = redis();
    let is_named = async |wanted: Option<&str>| {
        eventually(SOON, "the server's name", async || {
            let service = namespace.api::<Service>().get_opt("cache").await.expect("an answer");
            let name = service.as_ref().map(|it| it.annotations().get("authlink.dev/server-name"));
            if name == Some(wanted.map(ToOwned::to_owned).as_ref()) {
                Ok(())
            } else {
                Err(format!("{name:?}"))
            }
        })
        .await;
    };
    namespace.database("cache", &registered(&server).with(&json!({ "host": "moves.test." }))).await;
    is_named(Some("moves.test.")).await;
    namespace.database("cache", &registered(&server)).await;
    is_named(None).await;
}
