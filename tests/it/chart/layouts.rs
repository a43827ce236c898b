//! One pod that does everything, or operators and gateways apart.

use serde_json::{Value, json};

use super::{APART, named, of_kind, render, texts, workloads};

fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// The value of an environment variable, or where it comes from.
fn variable(workload: &Value, name: &str) -> Value {
    let variables = pod(workload)["containers"][0]["env"].as_array().unwrap().clone();
    let found = variables.into_iter().find(|variable| variable["name"] == name).expect(name);
    found.get("value").or(found.get("valueFrom")).unwrap().clone()
}

fn has_flag(workload: &Value, flag: &str) -> bool {
    texts(&pod(workload)["containers"][0]["args"]).iter().any(|argument| argument.starts_with(flag))
}

/// Whether a selector finds the pods of this workload.
fn selects(selector: &Value, workload: &Value) -> bool {
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn by_default_one_pod_has_both_roles_and_a_volume() {
    let objects = render(&[]);
    let all = workloads(&objects);
    assert_eq!(
        (all.len(), &all[0]["kind"], &all[0]["spec"]["replicas"]),
        (1, &json!("StatefulSet"), &json!(1))
    );
    let set = all[0];
    assert!(has_flag(set, "--roles=operator,gateway"));
    assert_eq!(variable(set, "AUTHLINK_STORE"), "sqlite:///var/lib/authlink/authlink.db");
    // The next pod has the same name, and must not take the Lease of this one for its own.
    assert!(has_flag(set, "--identity=$(POD_NAME)_$(POD_UID)"));
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(
        claim["spec"],
        json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } })
    );
    // What never can be changed must not change with the next version.
    let labels = claim["metadata"]["labels"].as_object().unwrap();
    assert!(labels.keys().all(|label| !label.contains("version") && !label.contains("chart")), "{labels:?}");
    let mounts = pod(set)["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({ "name": claim["metadata"]["name"], "mountPath": "/var/lib/authlink" })));
    assert_eq!(pod(set)["securityContext"]["fsGroup"], 65532);
    assert!(of_kind(&objects, "PodDisruptionBudget").is_empty(), "it would keep a node from being drained");
    assert_eq!(of_kind(&render(&["replicas=0"]), "StatefulSet")[0]["spec"]["replicas"], 0);
}

#[test]
fn the_claim_is_as_the_values_say_or_not_at_all() {
    let set = |settings: &[&str]| of_kind(&render(settings), "StatefulSet")[0].clone();
    let claimed = set(&[
        "store.persistence.size=5Gi",
        "store.persistence.storageClassName=fast",
        "store.persistence.accessModes={ReadWriteOncePod}",
    ]);
    assert_eq!(
        claimed["spec"]["volumeClaimTemplates"][0]["spec"],
        json!({ "accessModes": ["ReadWriteOncePod"], "storageClassName": "fast", "resources": { "requests": { "storage": "5Gi" } } })
    );
    let without = set(&["store.persistence.enabled=false"]);
    assert!(without["spec"].get("volumeClaimTemplates").is_none());
    assert!(
        pod(&without)["volumes"].as_array().unwrap().contains(&json!({ "name": "data", "emptyDir": {} }))
    );
}

#[test]
fn with_postgresql_operators_and_gateways_are_apart_and_share_the_store() {
    let objects = render(&[APART, "store.postgres.uriSecretRef.key=dsn"]);
    assert!(of_kind(&objects, "StatefulSet").is_empty());
    let (operator, gateway) =
        (named(&objects, "Deployment", "r-authlink"), named(&objects, "Deployment", "r-authlink-gateway"));
    assert!(has_flag(operator, "--roles=operator") && !has_flag(operator, "--roles=operator,gateway"));
    assert!(has_flag(gateway, "--roles=gateway") && !has_flag(gateway, "--lease"));
    for workload in [operator, gateway] {
        assert_eq!(variable(workload, "AUTHLINK_STORE_FILE"), "/etc/authlink/store/uri");
        let items = json!([{ "key": "dsn", "path": "uri" }]);
        let volume = json!({ "name": "store", "secret": { "secretName": "store", "items": items } });
        assert!(pod(workload)["volumes"].as_array().unwrap().contains(&volume), "{workload}");
        // checkov CKV_K8S_35: a variable would stay as it was at the start, and children inherit it.
        assert!(!workload.to_string().contains("secretKeyRef"), "{workload}");
        assert_eq!(workload["spec"]["replicas"], 2);
        assert!(pod(workload)["volumes"].as_array().unwrap().iter().all(|volume| volume["name"] != "data"));
        // Neither selects, nor is protected as, the pods of the other.
        let budgets = of_kind(&objects, "PodDisruptionBudget");
        let protects = |budget: &&&Value| selects(&budget["spec"]["selector"]["matchLabels"], workload);
        assert_eq!(budgets.iter().filter(protects).count(), 1);
    }
    assert!(!selects(&operator["spec"]["selector"]["matchLabels"], gateway));
    let budgets = render(&[APART, "replicas=1", "gateway.replicas=1"]);
    assert!(of_kind(&budgets, "PodDisruptionBudget").is_empty());
}

#[test]
fn the_authorities_of_the_store_are_a_file_however_long_their_list_is() {
    let name = "store.postgres.caRef.name=authorities";
    let items = |key: &str| json!([{ "key": key, "path": "ca.crt" }]);
    let rows = [
        (&[name][..], json!({ "configMap": { "name": "authorities", "items": items("ca.crt") } })),
        (
            &[name, "store.postgres.caRef.kind=Secret", "store.postgres.caRef.key=all.pem"],
            json!({ "secret": { "secretName": "authorities", "items": items("all.pem") } }),
        ),
    ];
    for (settings, mut volume) in rows {
        volume["name"] = "store-ca".into();
        for workload in workloads(&render(&[&[APART], settings].concat())) {
            assert_eq!(variable(workload, "PGSSLROOTCERT"), "/etc/authlink/store-ca/ca.crt");
            assert!(pod(workload)["volumes"].as_array().unwrap().contains(&volume), "{workload}");
            let mount =
                json!({ "name": "store-ca", "mountPath": "/etc/authlink/store-ca", "readOnly": true });
            let mounts = pod(workload)["containers"][0]["volumeMounts"].as_array().unwrap();
            assert!(mounts.contains(&mount), "{workload}");
        }
    }
    for settings in [&[APART][..], &[name]] {
        for workload in workloads(&render(settings)) {
            assert!(!workload.to_string().contains("store-ca"), "{workload}");
        }
    }
}

#[test]
fn gateways_scale_with_their_load_where_that_is_wanted() {
    let objects = render(&[APART, "gateway.autoscaling.enabled=true", "gateway.autoscaling.maxReplicas=5"]);
    let scaler = of_kind(&objects, "HorizontalPodAutoscaler")[0];
    let spec = &scaler["spec"];
    assert_eq!(
        spec["scaleTargetRef"],
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "r-authlink-gateway" })
    );
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(5)));
    assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let gateway = named(&objects, "Deployment", "r-authlink-gateway");
    assert!(gateway["spec"].get("replicas").is_none(), "each upgrade would undo what the scaler did");
    // A share of nothing cannot be aimed at.
    assert!(pod(gateway)["containers"][0]["resources"]["requests"]["cpu"].is_string());
    assert!(of_kind(&render(&["gateway.autoscaling.enabled=true"]), "HorizontalPodAutoscaler").is_empty());
}

#[test]
fn the_service_leads_to_whoever_serves_the_gateway() {
    for (settings, serves) in [(&[][..], "r-authlink"), (&[APART], "r-authlink-gateway")] {
        let objects = render(settings);
        let service = named(&objects, "Service", "r-authlink");
        let found: Vec<_> =
            workloads(&objects).into_iter().filter(|it| selects(&service["spec"]["selector"], it)).collect();
        assert_eq!((found.len(), &found[0]["metadata"]["name"]), (1, &json!(serves)));
        let ports = service["spec"]["ports"].as_array().unwrap();
        let ports: Vec<_> =
            ports.iter().map(|port| (port["name"].as_str().unwrap(), &port["port"])).collect();
        assert_eq!(ports, [("http", &json!(8080)), ("gateway", &json!(80))]);
    }
    let objects = render(&["gateway.enabled=false", APART]);
    let service = of_kind(&objects, "Service");
    assert_eq!((service.len(), service[0]["spec"]["ports"].as_array().unwrap().len()), (1, 1));
}

#[test]
fn every_pod_is_scraped_by_one_monitor_and_restricted_by_one_policy() {
    let monitored = ["serviceMonitor.enabled=true", "networkPolicy.enabled=true"];
    for settings in [&monitored[..], &[&monitored[..], &[APART]].concat()] {
        let objects = render(settings);
        let monitor = of_kind(&objects, "ServiceMonitor")[0]["spec"]["selector"]["matchLabels"].clone();
        for workload in workloads(&objects) {
            let services = of_kind(&objects, "Service");
            let scrapes = |service: &&&Value| {
                let labels = &service["metadata"]["labels"];
                let monitored =
                    monitor.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value);
                monitored && selects(&service["spec"]["selector"], workload)
            };
            assert_eq!(services.iter().filter(scrapes).count(), 1, "no pod twice");
            let policies = of_kind(&objects, "NetworkPolicy");
            let mut restricting = policies
                .into_iter()
                .filter(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"], workload));
            let policy = restricting.next().expect("a policy");
            assert!(restricting.next().is_none());
            let ports = policy["spec"]["ingress"].as_array().unwrap();
            let open: Vec<_> = ports.iter().map(|rule| rule["ports"][0]["port"].as_str().unwrap()).collect();
            let serves =
                has_flag(workload, "--roles=operator,gateway") || has_flag(workload, "--roles=gateway");
            assert_eq!(open, if serves { vec!["http", "gateway"] } else { vec!["http"] });
        }
    }
}

#[test]
fn pods_meet_the_restricted_standard_in_both_layouts() {
    for settings in [&[][..], &[APART]] {
        for workload in workloads(&render(settings)) {
            let (whole, container) = (&pod(workload)["securityContext"], &pod(workload)["containers"][0]);
            assert_eq!(
                (&whole["runAsNonRoot"], &whole["seccompProfile"]["type"]),
                (&json!(true), &json!("RuntimeDefault"))
            );
            let own = &container["securityContext"];
            assert_eq!(
                (&own["allowPrivilegeEscalation"], &own["readOnlyRootFilesystem"]),
                (&json!(false), &json!(true))
            );
            assert_eq!(own["capabilities"]["drop"], json!(["ALL"]));
        }
    }
}

#[test]
fn what_is_lost_with_the_pod_is_said() {
    let notes = |settings: &[&str]| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments = ["install", "r", "charts/authlink", "--dry-run=client", "--namespace", "home"];
        let said = super::helm(&arguments.into_iter().chain(sets).collect::<Vec<_>>()).well();
        said.split_once("\nNOTES:").expect("notes").1.to_owned()
    };
    let kept = notes(&[]);
    assert!(
        kept.contains("rollout status statefulset/r-authlink") && !kept.contains("lost with the pod"),
        "{kept}"
    );
    assert!(notes(&["store.persistence.enabled=false"]).contains("lost with the pod"));
    let apart = notes(&[APART, "store.persistence.enabled=false"]);
    assert!(
        apart.contains("rollout status deployment/r-authlink-gateway") && !apart.contains("lost"),
        "{apart}"
    );
}
