//! `kill -9`: nothing that was accepted is lost, whenever it comes.
//!
//! AUTHLINK_CHAOS_EVENTS (1500) and AUTHLINK_CHAOS_KILLS (6) are how much; `make chaos` has it long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use authlink::{
    store::{Location, Store, delivery::AttemptFilter},
    telemetry::metrics::Metrics,
};
use tempfile::TempDir;

use super::{
    process::{Program, lines},
    receiver::{KEY, Receiver, Reply},
};
use crate::support::{
    SOON, eventually,
    postgresql::{self, NewDatabase},
};

/// Where the engines of a test have their store; gone with the value.
pub(super) struct Place {
    pub(super) folder: TempDir,
    pub(super) url: String,
    _database: Option<NewDatabase>,
}

impl Place {
    pub(super) fn file() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}/authlink.db", folder.path().display());
        Self { folder, url, _database: None }
    }

    pub(super) async fn postgresql() -> Self {
        let (folder, database) = (tempfile::tempdir().expect("a folder"), postgresql::new_database().await);
        Self { folder, url: database.url.clone(), _database: Some(database) }
    }

    pub(super) fn program(&self, receiver: &Receiver, events: usize) -> Program {
        Program {
            store: self.url.clone(),
            receiver: receiver.url(),
            log: self.path("accepted"),
            owner: "pod-0".to_owned(),
            events,
            producers: 8,
            lease: Duration::from_secs(2),
            suspended: false,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn log(&self, name: &str) -> File {
        File::options().append(true).create(true).open(self.path(name)).expect("a log")
    }
}

pub(super) fn amount(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect(name))
}

/// Waits until all that was accepted was received, and checks what was; gives how many came more than once.
pub(super) async fn all_arrived(program: &Program, receiver: &Receiver, received: &Path) -> usize {
    eventually(SOON * 3, "all that was accepted", async || {
        let received: BTreeSet<_> = receiver.seen().iter().map(|seen| seen.id().to_owned()).collect();
        let accepted: BTreeSet<_> = program.accepted().into_iter().collect();
        let missing: Vec<_> = accepted.difference(&received).take(3).collect();
        let enough = accepted.len() >= program.events;
        if missing.is_empty() && enough {
            Ok(())
        } else {
            Err(format!("{} accepted, missing {missing:?}", accepted.len()))
        }
    })
    .await;
    let mut bodies: BTreeMap<String, (Vec<u8>, usize)> = BTreeMap::new();
    for seen in receiver.seen() {
        assert_eq!(seen.verify(KEY), Ok(()), "{seen:?}");
        let (body, count) = bodies.entry(seen.id().to_owned()).or_insert((seen.body.clone(), 0));
        assert_eq!(*body, seen.body, "the same id, and another body");
        *count += 1;
    }
    // What was on the disk before it was answered.
    let logged: BTreeSet<_> =
        lines(received).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(logged, bodies.keys().cloned().collect());
    bodies.values().map(|(_, count)| count - 1).sum()
}

async fn killed_again_and_again(place: Place) {
    let (events, kills) = (amount("AUTHLINK_CHAOS_EVENTS", 1500), amount("AUTHLINK_CHAOS_KILLS", 6));
    let received = place.path("received");
    let receiver = Receiver::logging(place.log("received"), |_| Reply::Status(200)).await;
    let program = place.program(&receiver, events);
    for kill in 0..kills {
        let mut process = program.start();
        // Sometimes as soon as it starts, and sometimes in the middle of its work, which goes on from kill to kill.
        let (wanted, began) = (events * (kill + 1) / (kills + 2), Instant::now());
        let at_work = kill % 3 != 0;
        while at_work && receiver.count() < wanted && began.elapsed() < SOON {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
        process.kill();
    }
    let _process = program.start();
    let twice = all_arrived(&program, &receiver, &received).await;
    // At each kill at most what was under way, and one batch of results.
    assert!(twice <= kills * (8 + 200), "{twice} came more than once after {kills} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_on_sqlite_that_is_killed_loses_nothing() {
    killed_again_and_again(Place::file()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_on_postgresql_that_is_killed_loses_nothing() {
    killed_again_and_again(Place::postgresql().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_commit_or_of_the_first_start_loses_nothing() {
    let place = Place::file();
    let receiver = Receiver::logging(place.log("received"), |_| Reply::Status(200)).await;
    let program = place.program(&receiver, 300);
    // The kernel kills it as it syncs for the n-th time: while it makes its tables, accepts events, and writes results.
    for sync in [1, 2, 3, 5, 10, 40, 41, 90, 150] {
        let inject = format!("inject=fdatasync,fsync:signal=SIGKILL:when={sync}");
        let mut process = program.start_under(&[
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
        ]);
        eventually(SOON, "its end", async || match process.0.try_wait().expect("a process") {
            Some(status) => Ok(status),
            // One that has nothing left to write lives on.
            None if program.accepted().len() >= program.events => Ok(std::process::ExitStatus::default()),
            None => Err("it lives"),
        })
        .await;
        process.kill();
    }
    let _process = program.start();
    all_arrived(&program, &receiver, &place.path("received")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_request_and_its_result_sends_it_once_more_and_no_other() {
    for place in [Place::file(), Place::postgresql().await] {
        // The receiver takes its time with the twentieth, and the process is killed meanwhile.
        let receiver = Receiver::logging(place.log("received"), |seen| {
            if seen.number == 20 { Reply::after(Duration::from_secs(3), 200) } else { Reply::Status(200) }
        })
        .await;
        let program = Program { producers: 1, ..place.program(&receiver, 21) };
        let mut process = program.start();
        receiver.until(21).await;
        // What was answered before is in the store by then, or in the one batch that is not.
        tokio::time::sleep(Duration::from_millis(300)).await;
        process.kill();
        let slow = receiver.seen()[20].id().to_owned();
        let _process = program.start();
        let seen = receiver.until(22).await;
        assert_eq!(seen[21].id(), slow);
        let twice = all_arrived(&program, &receiver, &place.path("received")).await;
        assert_eq!(twice, 1, "the one of which nobody knew");
    }
}

/// W18.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_attempts_go_on_where_they_were() {
    for place in [Place::file(), Place::postgresql().await] {
        let receiver = Receiver::logging(place.log("received"), |_| Reply::Status(403)).await;
        let program = Program { producers: 1, ..place.program(&receiver, 1) };
        let mut process = program.start();
        receiver.until(3).await;
        process.kill();
        let _process = program.start();
        let store =
            Store::new(Location::Url(place.url.as_str().into()), Metrics::registered().0.store.clone());
        let (store, uid) = (store.expect("a store"), "uid-hook");
        let attempts = eventually(SOON, "the end", async || {
            let pending = store.deliveries().pending_of(uid).await.map_err(|error| error.to_string())?;
            let filter = AttemptFilter::default();
            let attempts =
                store.deliveries().attempts(uid, &filter, 100).await.map_err(|error| error.to_string())?;
            if pending == 0 { Ok(attempts) } else { Err(format!("{attempts:?}")) }
        })
        .await;
        let mut numbers: Vec<_> = attempts.iter().map(|attempt| attempt.record.number).collect();
        numbers.reverse();
        assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
        // The one whose result the process took with it was made twice.
        assert!((8..=9).contains(&receiver.count()), "{} requests", receiver.count());
    }
}
