//! How long events and deliveries stay, on each engine.

use std::time::Duration;

use authlink::store::delivery::{Acceptance, Ending, Retention};

use super::{
    Place,
    delivery::{
        NOW, accept, accepted, complete, completion, dead, delivered, delivery, due, event, lease, one,
    },
};

#[tokio::test]
async fn an_event_stays_as_long_as_a_delivery_may_need_it() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let mut numbers = Vec::new();
        for number in 0..1200 {
            numbers.push(event(number));
        }
        let batch: Vec<_> =
            numbers.iter().map(|event| accepted(event.clone(), vec![delivery("a")])).collect();
        let answers = accept(&store, &batch).await;
        let ended = answers.iter().zip(&numbers).enumerate().filter_map(|(number, (answer, event))| {
            let Acceptance::Stored(ids) = answer else { panic!("{answer:?}") };
            let end = match number {
                // One that is pending, and one that was given up.
                0 => return None,
                1 => dead(),
                _ => delivered(),
            };
            Some(completion(ids[0].expect("a number"), event, &token, end))
        });
        complete(&store, &ended.collect::<Vec<_>>()).await;
        let retention = Retention::default();
        let purge = async |now| {
            let mut cursor = None;
            loop {
                cursor = store.deliveries().purge_events(&retention, cursor, now).await.expect("purged");
                if cursor.is_none() {
                    break;
                }
            }
            place.count("select count(*) from authlink_events").await
        };
        assert_eq!(purge(NOW + retention.events).await, 1200, "none is old enough");
        assert_eq!(purge(NOW + retention.events + Duration::from_secs(1)).await, 2);
        assert_eq!(purge(NOW + retention.dead + Duration::from_secs(1)).await, 1);
        assert_eq!(place.count("select count(*) from authlink_finished").await, 0);
        assert_eq!(due(&store, NOW).await, ["evt_000000"]);
        let later = NOW + retention.attempts + Duration::from_secs(1);
        while !store.deliveries().purge_logs(&retention, later).await.expect("purged") {}
        assert_eq!(place.count("select count(*) from authlink_attempts").await, 0);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_leaves_nothing() {
    for place in Place::each().await {
        let store = place.open();
        let batch: Vec<_> =
            (0..1200).map(|number| accepted(event(number), vec![delivery("a"), delivery("b")])).collect();
        accept(&store, &batch).await;
        let mut cancelled = 0;
        loop {
            match store.deliveries().cancel("a").await.expect("cancelled") {
                0 => break,
                some => cancelled += some,
            }
        }
        while !store.deliveries().forget("a").await.expect("forgotten") {}
        let left = store.deliveries().pending_of("b").await.expect("counted");
        assert_eq!((cancelled, due(&store, NOW).await.len(), left), (1200, 0, 1200));
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_nobody_wait_for_longer_than_was_meant() {
    for place in Place::each().await {
        let store = place.open();
        let token = lease(&store).await;
        let (event, id) = one(&store, 1).await;
        let wait = Duration::from_secs(5);
        let retry = Ending::Retry { attempts: 1, due: NOW + wait, wait };
        complete(&store, &[completion(id, &event, &token, retry)]).await;
        assert_eq!(store.deliveries().correct_waits(NOW).await.expect("corrected"), 0);
        let yesterday = NOW.checked_sub(Duration::from_hours(24)).expect("a time");
        assert_eq!(store.deliveries().correct_waits(yesterday).await.expect("corrected"), 1);
        assert_eq!(due(&store, yesterday).await, [""; 0]);
        assert_eq!(due(&store, yesterday + wait).await, ["evt_000001"]);
    }
}
