//! An ExternalApi made ready for calls: its endpoints with their connections, and what is counted for each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kube::ResourceExt;
use moka::sync::Cache;

use crate::{
    api::v1alpha1::{
        ExternalApi,
        external_api::{self, Scope},
    },
    backends::{
        http::Egress,
        service::{Service, Settings},
    },
    cluster::{catalog::Catalog, references::References},
    domain::{
        breaker::{self, Breaker},
        limiter::Limiter,
        load::Load,
        path::{self, Allow},
        retry::{Budget, On, Policy},
    },
    gateway::problem::{Kind, Problem},
    resolving,
};

/// A changed Secret is noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Calls of one API that are in flight at the same time: one that is slow must not take what the others need.
const MAX_IN_FLIGHT: u32 = 1024;

/// Callers whose limits are remembered, of each API.
const MAX_CALLERS: u64 = 10_000;

/// Every ExternalApi that has been called.
pub(in crate::gateway) struct Apis {
    objects: Catalog<ExternalApi>,
    references: Arc<dyn References>,
    egress: Egress,
    started: Instant,
    ready: RwLock<HashMap<(String, String), Arc<Prepared>>>,
    /// One is made ready at a time: it is rare, and nobody makes one twice.
    making: tokio::sync::Mutex<()>,
}

/// An ExternalApi made ready for calls.
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) timeout: Duration,
    pub(super) allow: Vec<Allow>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) retry: Option<Policy>,
    pub(super) respect_retry_after: bool,
    pub(super) budget: Mutex<Budget>,
    limit: Option<Limit>,
    pub(super) in_flight: AtomicU32,
    started: Instant,
    uid: String,
    generation: i64,
    keys: Vec<[u8; 32]>,
    /// When it was last compared with what the spec names, in milliseconds since the start.
    looked: AtomicU64,
}

/// One endpoint of it.
pub(super) struct Endpoint {
    pub(super) service: Service,
    pub(super) name: String,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    pub(super) ready: std::sync::atomic::AtomicBool,
    pub(super) breaker: Option<Mutex<Breaker>>,
    pub(super) load: Mutex<Load>,
}

enum Limit {
    Shared(Limiter),
    PerCaller { spec: external_api::RateLimit, limiters: Cache<String, Arc<Limiter>> },
}

impl Apis {
    pub(in crate::gateway) fn new(
        objects: Catalog<ExternalApi>,
        references: Arc<dyn References>,
        egress: Egress,
    ) -> Self {
        Self {
            objects,
            references,
            egress,
            started: Instant::now(),
            ready: RwLock::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// The API of this name as it is now.
    ///
    /// # Errors
    /// `ServiceNotFound`, `NotReady`.
    pub(super) async fn prepared(&self, namespace: &str, name: &str) -> Result<Arc<Prepared>, Problem> {
        let guard = self.objects.get(namespace, name);
        let Some(api) = guard.as_deref().and_then(|guard| guard.0.as_ref().ok()) else {
            self.all_mut().remove(&(namespace.to_owned(), name.to_owned()));
            let detail = format!("there is no ExternalApi {name} in the namespace {namespace}");
            return Err(Problem::new(Kind::ServiceNotFound, detail));
        };
        if api.spec.suspend {
            return Err(Problem::new(Kind::NotReady, "spec.suspend of the ExternalApi is set"));
        }
        let known = self.known(namespace, name).filter(|known| known.is_of(api));
        if let Some(known) = known.filter(|known| !known.is_due()) {
            known.follow(api);
            return Ok(known);
        }
        self.prepare(api, namespace, name).await
    }

    async fn prepare(
        &self,
        api: &ExternalApi,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Prepared>, Problem> {
        let _making = self.making.lock().await;
        let known = self.known(namespace, name).filter(|known| known.is_of(api));
        if let Some(known) = known.as_ref().filter(|known| !known.is_due()) {
            return Ok(Arc::clone(known)); // made while this one waited
        }
        let resolved = resolving::external_api::resolve(api, self.references.as_ref()).await;
        let settings = match (resolved, &known) {
            (Ok(resolved), _) => resolved.targets,
            // The last good state serves while the API server is away.
            (Err(resolving::Unresolved::Cluster(_)), Some(known)) => return Ok(Arc::clone(known)),
            (Err(error), _) => {
                return Err(Problem::new(Kind::NotReady, format!("the ExternalApi {name}: {error}")));
            }
        };
        let keys: Vec<_> = settings.iter().map(Settings::key).collect();
        if let Some(known) = known.filter(|known| known.keys == keys) {
            known.looked();
            known.follow(api);
            return Ok(known);
        }
        let prepared = Prepared::new(api, settings, keys, &self.egress, self.started)?;
        let prepared = Arc::new(prepared);
        prepared.follow(api);
        let key = (namespace.to_owned(), name.to_owned());
        self.all_mut().insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }

    fn known(&self, namespace: &str, name: &str) -> Option<Arc<Prepared>> {
        let all = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn all_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<(String, String), Arc<Prepared>>> {
        self.ready.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepared {
    fn new(
        api: &ExternalApi,
        settings: Vec<Settings>,
        keys: Vec<[u8; 32]>,
        egress: &Egress,
        started: Instant,
    ) -> Result<Self, Problem> {
        let spec = &api.spec;
        let mut endpoints = Vec::new();
        for (declared, settings) in spec.endpoints.iter().zip(settings) {
            let service = Service::new(settings, egress)
                .map_err(|fault| Problem::new(Kind::NotReady, fault.message()))?;
            endpoints.push(Endpoint {
                name: service.endpoint(),
                service,
                weight: declared.weight.into(),
                zone: declared.zone.clone(),
                ready: true.into(),
                breaker: spec.circuit_breaker.as_ref().map(|it| Mutex::new(Breaker::new(breaker(it)))),
                load: Mutex::default(),
            });
        }
        let prepared = Self {
            name: api.name_any(),
            timeout: spec.timeout.get(),
            allow: spec.allow.iter().filter_map(allow).collect(),
            endpoints,
            retry: spec.retry.as_ref().map(|retry| policy(retry, spec.timeout.get())),
            respect_retry_after: spec.retry.as_ref().is_some_and(|retry| retry.respect_retry_after),
            budget: Mutex::new(Budget::new(spec.retry.as_ref().map_or(0, |retry| retry.budget_percent))),
            limit: spec.rate_limit.as_ref().map(Limit::new),
            in_flight: AtomicU32::new(0),
            started,
            uid: api.uid().unwrap_or_default(),
            generation: api.metadata.generation.unwrap_or_default(),
            keys,
            looked: AtomicU64::new(0),
        };
        prepared.looked();
        Ok(prepared)
    }

    /// Time since the start of the process' gateway.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_of(&self, api: &ExternalApi) -> bool {
        api.metadata.generation == Some(self.generation) && api.metadata.uid.as_deref() == Some(&self.uid)
    }

    fn is_due(&self) -> bool {
        self.now() >= Duration::from_millis(self.looked.load(Relaxed)) + LOOK_AGAIN
    }

    fn looked(&self) {
        self.looked.store(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Takes over what the operator's probes say of each endpoint; before they have said anything, all are ready.
    fn follow(&self, api: &ExternalApi) {
        let seen = api.status.as_ref().filter(|status| {
            status.common.observed_generation == api.metadata.generation
                && status.common.endpoints.len() == self.endpoints.len()
        });
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let ready = seen.is_none_or(|status| status.common.endpoints[index].ready);
            endpoint.ready.store(ready, Relaxed);
        }
    }

    /// Lets the call in, within the rate limit and what may be in flight.
    ///
    /// # Errors
    /// `RateLimited`, `Overloaded`.
    pub(super) fn admit(&self, caller: &str) -> Result<(), Problem> {
        let refused = match &self.limit {
            None => None,
            Some(Limit::Shared(limiter)) => limiter.check(self.now()).err(),
            Some(Limit::PerCaller { spec, limiters }) => {
                let limiter = limiters.get_with_by_ref(caller, || Arc::new(limiter(spec)));
                limiter.check(self.now()).err()
            }
        };
        if let Some(wait) = refused {
            let detail = format!("the rate limit of the ExternalApi {} is reached", self.name);
            return Err(Problem::new(Kind::RateLimited, detail).after(wait));
        }
        if self.in_flight.load(Relaxed) >= MAX_IN_FLIGHT {
            let detail = format!("{MAX_IN_FLIGHT} calls of the ExternalApi {} are in flight", self.name);
            return Err(Problem::new(Kind::Overloaded, detail).after(Duration::from_secs(1)));
        }
        Ok(())
    }
}

impl Endpoint {
    pub(super) fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    fn new(spec: &external_api::RateLimit) -> Self {
        match spec.scope {
            Scope::Gateway => Self::Shared(limiter(spec)),
            Scope::Caller => Self::PerCaller {
                spec: spec.clone(),
                limiters: Cache::builder().max_capacity(MAX_CALLERS).build(),
            },
        }
    }
}

fn limiter(spec: &external_api::RateLimit) -> Limiter {
    Limiter::new(spec.requests, spec.per.get(), spec.burst.unwrap_or(spec.requests))
}

fn breaker(spec: &external_api::CircuitBreaker) -> breaker::Settings {
    breaker::Settings {
        failure_threshold: spec.failure_threshold,
        min_requests: spec.min_requests,
        window: spec.window.get(),
        open_for: spec.open_for.get(),
        half_open_requests: spec.half_open_requests,
    }
}

fn policy(spec: &external_api::Retry, timeout: Duration) -> Policy {
    use external_api::RetryOn;
    let on = |on: &RetryOn| match on {
        RetryOn::ConnectFailure => On::ConnectFailure,
        RetryOn::Reset => On::Reset,
        RetryOn::Timeout => On::Timeout,
        RetryOn::ServerError => On::ServerError,
        RetryOn::TooManyRequests => On::TooManyRequests,
    };
    Policy {
        attempts: spec.attempts.into(),
        on: spec.on.iter().map(on).collect(),
        initial: spec.backoff.initial.get(),
        max: spec.backoff.max.get(),
        longest_retry_after: timeout,
    }
}

/// The schema lets only prefixes through that have one way to be read.
fn allow(spec: &external_api::Allow) -> Option<Allow> {
    let path_prefix = path::normalize(&spec.path_prefix).ok()?;
    Some(Allow {
        methods: spec.methods.iter().map(|method| method.as_str().to_owned()).collect(),
        path_prefix,
    })
}
