//! The gateway's certificate: given, from cert-manager, or signed by Helm.

use serde_json::{Value, json};

use super::{APART, named, of_kind, render, workloads};

/// The Secret that the pods mount, and the Service's port.
fn served(objects: &[Value]) -> (Value, Value) {
    let service = named(objects, "Service", "r-authlink");
    let port = service["spec"]["ports"].as_array().unwrap().iter().find(|port| port["name"] == "gateway");
    let mounted = workloads(objects).into_iter().filter_map(|workload| {
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "tls").cloned()
    });
    let mounted: Vec<_> = mounted.collect();
    assert!(mounted.len() <= 1, "operators have no use for it");
    (
        mounted.first().map(|it| it["secret"]["secretName"].clone()).unwrap_or_default(),
        port.unwrap()["port"].clone(),
    )
}

#[test]
fn by_default_there_is_no_tls() {
    let objects = render(&[]);
    assert_eq!(served(&objects), (Value::Null, json!(80)));
    assert!(of_kind(&objects, "Secret").is_empty());
}

#[test]
fn a_secret_that_is_given_is_served_and_none_is_made() {
    for settings in [&[][..], &[APART]] {
        let given = ["gateway.tls.enabled=true", "gateway.tls.secretName=cert"];
        let objects = render(&[&given[..], settings].concat());
        assert_eq!(served(&objects), (json!("cert"), json!(443)));
        assert!(of_kind(&objects, "Secret").is_empty() && of_kind(&objects, "Certificate").is_empty());
    }
}

#[test]
fn cert_manager_is_asked_for_a_certificate_with_the_names_of_the_service() {
    let issuer = "gateway.tls.certManager.issuerRef";
    let settings =
        ["gateway.tls.enabled=true", &format!("{issuer}.name=ca"), &format!("{issuer}.kind=ClusterIssuer")];
    let objects = render(&settings);
    let certificate = of_kind(&objects, "Certificate")[0];
    assert_eq!(certificate["apiVersion"], "cert-manager.io/v1");
    let spec = &certificate["spec"];
    assert_eq!(
        spec["issuerRef"],
        json!({ "name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io" })
    );
    assert_eq!(
        spec["dnsNames"],
        json!(["r-authlink", "r-authlink.home", "r-authlink.home.svc", "r-authlink.home.svc.cluster.local"])
    );
    assert_eq!(served(&objects), (spec["secretName"].clone(), json!(443)));
    assert!(of_kind(&objects, "Secret").is_empty());
    let named = render(&[&settings[..], &["gateway.tls.secretName=mine"]].concat());
    assert_eq!(of_kind(&named, "Certificate")[0]["spec"]["secretName"], "mine");
    assert_eq!(served(&named).0, "mine");
}

#[test]
fn otherwise_helm_signs_one_and_shows_its_authority() {
    let objects = render(&["gateway.tls.enabled=true"]);
    let secret = of_kind(&objects, "Secret")[0];
    assert_eq!(
        (&secret["type"], &secret["metadata"]["name"]),
        (&json!("kubernetes.io/tls"), &json!("r-authlink-gateway-tls"))
    );
    let data = secret["data"].as_object().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(served(&objects), (json!("r-authlink-gateway-tls"), json!(443)));
    assert!(of_kind(&render(&["gateway.tls.enabled=true", "gateway.enabled=false"]), "Secret").is_empty());
}
