//! The Lease: at most one process writes, also when one of them was frozen.

use std::time::{Duration, Instant};

use authlink::{
    cluster::fence::Fence,
    runtime::{Election, Lease},
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::{Client, Config};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

use crate::support::{Namespace, Operator, SOON, Spec, eventually};

const DURATION: Duration = Duration::from_secs(2);

/// A process's part in an election, without the rest of it.
struct Candidate {
    fence: Fence,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Candidate {
    fn enter(namespace: &Namespace, identity: &str) -> Self {
        Self::enter_by(namespace.client.clone(), namespace, identity, DURATION)
    }

    fn enter_by(client: Client, namespace: &Namespace, identity: &str, duration: Duration) -> Self {
        let fence = Fence::default();
        let election = Election {
            namespace: namespace.name.clone(),
            name: "test".to_owned(),
            identity: identity.to_owned(),
            duration,
        };
        let lease = Lease::new(client, election, fence.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task =
            tokio::spawn(lease.hold_while(|_| std::future::pending(), || std::future::ready(()), async {
                drop(stopped.await);
            }));
        Self { fence, stop: Some(stop), task }
    }

    fn leads(&self) -> bool {
        self.fence.check().is_ok()
    }

    async fn leading(&self) -> Duration {
        let started = Instant::now();
        eventually(SOON, "leading", async || if self.leads() { Ok(()) } else { Err("not leading") }).await;
        started.elapsed()
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.expect("the election ends");
    }
}

async fn holder(namespace: &Namespace) -> String {
    let lease = namespace.api::<LeaseObject>().get("test").await.expect("the Lease");
    lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_at_once() {
    let namespace = Namespace::create().await;
    let first = Candidate::enter(&namespace, "first");
    first.leading().await;
    let second = Candidate::enter(&namespace, "second");
    eventually(SOON, "the first one has renewed its Lease", async || {
        let lease = namespace.api::<LeaseObject>().get("test").await.map_err(|error| error.to_string())?;
        let spec = lease.spec.unwrap_or_default();
        if spec.renew_time > spec.acquire_time { Ok(()) } else { Err(format!("{spec:?}")) }
    })
    .await;
    assert!(first.leads() && !second.leads());
    first.stop().await;
    // One look at the Lease, which a candidate takes every fifth of the duration.
    assert!(second.leading().await < DURATION);
    assert_eq!(holder(&namespace).await, "second");
    second.stop().await;
    assert_eq!(holder(&namespace).await, "", "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_is_followed_after_the_lease_and_never_before() {
    let namespace = Namespace::create().await;
    let first = Candidate::enter(&namespace, "first");
    first.leading().await;
    let second = Candidate::enter(&namespace, "second");
    first.task.abort();
    eventually(SOON, "one of both", async || {
        // At no time both: the first one's right ends by itself.
        assert!(!(first.leads() && second.leads()));
        if second.leads() { Ok(()) } else { Err("nobody leads yet") }
    })
    .await;
    assert!(!first.leads());
}

/// The API server by way of a proxy whose connections fall silent when it is told so, and new ones do not: as if one server of
/// several was gone without a word.
async fn by_proxy() -> (Client, watch::Sender<()>) {
    let mut config = Config::infer().await.expect("KUBECONFIG of a cluster");
    let server = config.cluster_url.authority().expect("an address").to_string();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    config.tls_server_name = config.cluster_url.host().map(str::to_owned);
    config.cluster_url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
    let (silence, silenced) = watch::channel(());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (mut silenced, server) = (silenced.clone(), server.clone());
            silenced.mark_unchanged();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.expect("the API server");
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    Ok(()) = silenced.changed() => std::future::pending().await,
                }
            });
        }
    });
    (Client::try_from(config).expect("a client"), silence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_not_answered_costs_no_leadership() {
    let namespace = Namespace::create().await;
    let (client, silence) = by_proxy().await;
    let candidate = Candidate::enter_by(client, &namespace, "first", 5 * DURATION);
    candidate.leading().await;
    silence.send_replace(());
    let silenced = Timestamp::now();
    eventually(SOON, "another renewal", async || {
        let lease = namespace.api::<LeaseObject>().get("test").await.map_err(|error| error.to_string())?;
        assert!(candidate.leads());
        let renewed = lease.spec.and_then(|spec| spec.renew_time).ok_or("never renewed")?;
        if renewed.0 > silenced { Ok(()) } else { Err(renewed.0.to_string()) }
    })
    .await;
    assert!(candidate.leads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_past_its_lease_writes_nothing_when_it_wakes_up() {
    let namespace = Namespace::create().await;
    // The chart's permissions name the one Lease.
    let flags = ["--leader-elect", "true", "--lease-duration", "2s", "--lease-namespace", "authlink-test"];
    let frozen = Operator::start(&namespace, &[&flags[..], &["--identity", "frozen"]].concat()).await;
    let spec = Spec::from(serde_json::json!({ "type": "postgresql", "host": "nothing.invalid" }));
    namespace.database("one", &spec).await;
    namespace.until("one", SOON, "the leader works", |database| status_of(database) == "DnsFailed").await;
    frozen.signal("STOP");

    let awake = Operator::start(&namespace, &[&flags[..], &["--identity", "awake"]].concat()).await;
    let other = Spec::from(serde_json::json!({ "type": "postgresql", "host": "localhost", "port": 1 }));
    namespace.database("one", &other).await;
    namespace
        .until("one", SOON, "the other one took over", |database| status_of(database) == "ConnectionRefused")
        .await;
    namespace.events_with("one", "ConnectionRefused").await;
    let writes = namespace.status_writes();
    frozen.signal("CONT");
    eventually(SOON, "the frozen one knows", async || match frozen.metric("authlink_leader", "") {
        0.0..0.5 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(namespace.status_writes(), writes, "it wrote after it woke up");
    assert!(awake.metric("authlink_leader", "") > 0.0);
}

fn status_of(database: &authlink::api::v1alpha1::Database) -> &str {
    crate::support::condition(database, "Ready").map_or("", |condition| &condition.reason)
}
