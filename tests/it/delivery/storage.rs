//! A store that goes away, fills up, or is not what it was: producers are refused, nothing that was accepted is lost, and everything goes
//! on by itself.
//!
//! AUTHLINK_CHAOS_ROUNDS (3) is how often it goes away; `make chaos` has it often.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use authlink::delivery::{AcceptError, Engine, EngineSettings};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    bed::{Bed, NAMESPACE, endpoint, event},
    kills::amount,
    receiver::{KEY, Receiver, Reply},
};
use crate::support::{SOON, Server, System, eventually, postgresql};

/// Results that may be on their way to the store when it goes: what is under way, and one batch.
const UNWRITTEN: usize = 8 + 200;

fn named(owner: &str) -> EngineSettings {
    EngineSettings {
        owner: owner.to_owned(),
        lease_time: Duration::from_secs(2),
        ..EngineSettings::default()
    }
}

/// A producer that goes on whatever happens, and what it was told; it ends with the value.
struct Producer {
    accepted: Arc<Mutex<BTreeSet<String>>>,
    refused: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Producer {
    fn start(engine: &Engine) -> Self {
        let (accepted, refused) = (Arc::<Mutex<BTreeSet<_>>>::default(), Arc::<Mutex<usize>>::default());
        let (engine, ids, failures) = (engine.clone(), Arc::clone(&accepted), Arc::clone(&refused));
        let task = tokio::spawn(async move {
            loop {
                let body = format!(r#"{{"type":"user.created","data":"{}"}}"#, "x".repeat(1000));
                match engine.accept(NAMESPACE, vec![event(&body)]).await {
                    Ok(accepted) => {
                        ids.lock().insert(accepted[0].id.clone().expect("an id"));
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(AcceptError::Store(_)) => {
                        *failures.lock() += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Self { accepted, refused, task }
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().len()
    }

    fn refused(&self) -> usize {
        *self.refused.lock()
    }

    /// Waits until so many more were accepted.
    async fn more(&self, count: usize) {
        let wanted = self.accepted() + count;
        eventually(SOON, "events that are accepted", async || match self.accepted() {
            some if some >= wanted => Ok(()),
            some => Err(some),
        })
        .await;
    }

    /// Waits until producers are refused.
    async fn refusals(&self) {
        let before = self.refused();
        eventually(SOON, "events that are refused", async || match self.refused() {
            some if some > before => Ok(()),
            _ => Err("none"),
        })
        .await;
    }

    /// Ends it, and waits until all that was accepted has been received and nothing is pending; gives how many came more than once.
    async fn end(self, bed: &Bed, receiver: &Receiver) -> usize {
        self.task.abort();
        let uid = "uid-hook".into();
        eventually(SOON, "all that was accepted", async || {
            let received: BTreeSet<_> = receiver.seen().iter().map(|seen| seen.id().to_owned()).collect();
            match self.accepted.lock().difference(&received).count() {
                0 => Ok(()),
                missing => Err(format!("{missing} missing")),
            }
        })
        .await;
        bed.drained(&uid).await;
        let mut bodies = std::collections::BTreeMap::new();
        let seen = receiver.seen();
        for seen in &seen {
            assert_eq!(seen.verify(KEY), Ok(()));
            assert_eq!(bodies.entry(seen.id()).or_insert(&seen.body), &&seen.body, "one id, one body");
        }
        seen.len() - bodies.len()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn url(port: u16) -> String {
    format!("postgres://app:app-secret@127.0.0.1:{port}/app")
}

/// K5 and W26.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_breaks_off_restarts_and_turns_read_only_loses_nothing() {
    let rounds = amount("AUTHLINK_CHAOS_ROUNDS", 3);
    let server = Server::start(System::Postgresql);
    let receiver = Receiver::start().await;
    let bed = Bed::on(&url(server.port), named("pod-0")).await;
    bed.set(endpoint("hook", &receiver.url()));
    let producer = Producer::start(&bed.engine);
    producer.more(20).await;
    for _ in 0..rounds {
        let mut admin = postgresql::admin_on(server.port).await;
        let terminate = "select pg_terminate_backend(pid) from pg_stat_activity \
                         where application_name = 'authlink-store'";
        postgresql::run(&mut admin, terminate).await;
        producer.more(20).await;
        drop(admin);
        server.kill();
        producer.refusals().await;
        server.resume();
        producer.more(20).await;
        let mut admin = postgresql::admin_on(server.port).await;
        postgresql::run(&mut admin, "alter system set default_transaction_read_only = on").await;
        postgresql::run(&mut admin, "select pg_reload_conf()").await;
        producer.refusals().await;
        // What is sent while the results cannot be kept is sent again: no more than was under way.
        let (sent, began) = (receiver.count(), Instant::now());
        producer.refusals().await;
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(began.elapsed())).await;
        assert!(receiver.count() - sent <= UNWRITTEN, "{} were sent", receiver.count() - sent);
        let undo = "set transaction_read_only = off; alter system reset default_transaction_read_only";
        for statement in undo.split("; ") {
            postgresql::run(&mut admin, statement).await;
        }
        postgresql::run(&mut admin, "select pg_reload_conf()").await;
        producer.more(20).await;
    }
    let twice = producer.end(&bed, &receiver).await;
    assert!(twice <= rounds * 3 * UNWRITTEN, "{twice} came more than once");
}

/// A small file system of its own, gone with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs", &path]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs needs root");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the engine may still have its files open.
        let _ = Command::new("umount").args(["-l", "--"]).arg(self.0.path()).status();
    }
}

/// K5.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_producers_and_everything_goes_on_once_there_is_room() {
    let disk = SmallDisk::mount();
    let receiver = Receiver::that(|_| Reply::after(Duration::from_millis(1), 200)).await;
    let url = format!("sqlite://{}/authlink.db", disk.0.path().display());
    let bed = Bed::on(&url, EngineSettings::default()).await;
    bed.set(endpoint("hook", &receiver.url()));
    let producer = Producer::start(&bed.engine);
    producer.more(20).await;
    let ballast = disk.0.path().join("ballast");
    for _ in 0..amount("AUTHLINK_CHAOS_ROUNDS", 3) {
        // Whatever room there is; that it ends in an error is the purpose.
        let _ = std::fs::write(&ballast, vec![0; 80 << 20]);
        producer.refusals().await;
        std::fs::remove_file(&ballast).expect("the ballast");
        producer.more(5).await;
    }
    let rounds = amount("AUTHLINK_CHAOS_ROUNDS", 3);
    let twice = producer.end(&bed, &receiver).await;
    assert!(twice <= rounds * UNWRITTEN, "{twice} came more than once");
}
