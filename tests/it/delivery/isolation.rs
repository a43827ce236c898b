//! Endpoints do not hold each other up.

use std::time::Duration;

use authlink::{
    delivery::EndpointSettings,
    domain::delivery::{event_type::Pattern, scheduler::EndpointConfig},
};
use serde_json::json;

use super::{
    bed::{Bed, configured, endpoint, retry},
    receiver::{Receiver, Reply},
};

fn wanting(settings: EndpointSettings, pattern: &str) -> EndpointSettings {
    EndpointSettings { events: vec![Pattern::parse(pattern).expect("a pattern")], ..settings }
}

#[tokio::test]
async fn an_endpoint_that_hangs_with_a_long_backlog_holds_up_no_other() {
    let bed = Bed::make().await;
    let hang = Duration::from_mins(10);
    let (slow, quick) = (Receiver::that(move |_| Reply::after(hang, 200)).await, Receiver::start().await);
    bed.set(wanting(endpoint("quick", &quick.url()), "quick"));
    let patient = EndpointConfig { retry: retry(&[10], 3), ..EndpointConfig::default() };
    let hanging = configured(endpoint("slow", &slow.url()), patient);
    let uid = bed.set(wanting(EndpointSettings { timeout: hang, ..hanging }, "slow"));
    for _ in 0..200 {
        let batch = (0..500).map(|n| super::bed::event(&format!(r#"{{"type":"slow","data":{n}}}"#)));
        bed.engine.accept(super::bed::NAMESPACE, batch.collect()).await.expect("accepted");
    }
    slow.until(8).await;
    assert_eq!(bed.pending(&uid), 100_000);
    for n in 0..200 {
        bed.accept("quick", json!(n)).await;
        quick.until(n + 1).await;
    }
    assert_eq!((slow.count(), bed.pending(&uid)), (8, 100_000), "none of its attempts has ended meanwhile");
}

#[tokio::test]
async fn one_event_for_thousands_of_endpoints_reaches_each_of_them_once() {
    // Both ends of each connection are files of this process. The benchmark has 10,000 endpoints.
    const COUNT: usize = 1_000;
    let bed = Bed::make().await;
    let receiver = Receiver::start().await;
    for number in 0..COUNT {
        bed.set(endpoint(&format!("hook-{number}"), &format!("{}/{number}", receiver.url())));
    }
    let accepted = bed.accept("a", json!(1)).await;
    assert_eq!(accepted.matched.len(), COUNT);
    let seen = receiver.until(COUNT).await;
    assert!(seen.iter().all(|seen| Some(seen.id()) == accepted.id.as_deref()));
    let targets: std::collections::BTreeSet<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!((seen.len(), targets.len()), (COUNT, COUNT));
}
