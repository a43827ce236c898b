//! Listings that are not complete take nobody away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use authlink::{
    api::Reason,
    backends::directory::Layout,
    sync::{Control, Outcome, SyncError},
};

use super::harness::{Ldap, PEOPLE, Syncing, people};
use crate::store::Place;

async fn active(syncing: &Syncing) -> usize {
    syncing.count("authlink_users where state = 'active'").await
}

#[tokio::test]
async fn a_limit_of_the_server_ends_a_listing_and_takes_nobody_away() {
    let [file, _] = Place::each().await;
    let mut ldap = Ldap::start(600);
    let syncing = Syncing::full(file, ldap.directory());
    assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
    ldap.0.restart_with("LIMITS", "size=unlimited time=unlimited size.prtotal=300");
    for _ in 0..3 {
        let report = syncing.run().await;
        assert_eq!(report.outcome, Outcome::Incomplete);
        assert_eq!(report.incomplete.expect("a fault").reason, Reason::LimitExceeded);
        assert_eq!((report.counts.disabled, active(&syncing).await), (0, 600));
    }
    ldap.0.restart_with("LIMITS", "size=unlimited time=unlimited size.pr=unlimited");
    assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_leaves_what_was_read_and_takes_nobody_away() {
    for place in Place::each().await {
        let ldap = Arc::new(Ldap::start(600));
        let layout = Layout { page_size: 50, ..Layout::new(people(), None) };
        let mut syncing = Syncing::of(place, ldap.directory(), layout);
        syncing.settings.force_full = true;
        let (server, killed) = (Arc::clone(&ldap), AtomicBool::new(false));
        let progress = move |now: authlink::sync::Progress| {
            if now.counts.seen >= 100 && !killed.swap(true, SeqCst) {
                server.0.kill();
            }
        };
        syncing.control = Control { progress: Arc::new(progress), ..Control::default() };
        let broken = syncing.run().await;
        assert_eq!(broken.outcome, Outcome::Incomplete, "{broken:?}");
        assert!((100..600).contains(&broken.counts.created), "{broken:?}");
        assert_eq!(active(&syncing).await as u64, broken.counts.created, "whole batches are kept");
        syncing.assert_told().await;
        ldap.0.resume();
        syncing.control = Control::default();
        let whole = syncing.run().await;
        assert_eq!(whole.outcome, Outcome::Succeeded);
        assert_eq!((whole.counts.created, active(&syncing).await), (600 - broken.counts.created, 600));
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_right_that_was_taken_away_is_stopped_by_the_guard_and_given_back_is_forgotten() {
    let [file, _] = Place::each().await;
    let mut ldap = Ldap::start(600);
    let syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    // 111 of them: 1, 10 to 19 and 100 to 199.
    let hide = format!("access to dn.subtree=\"{PEOPLE}\" filter=(employeeNumber=1*) by * none");
    ldap.0.restart_with("DATABASE", &hide);
    for _ in 0..3 {
        let report = syncing.run().await;
        assert_eq!((report.outcome, report.counts.disabled), (Outcome::Held, 0));
        assert_eq!(active(&syncing).await, 600);
    }
    ldap.0.restart_with("DATABASE", "");
    let report = syncing.run().await;
    assert_eq!((report.outcome, report.held), (Outcome::Succeeded, None));
}

#[tokio::test]
async fn an_entry_whose_id_may_not_be_read_is_not_gone() {
    let [file, _] = Place::each().await;
    let mut ldap = Ldap::start(600);
    let syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    ldap.0.restart_with("DATABASE", "access to filter=(departmentNumber=7) attrs=entryUUID by * none");
    for _ in 0..3 {
        let report = syncing.run().await;
        assert_eq!((report.outcome, report.counts.failed), (Outcome::PartialFailure, 12), "{report:?}");
        assert_eq!((report.counts.disabled, active(&syncing).await), (0, 600));
    }
    assert_eq!(syncing.count("authlink_quarantine").await, 12);
}

#[tokio::test]
async fn a_run_that_is_cancelled_or_loses_the_lead_ends_at_once_and_the_next_one_goes_on() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(600);
    let layout = Layout { page_size: 50, ..Layout::new(people(), None) };
    let mut syncing = Syncing::of(file, ldap.directory(), layout);
    let control = Control::default();
    let cancel = control.cancel.clone();
    syncing.control = Control { progress: Arc::new(move |_| cancel.cancel()), ..control };
    assert!(matches!(syncing.try_run().await, Err(SyncError::Cancelled)));
    let leads = Arc::new(AtomicBool::new(true));
    let (asked, lost) = (Arc::clone(&leads), Arc::clone(&leads));
    syncing.control = Control {
        may_write: Arc::new(move || asked.load(SeqCst)),
        progress: Arc::new(move |_| lost.store(false, SeqCst)),
        ..Control::default()
    };
    assert!(matches!(syncing.try_run().await, Err(SyncError::Fenced)));
    let before = active(&syncing).await;
    assert!((50..600).contains(&before), "{before}");
    syncing.control = Control::default();
    assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
    assert_eq!(active(&syncing).await, 600);
    syncing.assert_told().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_of_the_same_source_fences_the_first() {
    for place in Place::each().await {
        let ldap = Ldap::start(600);
        let layout = Layout { page_size: 50, ..Layout::new(people(), None) };
        let mut syncing = Syncing::of(place, ldap.directory(), layout);
        let (store, source) = (Arc::clone(&syncing.store), syncing.settings.source.clone());
        let begun = AtomicBool::new(false);
        let other = move |_| {
            if !begun.swap(true, SeqCst) {
                let begin = async { store.users().begin(&source).await.expect("a run") };
                let runtime = tokio::runtime::Handle::current();
                tokio::task::block_in_place(|| runtime.block_on(begin));
            }
        };
        syncing.control = Control { progress: Arc::new(other), ..Control::default() };
        assert!(matches!(syncing.try_run().await, Err(SyncError::Fenced)));
        syncing.control = Control::default();
        assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_incomplete() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(20);
    let mut syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    ldap.0.freeze();
    syncing.settings.deadline = Duration::from_secs(1);
    let report = syncing.run().await;
    ldap.0.thaw();
    assert_eq!((report.outcome, report.counts.disabled), (Outcome::Incomplete, 0));
    assert_eq!(report.incomplete.expect("a fault").reason, Reason::Timeout);
}
