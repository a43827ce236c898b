//! Several engines on one PostgreSQL.

use std::{collections::BTreeSet, time::Duration};

use authlink::delivery::EngineSettings;
use serde_json::json;

use super::{
    bed::{Bed, endpoint},
    kills::{Place, all_arrived},
    process::Program,
    receiver::{Receiver, Reply},
};
use crate::support::{SOON, eventually, signal};

fn named(owner: &str) -> EngineSettings {
    let lease_time = Duration::from_secs(2);
    EngineSettings { owner: owner.to_owned(), lease_time, ..EngineSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on() {
    let place = Place::postgresql().await;
    let receiver =
        Receiver::logging(place.log("received"), |_| Reply::after(Duration::from_millis(300), 200)).await;
    let program = Program { producers: 2, ..place.program(&receiver, 60) };
    let process = program.start();
    receiver.until(20).await;
    signal("STOP", &process.pid());
    // Another one takes over, and does the rest.
    let other = Bed::on(&place.url, named("pod-1")).await;
    let uid = other.set(endpoint("hook", &receiver.url()));
    eventually(SOON, "taking over", async || other.engine.state(&uid).map(drop).ok_or("not yet")).await;
    let before = receiver.count();
    receiver.until(before + 5).await;
    signal("CONT", &process.pid());
    all_arrived(&program, &receiver, &place.path("received")).await;
    let seen = receiver.seen();
    let ids: BTreeSet<_> = seen.iter().map(|seen| seen.id().to_owned()).collect();
    // What was under way when it was stopped, and as many of which the results were on their way to the store.
    assert!(seen.len() - ids.len() <= 16, "{} of {} came twice", seen.len() - ids.len(), ids.len());
    eventually(SOON, "nothing pending", async || {
        match other.store.deliveries().pending_of(&uid).await.expect("counted") {
            0 => Ok(()),
            some => Err(some),
        }
    })
    .await;
}

/// K3 for SQLite: the lock of the file stays with a process that is stopped, so that the second one waits, however long that is.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_on_one_file_the_second_does_nothing_until_the_first_has_ended() {
    let place = Place::file();
    let receiver =
        Receiver::logging(place.log("received"), |_| Reply::after(Duration::from_millis(50), 200)).await;
    let first = Program { producers: 2, ..place.program(&receiver, 100) };
    let mut process = first.start();
    receiver.until(10).await;
    let second =
        Program { owner: "pod-1".to_owned(), log: place.path("second"), ..place.program(&receiver, 10) };
    let _second = second.start();
    signal("STOP", &process.pid());
    // Longer than a lease, which has no meaning where the file is locked.
    tokio::time::sleep(first.lease * 2).await;
    assert_eq!(second.accepted(), Vec::<String>::new());
    signal("CONT", &process.pid());
    let twice = all_arrived(&first, &receiver, &place.path("received")).await;
    assert_eq!((twice, second.accepted().len()), (0, 0), "the first one goes on as if nothing had been");
    process.kill();
    all_arrived(&second, &receiver, &place.path("received")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_lost_lease_are_dropped_and_counted() {
    let place = Place::postgresql().await;
    let receiver = Receiver::that(|_| Reply::after(Duration::from_millis(500), 200)).await;
    let one = Bed::on(&place.url, named("pod-0")).await;
    let uid = one.set(endpoint("hook", &receiver.url()));
    one.accept("a", json!(1)).await;
    receiver.until(1).await;
    // Somebody else takes all leases, without asking.
    let mut admin = postgresql_at(&place.url).await;
    let stolen = "update authlink_leases set owner = 'thief', epoch = epoch + 1, expires = expires + 1000";
    sqlx::raw_sql(stolen).execute(&mut admin).await.expect("stolen");
    eventually(SOON, "a result that was dropped", async || match one.fenced() {
        0 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    // It gets them back when they run out, and delivers.
    eventually(SOON, "nothing pending", async || {
        match one.store.deliveries().pending_of(&uid).await.expect("counted") {
            0 => Ok(()),
            some => Err(some),
        }
    })
    .await;
}

async fn postgresql_at(url: &str) -> sqlx::PgConnection {
    use sqlx::Connection;
    sqlx::PgConnection::connect(url).await.expect("a login")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_share_the_endpoints_and_what_one_accepts_the_other_delivers() {
    let place = Place::postgresql().await;
    let receiver = Receiver::start().await;
    let (one, two) =
        (Bed::on(&place.url, named("pod-0")).await, Bed::before_start(&place.url, named("pod-1")));
    let uids: Vec<_> = (0..40)
        .map(|number| {
            two.set(endpoint(&format!("hook-{number}"), &receiver.url()));
            one.set(endpoint(&format!("hook-{number}"), &receiver.url()))
        })
        .collect();
    let two = two.start().await;
    let owned = |bed: &Bed| uids.iter().filter(|uid| bed.engine.state(uid).is_some()).count();
    eventually(SOON, "a fair part", async || {
        let parts = (owned(&one), owned(&two));
        if parts.0 + parts.1 == 40 && parts.0 >= 8 && parts.1 >= 8 {
            Ok(())
        } else {
            Err(format!("{parts:?}"))
        }
    })
    .await;
    for _ in 0..5 {
        one.accept("a", json!(1)).await;
        two.accept("a", json!(2)).await;
    }
    let seen = receiver.until(400).await;
    let targets: BTreeSet<_> = seen.iter().map(|seen| (seen.id().to_owned(), seen.text())).collect();
    assert_eq!((targets.len(), seen.len()), (10, 400));
    // One ends in order: the other has all of it at once.
    two.end().await;
    one.accept("a", json!(3)).await;
    receiver.until(440).await;
    assert_eq!(receiver.count(), 440, "each once");
}
