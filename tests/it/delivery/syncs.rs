//! Whether what is accepted is on the disk, and not only with the kernel: `kill -9` cannot tell.

use std::{process::Command, time::Duration};

use authlink::delivery::EngineSettings;
use serde_json::json;

use super::{bed::Bed, kills::Place, process::Program, receiver::Receiver};
use crate::support::{SOON, Server, System, eventually, postgresql};

const EVENTS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn each_acceptance_on_sqlite_waits_for_a_sync() {
    let place = Place::file();
    let receiver = Receiver::start().await;
    let program = Program { producers: 1, suspended: true, ..place.program(&receiver, EVENTS) };
    let trace = place.path("trace");
    let traced = trace.display().to_string();
    let mut process = program.start_under(&[
        "strace",
        "-f",
        "-qq",
        "-s",
        "64",
        "-o",
        &traced,
        "-e",
        "trace=fdatasync,fsync,write",
    ]);
    eventually(SOON, "all of them", async || match program.accepted().len() {
        EVENTS => Ok(()),
        some => Err(some),
    })
    .await;
    process.kill();
    // Between two lines of the log of what was accepted there is a sync that has ended.
    let text = std::fs::read_to_string(trace).expect("a trace");
    let mut synced = false;
    let mut acceptances = 0;
    for line in text.lines() {
        if line.contains("sync(") || line.contains("sync resumed") {
            synced |= line.contains("= 0");
        } else if line.contains(" write(") && line.contains("\"evt_") {
            assert!(synced, "no sync before acceptance {acceptances}");
            (synced, acceptances) = (false, acceptances + 1);
        }
    }
    assert_eq!(acceptances, EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acceptance_on_postgresql_waits_for_the_log_whatever_the_database_says() {
    let server = Server::start(System::Postgresql);
    let mut admin = postgresql::admin_on(server.port).await;
    postgresql::run(&mut admin, "alter role app set synchronous_commit = off").await;
    let url = format!("postgres://app:app-secret@127.0.0.1:{}/app", server.port);
    let bed = Bed::on(&url, EngineSettings::default()).await;
    // A commit that does not wait leaves the writing to another process, which does it five times a second.
    let writes = async |admin: &mut sqlx::PgConnection| {
        let all = "select wal_write from pg_stat_wal";
        sqlx::query_scalar::<_, i64>(all).fetch_one(admin).await.expect("a number")
    };
    let before = writes(&mut admin).await;
    for n in 0..EVENTS {
        bed.accept("a", json!(n)).await;
    }
    // The server adds up what its processes have done when they have nothing else to do.
    let wanted = before + i64::try_from(EVENTS).expect("a small number");
    eventually(Duration::from_secs(20), "writes of the log", async || match writes(&mut admin).await {
        written if written >= wanted => Ok(()),
        written => Err(written - before),
    })
    .await;
}

#[test]
fn the_tools_are_there() {
    for tool in ["strace", "faketime"] {
        let version = Command::new(tool).arg("--version").output();
        assert!(version.is_ok_and(|it| it.status.success()), "{tool} is missing: run e2e/prepare faults");
    }
}
