//! The cluster says which addresses are those of its Services.

use authlink::{cluster::ranges, domain::addresses::Egress};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::support::{admin, client_of, gateway_kubeconfig, operator_kubeconfig};

#[tokio::test]
async fn they_are_refused_once_an_operator_has_asked() {
    let kubernetes = Api::<Service>::namespaced(admin().await, "default").get("kubernetes").await;
    let address = kubernetes.ok().and_then(|it| it.spec?.cluster_ip?.parse().ok()).expect("an address");
    let egress = Egress::default();
    assert_eq!(egress.endpoint(address), Ok(()));
    let operators = client_of(&operator_kubeconfig()).await;
    assert!(ranges::learn(&operators, &egress.services).await);
    let refused = egress.endpoint(address).expect_err("refused").to_string();
    assert!(refused.contains("the cluster's own Services"), "{refused}");
    assert_eq!(egress.endpoint("10.99.0.1".parse().expect("an address")), Ok(()));
}

#[tokio::test]
async fn who_has_no_right_to_ask_is_not_kept_waiting() {
    let gateways = client_of(&gateway_kubeconfig()).await;
    assert!(!ranges::learn(&gateways, &Egress::default().services).await);
}
