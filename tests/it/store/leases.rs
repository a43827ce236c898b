//! Leases: one holder at a time, whatever processes and clocks do.

use std::{sync::Arc, time::Duration};

use authlink::store::{Lease, Store};

use super::Place;

const TIME: Duration = Duration::from_secs(15);

async fn take(store: &Store, owner: &str, name: &str) -> Option<Lease> {
    store.leases().acquire(owner, &[name], TIME).await.expect("an answer").pop()
}

#[tokio::test]
async fn of_many_that_ask_at_once_one_gets_the_lease() {
    for place in Place::each().await {
        let store = Arc::new(place.open());
        store.prepare().await.expect("prepared");
        let asking = (0..8).map(|owner| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { take(&store, &format!("owner-{owner}"), "sync").await })
        });
        let got = futures::future::join_all(asking).await;
        let got: Vec<_> = got.into_iter().filter_map(|asked| asked.expect("no panic")).collect();
        let [lease] = &got[..] else { panic!("{got:?}") };
        assert_eq!((lease.name.as_str(), lease.epoch), ("sync", 1));
    }
}

#[tokio::test]
async fn a_lease_changes_hands_when_it_is_given_back_or_has_run_out_and_each_time_in_a_new_epoch() {
    for place in Place::each().await {
        let store = place.open();
        let first = take(&store, "one", "sync").await.expect("free");
        assert_eq!(take(&store, "two", "sync").await, None, "it is held");
        let renewed = store.leases().renew("one", std::slice::from_ref(&first), TIME).await.expect("renewed");
        assert_eq!((renewed.len(), renewed[0].epoch), (1, 1), "the same epoch");
        assert!(renewed[0].valid_until > first.valid_until);
        store.leases().release("one", &renewed).await.expect("given back");
        let second = take(&store, "two", "sync").await.expect("free");
        assert_eq!(second.epoch, 2);
        place.run("update authlink_leases set expires = expires - 15001").await;
        let third = take(&store, "one", "sync").await.expect("it has run out");
        assert_eq!(third.epoch, 3);
        let lost = store.leases().renew("two", &[second], TIME).await.expect("an answer");
        assert_eq!(lost, [], "who has lost it cannot renew it");
        assert_eq!(store.leases().holders().await.expect("read"), [("sync".to_owned(), "one".to_owned())]);
    }
}

#[tokio::test]
async fn a_lease_that_has_run_out_and_that_nobody_took_can_be_renewed() {
    for place in Place::each().await {
        let store = place.open();
        let lease = take(&store, "one", "sync").await.expect("free");
        place.run("update authlink_leases set expires = expires - 15001").await;
        assert_eq!(store.leases().holders().await.expect("read"), []);
        let renewed = store.leases().renew("one", &[lease], TIME).await.expect("renewed");
        assert_eq!(renewed.len(), 1);
        assert_eq!(take(&store, "two", "sync").await, None, "it is held again");
    }
}

#[tokio::test]
async fn a_process_that_starts_anew_under_its_name_goes_on_at_once_and_fences_what_it_was() {
    for place in Place::each().await {
        let before = take(&place.open(), "pod-0", "sync").await.expect("free");
        let store = place.open();
        assert_eq!(take(&store, "pod-0", "sync").await.expect("its own").epoch, 2);
        assert_eq!(store.leases().renew("pod-0", &[before], TIME).await.expect("an answer"), []);
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nobody_waiting_for_longer_than_a_lease() {
    for place in Place::each().await {
        let store = place.open();
        take(&store, "one", "sync").await.expect("free");
        place.run("update authlink_leases set expires = expires + 86400000").await;
        assert!(take(&store, "two", "sync").await.is_some(), "nobody may hold one for a day");
    }
}
