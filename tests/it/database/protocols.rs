//! A server of another kind than `spec.type` says is never taken for the right one, and the message says so.

use serde_json::json;

use crate::support::{Namespace, Operator, SOON, Spec, System, condition, hostile};

const SAYS_WHY: [&str; 5] = ["ProtocolError", "TlsFailed", "AuthenticationFailed", "Timeout", "Unavailable"];

fn at(system: System, port: u16, tls: bool) -> Spec {
    let tls = if tls { json!({ "mode": "VerifyFull" }) } else { json!({ "mode": "None", "caRef": null }) };
    system.spec().with(&json!({ "port": port, "tls": tls, "healthCheck": { "timeout": "2s" } }))
}

async fn none_is_ready(specs: &[(String, Spec)]) {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    for (name, spec) in specs {
        namespace.database(name, spec).await;
    }
    for (name, _) in specs {
        let found = namespace
            .until(name, SOON, "a verdict", |database| {
                condition(database, "Healthy").is_some_and(|healthy| healthy.reason != "Pending")
            })
            .await;
        let ready = condition(&found, "Ready").expect("Ready");
        println!("{name}: {} {}", ready.reason, ready.message);
        assert_eq!(ready.status, "False", "{name}");
        assert!(SAYS_WHY.contains(&ready.reason.as_str()), "{name}: {} {}", ready.reason, ready.message);
    }
}

#[tokio::test]
async fn a_server_of_another_engine_is_never_ready() {
    let mut specs = Vec::new();
    for system in System::ALL {
        for other in System::ALL.into_iter().filter(|other| *other != system) {
            let name = |tls| format!("{}-at-{}-{tls}", system.engine(), other.engine());
            specs.push((name("plain"), at(system, other.port(), false)));
            specs.push((name("tls"), at(system, other.tls_port(other.port()), true)));
        }
    }
    none_is_ready(&specs).await;
}

#[tokio::test]
async fn a_server_of_no_engine_is_never_ready() {
    let port = hostile::chatty_server();
    let specs: Vec<_> = System::ALL
        .iter()
        .flat_map(|system| {
            [false, true].map(|tls| (format!("{}-{tls}", system.engine()), at(*system, port, tls)))
        })
        .collect();
    none_is_ready(&specs).await;
}
