//! Leader election by a `coordination.k8s.io/v1` Lease, after the protocol of client-go's `leaderelection`.
//!
//! Clocks of two machines are never compared: a Lease has expired when it was *seen* unchanged for its duration, by
//! the monotonic clock of the one that looks. A leader's own right ends its duration after the *start* of the last
//! renewal that succeeded, by [`Fence`], which every write asks: a process that was frozen and wakes up past its time
//! writes nothing, even before it learns that another one has taken over. (That, and the comparison of clocks, is what
//! the election crates for this version of kube do not give.)

use std::time::Duration;

use futures::{FutureExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as LeaseObject, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::fence::Fence;

/// Which election, and as whom.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who takes part.
    pub identity: String,
    /// How long the Lease holds without renewal.
    pub duration: Duration,
}

/// How long work in progress may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs `lead` until `end`. Where that ends with true, `lead` may finish what it has begun; else it is cut off, since
/// somebody else may lead by then.
pub(super) async fn lead_until<F: Future<Output = ()>>(
    lead: impl Fn(CancellationToken) -> F,
    end: impl Future<Output = bool>,
) -> bool {
    let halt = CancellationToken::new();
    let leading = lead(halt.clone());
    pin_mut!(leading);
    let orderly = tokio::select! {
        orderly = end => orderly,
        () = &mut leading => false,
    };
    if orderly {
        halt.cancel();
        if tokio::time::timeout(DRAIN, leading).await.is_err() {
            tracing::warn!("work in progress was cut off");
        }
    }
    orderly
}

/// Takes part in an election.
pub struct Lease {
    api: Api<LeaseObject>,
    election: Election,
    fence: Fence,
    /// The Lease as last seen, and when it was first seen so.
    seen: Option<(LeaseObject, Instant)>,
}

impl Lease {
    /// Takes part in `election`, and moves `fence` with its outcome.
    #[must_use]
    pub fn new(client: Client, election: Election, fence: Fence) -> Self {
        Self { api: Api::namespaced(client, &election.namespace), election, fence, seen: None }
    }

    /// Runs `lead` whenever this process leads and calls `lost` after each time, until `stop`; then lets `lead` end in
    /// an orderly way, and gives the Lease back, so that the next leader need not wait.
    pub async fn hold_while<F: Future<Output = ()>, L: Future<Output = ()>>(
        mut self,
        lead: impl Fn(CancellationToken) -> F,
        lost: impl Fn() -> L,
        stop: impl Future<Output = ()>,
    ) {
        let stop = stop.fuse();
        pin_mut!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = self.acquire() => {}
            }
            tracing::info!(identity = self.election.identity, "leading");
            let keep = async {
                tokio::select! {
                    () = &mut stop => true,
                    () = self.keep() => false,
                }
            };
            let stopped = lead_until(&lead, keep).await;
            if !stopped {
                self.fence.close();
            }
            // An orderly end may still write: the Lease is ours until it is released.
            if tokio::time::timeout(DRAIN, lost()).await.is_err() {
                tracing::warn!("background jobs did not end within {DRAIN:?}");
            }
            self.fence.close();
            if stopped {
                self.release().await;
                return;
            }
            tracing::warn!("not leading any more");
        }
    }

    /// Waits until the Lease is ours.
    async fn acquire(&mut self) {
        while !self.attempt(None).await {
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// Renews until the Lease is lost: taken by another one, or not renewed for its duration.
    async fn keep(&mut self) {
        let mut until = Instant::now() + self.election.duration;
        loop {
            tokio::time::sleep(self.pause().min(until.saturating_duration_since(Instant::now()))).await;
            if self.fence.check().is_err() {
                return;
            }
            let started = Instant::now();
            if self.attempt(Some(until)).await {
                until = started + self.election.duration;
            } else if self.taken() || Instant::now() >= until {
                return;
            }
        }
    }

    /// A fifth of the duration: four renewals may fail before the fifth is too late.
    fn pause(&self) -> Duration {
        self.election.duration / 5
    }

    /// One that is not answered leaves time for another one, by another connection: one server of several may be gone.
    async fn attempt(&mut self, until: Option<Instant>) -> bool {
        let end = Instant::now() + self.election.duration / 3;
        let end = until.map_or(end, |until| until.min(end));
        tokio::time::timeout_at(end, self.try_once()).await.unwrap_or_else(|_| {
            tracing::warn!("the Lease cannot be read or written: the API server does not answer");
            false
        })
    }

    /// Reads the Lease, and takes or renews it where that is right. Tells whether it is ours now.
    async fn try_once(&mut self) -> bool {
        let started = Instant::now();
        match self.claim().await {
            Ok(Some(lease)) => {
                self.seen = Some((lease, started));
                self.fence.open_until(started + self.election.duration);
                true
            }
            Ok(None) => false,
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => false,
            Err(error) => {
                tracing::warn!(%error, "the Lease cannot be read or written");
                false
            }
        }
    }

    async fn claim(&mut self) -> kube::Result<Option<LeaseObject>> {
        let params = PostParams::default();
        let Some(mut lease) = self.api.get_opt(&self.election.name).await? else {
            let metadata = ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() };
            let lease = LeaseObject { metadata, spec: Some(self.spec(None)) };
            return self.api.create(&params, &lease).await.map(Some);
        };
        self.see(&lease);
        if !self.free() {
            return Ok(None);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        // With the resource version that was read: whoever else wrote meanwhile has won.
        self.api.replace(&self.election.name, &params, &lease).await.map(Some)
    }

    /// Remembers since when the Lease looks as it does.
    fn see(&mut self, lease: &LeaseObject) {
        let unchanged = |seen: &LeaseObject| seen.resource_version() == lease.resource_version();
        if self.seen.as_ref().is_none_or(|(seen, _)| !unchanged(seen)) {
            self.seen = Some((lease.clone(), Instant::now()));
        }
    }

    /// Whether the Lease as seen is ours, nobody's, or expired.
    fn free(&self) -> bool {
        let Some((lease, since)) = &self.seen else { return true };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        holder.is_empty() || holder == self.election.identity || since.elapsed() >= duration
    }

    /// Whether the Lease as seen is somebody else's.
    fn taken(&self) -> bool {
        !self.free()
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.election.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            // Kubernetes knows whole seconds only: rounded up, so that nobody takes over too early.
            lease_duration_seconds: i32::try_from(self.election.duration.as_millis().div_ceil(1000)).ok(),
            acquire_time: ours.map_or(now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(transitions + i32::from(before.is_some() && ours.is_none())),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back; best effort, within a second.
    async fn release(&self) {
        if !matches!(tokio::time::timeout(Duration::from_secs(1), self.give_back()).await, Ok(Ok(()))) {
            tracing::warn!("the Lease could not be given back: the next leader waits for its end");
        }
    }

    /// From what it is now: a renewal that was cut off may have arrived all the same, or arrive in between.
    async fn give_back(&self) -> kube::Result<()> {
        loop {
            let mut lease = self.api.get(&self.election.name).await?;
            let ours = |spec: &&mut LeaseSpec| spec.holder_identity.as_ref() == Some(&self.election.identity);
            let Some(spec) = lease.spec.as_mut().filter(ours) else { return Ok(()) };
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            match self.api.replace(&self.election.name, &PostParams::default(), &lease).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                answer => return answer.map(drop),
            }
        }
    }
}
