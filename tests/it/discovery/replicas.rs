//! Of several servers one takes what is written: clients must not end at one that only follows it.

use serde_json::json;

use super::{ADDRESS, at, endpoints, redis, registered, until_endpoints};
use crate::support::{Namespace, Operator, Server, Spec};

/// Two servers, of which the second follows the first, and a spec with both as `hosts`.
fn primary_and_replica() -> (Server, Server, Spec) {
    let (primary, replica) = (redis(), redis());
    replica.redis(&["config", "set", "masteruser", "app"]);
    replica.redis(&["config", "set", "masterauth", "app-secret"]);
    replica.redis(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
    let hosts = [&replica, &primary].map(|server| json!({ "host": ADDRESS, "port": server.port + 1 }));
    let both = registered(&primary).with(&json!({ "host": null, "port": null, "hosts": hosts }));
    (primary, replica, both)
}

#[tokio::test]
async fn a_server_that_follows_a_known_primary_gets_no_traffic() {
    let namespace = Namespace::create().await;
    let (primary, replica, both) = primary_and_replica();
    let operator = Operator::start(&namespace, &[]).await;
    namespace.database("cache", &both).await;
    let mut wanted = [at(ADDRESS, &primary, true), at(ADDRESS, &replica, false)];
    wanted.sort();
    until_endpoints(&namespace, "cache", &wanted).await;
    primary.kill();
    let mut wanted = [at(ADDRESS, &primary, false), at(ADDRESS, &replica, false)];
    wanted.sort();
    until_endpoints(&namespace, "cache", &wanted).await;
    operator.signal("KILL");
    drop(operator);
    let operator = Operator::start(&namespace, &[]).await;
    operator.more_probes(6).await;
    assert!(operator.probes().0 >= 2, "{:?}", operator.probes());
    assert_eq!(endpoints(&namespace, "cache").await, wanted, "the status knows what was the primary");
    replica.redis(&["replicaof", "no", "one"]);
    let mut wanted = [at(ADDRESS, &primary, false), at(ADDRESS, &replica, true)];
    wanted.sort();
    until_endpoints(&namespace, "cache", &wanted).await;
}

#[tokio::test]
async fn whichever_of_two_keeps_silent_after_a_restart_it_is_known_which_is_the_primary() {
    let namespace = Namespace::create().await;
    let (primary, replica, both) = primary_and_replica();
    let operator = Operator::start(&namespace, &[]).await;
    let patient = json!({ "healthCheck": { "unhealthyThreshold": 100 } });
    namespace.database("cache", &both.with(&patient)).await;
    let mut wanted = [at(ADDRESS, &primary, true), at(ADDRESS, &replica, false)];
    wanted.sort();
    until_endpoints(&namespace, "cache", &wanted).await;
    namespace.ready("cache").await;
    operator.signal("KILL");
    drop(operator);
    for silent in [&replica, &primary] {
        silent.freeze();
        let written = namespace.status_writes();
        let operator = Operator::start(&namespace, &[]).await;
        operator.more_probes_with_late_ones(8, 2).await;
        assert_eq!(endpoints(&namespace, "cache").await, wanted);
        assert_eq!(namespace.status_writes(), written, "it is known what it is");
        operator.signal("KILL");
        silent.thaw();
    }
}
