//! The cluster says which addresses are those of its Services.

use std::path::PathBuf;

use authlink::{
    cluster::{ranges, watches::Readiness},
    domain::addresses::{Egress, ServiceRanges},
};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{SOON, admin, client_of, gateway_kubeconfig, operator_kubeconfig};

/// Asks as this account, until there is an answer.
async fn ask(kubeconfig: PathBuf, known: &ServiceRanges) {
    let (asked, readiness) = (CancellationToken::new(), Readiness::default());
    let client = client_of(&kubeconfig).await;
    let follow = ranges::follow(client, known.clone(), asked.clone(), readiness.clone());
    timeout(SOON, asked.run_until_cancelled(follow)).await.expect("an answer");
    assert_eq!(readiness.pending(), [""; 0]);
}

#[tokio::test]
async fn they_are_refused_once_an_operator_or_a_gateway_has_asked() {
    let kubernetes = Api::<Service>::namespaced(admin().await, "default").get("kubernetes").await;
    let address = kubernetes.ok().and_then(|it| it.spec?.cluster_ip?.parse().ok()).expect("an address");
    for kubeconfig in [operator_kubeconfig(), gateway_kubeconfig()] {
        let egress = Egress::default();
        assert_eq!(egress.check_endpoint(address), Ok(()));
        ask(kubeconfig, &egress.services).await;
        let refused = egress.check_endpoint(address).expect_err("refused").to_string();
        assert!(refused.contains("Service or Pod range of the cluster"), "{refused}");
        assert_eq!(egress.check_endpoint("10.99.0.1".parse().expect("an address")), Ok(()));
    }
}
