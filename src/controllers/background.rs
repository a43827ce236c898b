//! Background jobs: work that takes longer than a reconcile, one supervised task for each object.
//!
//! A reconcile starts the job, or finds it running, and reports its state; the end of the job requeues the object. A job that
//! fails or panics is restarted with backoff. Only the leader runs jobs: what a job writes asks the fence first, and whoever stops
//! leading waits for the jobs to end, for a bounded time.

use std::{
    any::Any,
    collections::HashMap,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Error, RequeueFn};
use crate::{
    cluster::fence::{Fence, NotLeader},
    domain::backoff::{Retry, delay},
};

/// Progress requeues the object at most this often: each time may be a write of its status.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// A job that runs for so long without a failure has recovered from those before.
const RECOVERED: Duration = Duration::from_mins(5);

/// How long jobs may take to end when this process leads no more.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// Work for one object.
pub trait Job: Send + Sync + 'static {
    /// How far it is.
    type Progress: Clone + Default + Send + Sync + 'static;

    /// Does the work once. It ends soon after [`JobContext::cancelled`].
    ///
    /// # Errors
    /// What kept it from being done: it is started again with backoff.
    fn run(&self, cx: &JobContext<Self::Progress>) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What a running job may use.
pub struct JobContext<P> {
    state: Arc<Mutex<JobState<P>>>,
    requeue: RequeueFn,
    /// Whether there is progress that the object was not requeued for.
    unreported: AtomicBool,
    cancel: CancellationToken,
    fence: Fence,
}

/// A job as a reconcile reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobState<P> {
    /// How far it is, or was when it ended.
    pub progress: P,
    /// Whether it has ended well.
    pub done: bool,
    /// Why it failed last, while it is being retried.
    pub failure: Option<String>,
    /// Failures in a row.
    pub failures: u32,
}

impl<P> JobState<P> {
    fn succeed(&mut self) {
        (self.done, self.failure, self.failures) = (true, None, 0);
    }

    /// Failures in a row, this one included; those before a long run without one do not count.
    fn fail(&mut self, failure: String, recovered: bool) -> u32 {
        self.failure = Some(failure);
        self.failures = if recovered { 1 } else { self.failures + 1 };
        self.failures
    }

    /// The job runs without a failure for long enough. Whether there was one before.
    fn recover(&mut self) -> bool {
        self.failures = 0;
        self.failure.take().is_some()
    }
}

impl<P: Clone> JobContext<P> {
    /// Completes when the job is to end.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Reports how far the job is; the object is requeued for it within 15 s.
    pub fn progress(&self, progress: P) {
        self.state.lock().progress = progress;
        self.unreported.store(true, Relaxed);
    }

    /// Whether this process still leads: to be asked before each write outside of it.
    ///
    /// # Errors
    /// [`NotLeader`] when it does not.
    pub fn check(&self) -> Result<(), NotLeader> {
        self.fence.check()
    }
}

/// The jobs of a kind, by uid.
pub struct BackgroundJobs<J: Job>(Mutex<HashMap<String, Running<J>>>);

struct Running<J: Job> {
    key: u64,
    state: Arc<Mutex<JobState<J::Progress>>>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl<J: Job> Default for BackgroundJobs<J> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<J: Job> BackgroundJobs<J> {
    /// Starts the job of an object unless the one of this key runs, or has ended well; one of another key is cancelled, and ends
    /// first. Without the lead none is started. Its state as it is now.
    pub fn ensure(
        &self,
        uid: &str,
        key: u64,
        fence: &Fence,
        requeue: &RequeueFn,
        job: impl FnOnce() -> J,
    ) -> JobState<J::Progress> {
        let mut jobs = self.0.lock();
        jobs.retain(|_, running| !(running.cancel.is_cancelled() && running.task.is_finished()));
        let same = jobs.get(uid).filter(|running| running.key == key && !running.cancel.is_cancelled());
        if let Some(running) = same {
            return running.state.lock().clone();
        }
        if fence.check().is_err() {
            return JobState::default();
        }
        let before = jobs.remove(uid);
        let (state, cancel) = (Arc::<Mutex<JobState<J::Progress>>>::default(), CancellationToken::new());
        let cx = JobContext {
            state: Arc::clone(&state),
            requeue: Arc::clone(requeue),
            unreported: AtomicBool::new(false),
            cancel: cancel.clone(),
            fence: fence.clone(),
        };
        let job = job();
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // Two jobs of one object must not run at the same time.
                before.end().await;
            }
            supervise(&job, &cx).await;
        });
        jobs.insert(uid.to_owned(), Running { key, state, cancel, task });
        JobState::default()
    }

    /// Cancels the job of an object that is gone or suspended. The next one of the object waits for its end.
    pub fn cancel(&self, uid: &str) {
        if let Some(running) = self.0.lock().get(uid) {
            running.cancel.cancel();
        }
    }

    /// Cancels the job of an object, and waits until it has ended, for at most 8 s: before the object's external state is
    /// cleaned up.
    pub async fn stop(&self, uid: &str) {
        let running = self.0.lock().remove(uid);
        if let Some(running) = running {
            running.end().await;
        }
    }

    /// Cancels every job, and waits until they have ended, for at most 8 s; those that have not are aborted.
    pub async fn shut_down(&self) {
        let running: Vec<_> = self.0.lock().drain().map(|(_, running)| running).collect();
        join_all(running.into_iter().map(Running::end)).await;
    }
}

impl<J: Job> Running<J> {
    async fn end(self) {
        self.cancel.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("a background job did not end within {SHUTDOWN_TIMEOUT:?} and was aborted");
            abort.abort();
        }
    }
}

async fn supervise<J: Job>(job: &J, cx: &JobContext<J::Progress>) {
    while !cx.cancel.is_cancelled() {
        let started = Instant::now();
        let ended = run_once(job, cx).await;
        if cx.cancel.is_cancelled() {
            return;
        }
        let failure = match ended {
            Ok(Ok(())) => {
                cx.state.lock().succeed();
                return (cx.requeue)();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the background job panicked".to_owned(),
        };
        tracing::warn!(failure, "a background job failed and is retried");
        let failures = cx.state.lock().fail(failure, started.elapsed() >= RECOVERED);
        let pause = delay(Retry::Backoff, failures, rand::random());
        (cx.requeue)();
        tokio::select! {
            () = cx.cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs the job once, and requeues the object for its progress.
async fn run_once<J: Job>(
    job: &J,
    cx: &JobContext<J::Progress>,
) -> Result<Result<(), Error>, Box<dyn Any + Send>> {
    let mut run = pin!(AssertUnwindSafe(job.run(cx)).catch_unwind());
    let started = Instant::now();
    loop {
        tokio::select! {
            ended = &mut run => return ended,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
        }
        let recovered = started.elapsed() >= RECOVERED && cx.state.lock().recover();
        if cx.unreported.swap(false, Relaxed) || recovered {
            (cx.requeue)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// Fails, panics, and then works until it is cancelled or released.
    #[derive(Clone)]
    struct Probe {
        runs: Arc<AtomicU32>,
        running: Arc<AtomicU32>,
        release: CancellationToken,
    }

    impl Job for Probe {
        type Progress = u32;

        async fn run(&self, cx: &JobContext<u32>) -> Result<(), Error> {
            match self.runs.fetch_add(1, SeqCst) {
                0 => return Err(Error::TimedOut(Duration::from_secs(1))),
                1 => panic!("as it may"),
                _ => {}
            }
            assert_eq!(self.running.fetch_add(1, SeqCst), 0, "one at a time");
            cx.progress(7);
            tokio::select! {
                () = cx.cancelled() => tokio::time::sleep(Duration::from_secs(1)).await,
                () = self.release.cancelled() => {}
            }
            self.running.fetch_sub(1, SeqCst);
            Ok(())
        }
    }

    fn probe() -> Probe {
        Probe { runs: Arc::default(), running: Arc::default(), release: CancellationToken::new() }
    }

    struct Scene {
        jobs: BackgroundJobs<Probe>,
        requeues: Arc<AtomicU32>,
    }

    impl Scene {
        fn new() -> Self {
            Self { jobs: BackgroundJobs::default(), requeues: Arc::default() }
        }

        fn ensure(&self, key: u64, job: &Probe) -> JobState<u32> {
            let requeues = Arc::clone(&self.requeues);
            let requeue: RequeueFn = Arc::new(move || {
                requeues.fetch_add(1, SeqCst);
            });
            self.jobs.ensure("uid", key, &Fence::open(), &requeue, || job.clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_fails_or_panics_is_restarted_with_backoff_and_its_end_requeues_the_object() {
        let (scene, job) = (Scene::new(), probe());
        assert_eq!(scene.ensure(1, &job), JobState::default());
        tokio::time::sleep(Duration::from_mins(1)).await;
        let state = scene.ensure(1, &job);
        assert_eq!((job.runs.load(SeqCst), state.failures, state.progress, state.done), (3, 2, 7, false));
        assert_eq!(state.failure.as_deref(), Some("the background job panicked"));
        tokio::time::sleep(RECOVERED).await;
        let state = scene.ensure(1, &job);
        assert_eq!((state.failures, state.failure), (0, None), "it has run without a failure since");
        let before = scene.requeues.load(SeqCst);
        job.release.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = scene.ensure(1, &job);
        assert_eq!((state.done, state.failure, state.failures), (true, None, 0));
        assert_eq!(
            (scene.requeues.load(SeqCst), job.runs.load(SeqCst)),
            (before + 1, 3),
            "and it is not started again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_spec_replaces_the_job_once_the_one_before_has_ended() {
        let (scene, job) = (Scene::new(), probe());
        scene.ensure(1, &job);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(job.running.load(SeqCst), 1);
        scene.ensure(2, &job);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!((job.running.load(SeqCst), job.runs.load(SeqCst)), (1, 4));
        scene.jobs.cancel("uid");
        scene.ensure(2, &job);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((job.running.load(SeqCst), job.runs.load(SeqCst)), (1, 5), "suspended and resumed");
        scene.jobs.stop("uid").await;
        assert_eq!(job.running.load(SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leads_no_more_waits_for_the_jobs_to_end() {
        let (scene, job) = (Scene::new(), probe());
        scene.ensure(1, &job);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let started = tokio::time::Instant::now();
        scene.jobs.shut_down().await;
        assert_eq!((job.running.load(SeqCst), started.elapsed().as_secs()), (0, 1));
    }
}
