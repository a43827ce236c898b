//! The store, on each of its engines: what it keeps, and what it says when it cannot.

mod delivery;
mod leases;
mod location;
mod retention;

use std::{sync::Arc, time::Duration};

use authlink::{
    domain::{
        breaker::State,
        usage::{Call, Counts},
    },
    store::{Entry, Error, Location, ReplicaState, Store},
    telemetry::metrics::Metrics,
};
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

use crate::support::{
    Server, System,
    postgresql::{self, NewDatabase},
    signal,
};

const ALIVE: Duration = Duration::from_secs(45);
const SLOT: i64 = 100;
static NOTHING: ReplicaState = ReplicaState { circuits: Vec::new(), saturated: Vec::new(), webhooks: None };

/// A place for a store, gone with the value.
pub(crate) enum Place {
    File(TempDir),
    Postgresql(NewDatabase),
}

impl Place {
    /// One of each engine.
    pub(crate) async fn each() -> [Self; 2] {
        [
            Self::File(tempfile::tempdir().expect("a folder")),
            Self::Postgresql(postgresql::new_database().await),
        ]
    }

    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite://{}/authlink.db", folder.path().display()),
            Self::Postgresql(database) => database.url.clone(),
        }
    }

    /// The store, as another process opens it.
    pub(crate) fn open(&self) -> Store {
        open(&self.url())
    }

    /// The number that a query gives.
    async fn count(&self, query: &'static str) -> i64 {
        match self {
            Self::File(folder) => {
                let file = folder.path().join("authlink.db");
                let mut connection =
                    SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("a file");
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("a number")
            }
            Self::Postgresql(database) => {
                let mut connection = sqlx::PgConnection::connect(&database.url).await.expect("a login");
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("a number")
            }
        }
    }

    /// The rows of a query, each of whose columns is a text.
    pub(crate) async fn texts(&self, query: &str) -> Vec<Vec<String>> {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        let text = |value: Option<String>| value.unwrap_or_default();
        match self {
            Self::File(folder) => {
                let file = format!("sqlite://{}", folder.path().join("authlink.db").display());
                let mut connection = SqliteConnection::connect(&file).await.expect("a file");
                let rows = sqlx::query(query).fetch_all(&mut connection).await.expect("a query");
                rows.iter().map(|row| (0..row.len()).map(|at| text(row.get(at))).collect()).collect()
            }
            Self::Postgresql(database) => {
                let mut connection = sqlx::PgConnection::connect(&database.url).await.expect("a login");
                let rows = sqlx::query(query).fetch_all(&mut connection).await.expect("a query");
                rows.iter().map(|row| (0..row.len()).map(|at| text(row.get(at))).collect()).collect()
            }
        }
    }

    async fn run(&self, statement: &'static str) {
        match self {
            Self::File(folder) => {
                let file = folder.path().join("authlink.db");
                let mut connection =
                    SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("a file");
                sqlx::raw_sql(statement).execute(&mut connection).await.expect("a statement");
            }
            Self::Postgresql(database) => {
                let mut connection = sqlx::PgConnection::connect(&database.url).await.expect("a login");
                sqlx::raw_sql(statement).execute(&mut connection).await.expect("a statement");
            }
        }
    }
}

fn open(url: &str) -> Store {
    open_at(Location::Url(url.into()))
}

fn open_at(location: Location) -> Store {
    Store::new(location, Metrics::registered().0.store).expect("a store")
}

fn entry(uid: &str, slot: i64, requests: u64) -> Entry {
    let mut counts = Counts::default();
    for millis in 0..requests {
        let took = Some(Duration::from_millis(millis));
        counts.add(&Call { failed: millis % 2 == 0, limited: millis % 3 == 0, took });
    }
    Entry { uid: uid.to_owned(), slot, counts }
}

/// What is in it, in order.
async fn all(store: &Store) -> Vec<(i64, Entry)> {
    let mut entries = store.usage().read(0, None, ALIVE).await.expect("a snapshot").entries;
    entries.sort_by_key(|(replica, entry)| (entry.uid.clone(), entry.slot, *replica));
    entries
}

#[tokio::test]
async fn processes_that_start_at_once_make_the_tables_once() {
    for place in Place::each().await {
        let stores: Vec<_> = (0..8).map(|_| Arc::new(place.open())).collect();
        let starting = stores.iter().cloned().map(|store| {
            tokio::spawn(async move {
                store.prepare().await?;
                store.usage().write(1, &[], &NOTHING).await
            })
        });
        for started in futures::future::join_all(starting).await {
            started.expect("no panic").expect("the tables are there");
        }
        place.open().prepare().await.expect("a later process finds them");
    }
}

#[tokio::test]
async fn what_was_counted_outlives_the_process_and_is_the_same_when_read() {
    for place in Place::each().await {
        let entries = [entry("a", SLOT, 40), entry("a", SLOT + 1, 3), entry("b", SLOT, 0)];
        place.open().usage().write(7, &entries, &NOTHING).await.expect("written");
        assert_eq!(all(&place.open()).await, entries.map(|entry| (7, entry)));
    }
}

#[tokio::test]
async fn a_slot_that_is_written_again_takes_its_own_place_and_no_other_replicas() {
    for place in Place::each().await {
        let store = place.open();
        store.usage().write(1, &[entry("a", SLOT, 1)], &NOTHING).await.expect("written");
        store.usage().write(2, &[entry("a", SLOT, 5)], &NOTHING).await.expect("written");
        store.usage().write(1, &[entry("a", SLOT, 2)], &NOTHING).await.expect("written");
        assert_eq!(all(&store).await, [(1, entry("a", SLOT, 2)), (2, entry("a", SLOT, 5))]);
    }
}

#[tokio::test]
async fn thousands_of_objects_are_written_at_once_and_only_what_is_new_is_read() {
    for place in Place::each().await {
        let store = place.open();
        let many: Vec<_> = (0..2500).map(|n| entry(&format!("object-{n:04}"), SLOT, 1)).collect();
        store.usage().write(1, &many, &NOTHING).await.expect("written");
        let read = store.usage().read(SLOT, None, ALIVE).await.expect("read");
        assert_eq!(read.entries.len(), 2500);
        // A minute later: what was written then is past the time that late writes get.
        let later = Some(read.at + 60_000);
        assert_eq!(store.usage().read(SLOT, later, ALIVE).await.expect("read").entries.len(), 0);
        let now = Some(read.at);
        assert_eq!(
            store.usage().read(SLOT, now, ALIVE).await.expect("read").entries.len(),
            2500,
            "it may have come late"
        );
        assert_eq!(
            store.usage().read(SLOT + 1, None, ALIVE).await.expect("read").entries.len(),
            0,
            "too old a slot"
        );
    }
}

#[tokio::test]
async fn gateways_count_while_they_write_and_what_is_worst_at_one_of_them_holds() {
    for place in Place::each().await {
        let store = place.open();
        let replica_state = |circuits: &[(&str, State)], saturated: &[&str]| ReplicaState {
            circuits: circuits.iter().map(|(uid, state)| ((*uid).to_owned(), *state)).collect(),
            saturated: saturated.iter().map(|uid| (*uid).to_owned()).collect(),
            webhooks: None,
        };
        let first = replica_state(&[("a", State::HalfOpen), ("b", State::Open)], &["c", "d"]);
        store.usage().write(1, &[], &first).await.expect("written");
        store.usage().write(2, &[], &replica_state(&[("a", State::Open)], &["d"])).await.expect("written");
        let seen = async || {
            let mut read = store.usage().read(SLOT, None, ALIVE).await.expect("read");
            read.replica_state.circuits.sort_by(|one, other| one.0.cmp(&other.0));
            read.replica_state.saturated.sort();
            (read.replicas, read.replica_state)
        };
        assert_eq!(seen().await, (2, replica_state(&[("a", State::Open), ("b", State::Open)], &["c", "d"])));
        store
            .usage()
            .write(1, &[], &replica_state(&[("a", State::HalfOpen)], &["c"]))
            .await
            .expect("written");
        assert_eq!(seen().await, (2, replica_state(&[("a", State::Open)], &["c", "d"])));
        store.usage().leave(2).await.expect("left");
        assert_eq!(seen().await, (1, replica_state(&[("a", State::HalfOpen)], &["c"])));
        // One that died says nothing any more.
        place.run("update authlink_replicas set seen = seen - 46000").await;
        assert_eq!(seen().await, (0, NOTHING.clone()));
    }
}

#[tokio::test]
async fn what_is_old_is_deleted() {
    for place in Place::each().await {
        let store = place.open();
        let replica_state = ReplicaState {
            circuits: vec![("a".to_owned(), State::Open)],
            saturated: vec!["b".to_owned()],
            ..ReplicaState::default()
        };
        store
            .usage()
            .write(1, &[entry("a", SLOT - 1, 1), entry("a", SLOT, 1)], &replica_state)
            .await
            .expect("written");
        place.run("update authlink_replicas set seen = seen - 3600001").await;
        store.usage().write(2, &[], &replica_state).await.expect("written");
        store.usage().purge(SLOT).await.expect("purged");
        assert_eq!(all(&store).await, [(1, entry("a", SLOT, 1))]);
        // A gateway that comes back to life does not bring with it how it stood.
        place
            .run("insert into authlink_replicas (replica, seen) select 1, seen from authlink_replicas")
            .await;
        place.run("delete from authlink_replicas where replica = 2").await;
        let read = store.usage().read(SLOT, None, ALIVE).await.expect("read");
        assert_eq!((read.replicas, read.replica_state), (1, NOTHING.clone()));
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone_and_says_so() {
    for place in Place::each().await {
        place.open().prepare().await.expect("prepared");
        place.run("insert into authlink_schema values (99)").await;
        let store = place.open();
        let refused = store.usage().write(1, &[], &NOTHING).await.expect_err("a newer schema");
        assert!(matches!(refused, Error::Newer { found: 99, .. }), "{refused}");
        assert!(refused.to_string().contains("run the newer version"), "{refused}");
        place.run("delete from authlink_schema where version = 99").await;
        store.usage().write(1, &[], &NOTHING).await.expect("it works without a restart once it can");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_folder_that_is_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    std::fs::write(&file, "not a database, and long enough to be seen as none: ".repeat(100))
        .expect("a file");
    for path in [file.clone(), folder.path().join("none/authlink.db")] {
        let refused = open(&format!("sqlite://{}", path.display())).prepare().await.expect_err("no store");
        assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
    }
    let kept = std::fs::read_to_string(file).expect("the file");
    assert!(kept.starts_with("not a database"));
}

#[tokio::test]
async fn a_store_in_memory_keeps_what_it_gets_as_long_as_it_is_there() {
    let store = open("sqlite::memory:");
    assert!(store.is_volatile());
    let writes = (0..20).map(|replica| {
        let store = &store;
        async move { store.usage().write(replica, &[entry("a", SLOT, 1)], &NOTHING).await }
    });
    for written in futures::future::join_all(writes).await {
        written.expect("written");
    }
    assert_eq!(all(&store).await.len(), 20);
    assert_eq!(all(&open("sqlite::memory:")).await.len(), 0, "another one is another one");
}

#[tokio::test]
async fn no_error_repeats_the_password() {
    let port = System::Postgresql.port();
    let nobody = crate::support::free_port();
    let urls = [
        format!("postgres://app:hunter2@127.0.0.1:{port}/app"),
        format!("postgres://app:hunter2@127.0.0.1:{nobody}/app"),
        format!(
            "postgres://app:hunter2@127.0.0.1:{port}/app?sslmode=verify-full&sslrootcert=/none/hunter2.pem"
        ),
        "postgres://app:hunter2@no-such-host.invalid/app".to_owned(),
    ];
    for url in urls {
        let store = open(&url);
        let failed = store.prepare().await.expect_err("no such login");
        let said = format!("{failed} {failed:?} {}", store.place());
        assert!(!said.contains("app:hunter2") && !said.contains("hunter2@"), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_went_or_hangs_fails_in_time_and_is_used_again_when_it_is_back() {
    let server = Server::start(System::Postgresql);
    let store = open(&format!("postgres://app:app-secret@127.0.0.1:{}/app", server.port));
    store.usage().write(1, &[entry("a", SLOT, 1)], &NOTHING).await.expect("written");
    server.kill();
    let failed = store.usage().write(1, &[entry("a", SLOT, 2)], &NOTHING).await.expect_err("nobody there");
    assert!(matches!(failed, Error::Unreachable(_)), "{failed:?}");
    server.resume();
    store.usage().write(1, &[entry("a", SLOT, 3)], &NOTHING).await.expect("written");
    // Both of its connections hang: one that is frozen takes what is sent, and never answers.
    let (written, read) =
        tokio::join!(store.usage().write(1, &[], &NOTHING), store.usage().read(SLOT, None, ALIVE));
    written.and(read.map(drop)).expect("two connections");
    let frozen = backends(server.port).await;
    for pid in &frozen {
        signal("STOP", pid);
    }
    let (written, read) =
        tokio::join!(store.usage().write(1, &[], &NOTHING), store.usage().read(SLOT, None, ALIVE));
    assert!(written.is_err() && read.is_err(), "{written:?} {read:?}");
    store.usage().write(1, &[entry("a", SLOT, 3)], &NOTHING).await.expect("others are not waited for");
    for pid in &frozen {
        signal("CONT", pid);
    }
    store.usage().write(1, &[entry("a", SLOT, 4)], &NOTHING).await.expect("written");
    assert_eq!(all(&store).await, [(1, entry("a", SLOT, 4))]);
}

/// The server's processes that serve stores.
async fn backends(port: u16) -> Vec<String> {
    let pids = "select pid::text from pg_stat_activity where application_name = 'authlink-store'";
    let mut admin = postgresql::admin_on(port).await;
    sqlx::query_scalar(pids).fetch_all(&mut admin).await.expect("processes")
}

#[tokio::test]
async fn a_locked_table_holds_a_process_up_no_longer_than_its_patience() {
    let database = postgresql::new_database().await;
    let store = open(&database.url);
    store.prepare().await.expect("prepared");
    let mut other = sqlx::PgConnection::connect(&database.url).await.expect("a login");
    sqlx::raw_sql("begin; lock table authlink_replicas").execute(&mut other).await.expect("locked");
    let failed = store.usage().write(1, &[], &NOTHING).await.expect_err("locked");
    assert!(matches!(failed, Error::Refused(_)), "the server itself gives up: {failed:?}");
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("unlocked");
    store.usage().write(1, &[], &NOTHING).await.expect("written");
}
