//! A `Timeout` says in which stage.

use serde_json::json;

use super::check;
use crate::support::{System, hostile};

#[test]
fn a_server_that_never_responds_is_a_timeout_of_the_stage_that_waits() {
    let port = hostile::silent_server();
    let impatient = json!({ "port": port, "healthCheck": { "timeout": "1s" } });
    let plain = json!({ "tls": { "mode": "None", "caRef": null } });
    for system in System::ALL {
        // A MySQL greets before anything else.
        let first = if system == System::Mariadb { "the login" } else { "the TLS handshake" };
        let spec = system.spec().with(&impatient);
        check(&spec, &[])
            .fails("Timeout", &[&format!("connected, but no response to {first}"), "healthCheck.timeout"]);
        let spec = spec.with(&plain);
        check(&spec, &[])
            .fails("Timeout", &["connected, but no response to the login", "healthCheck.timeout"]);
    }
}

#[test]
fn a_network_that_drops_packets_is_a_timeout_of_connecting() {
    // A queue that is full drops what would be another connection.
    let full = hostile::full_queue();
    let port = full.port;
    for system in System::ALL {
        let spec = system
            .spec()
            .with(&json!({ "host": "127.0.0.1", "port": port, "healthCheck": { "timeout": "1s" } }));
        check(&spec, &[]).fails("Timeout", &["no connection within spec.healthCheck.timeout"]);
    }
}
