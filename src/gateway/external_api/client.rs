//! The client of an ExternalApi: its endpoints with their connections, limits and circuits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kube::ResourceExt;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::v1alpha1::{
        ExternalApi,
        external_api::{self, Scope},
    },
    backends::external_api::{EndpointSettings, HttpEndpoint},
    cluster::references::References,
    domain::{
        breaker::{self, Breaker},
        limiter::Limiter,
        load::Load,
        path::{self, Allow},
        retry::{Budget, On, Policy},
    },
    gateway::{
        CallDeps,
        call_guard::CallCounters,
        client_cache::BuildClient,
        problem::{Problem, ProblemKind},
        usage::Counters,
    },
    resolving::{self, Resolved},
};

/// Concurrent calls of one API: a slow one must not take what the others need.
const MAX_IN_FLIGHT: u32 = 1024;

/// Callers of one API whose rate limiters are kept.
const MAX_CALLERS: u64 = 10_000;

/// The client of an ExternalApi.
pub(super) struct ApiClient {
    pub(super) name: String,
    pub(super) timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) allow: Vec<Allow>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) retry: Option<Policy>,
    pub(super) respect_retry_after: bool,
    pub(super) budget: Mutex<Budget>,
    limit: Option<Limit>,
    /// Where the gateway is.
    pub(super) zone: Option<String>,
    pub(super) in_flight: AtomicU32,
    pub(super) call_counters: CallCounters,
    counters: Arc<Counters>,
    started: Instant,
}

/// One of its endpoints.
pub(super) struct Endpoint {
    pub(super) service: HttpEndpoint,
    pub(super) name: Arc<str>,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    pub(super) ready: AtomicBool,
    pub(super) breaker: Option<Mutex<Breaker>>,
    pub(super) load: Mutex<Load>,
}

enum Limit {
    Shared(Limiter),
    PerCaller { spec: external_api::RateLimit, limiters: Cache<String, Arc<Limiter>> },
}

impl BuildClient for ApiClient {
    type Object = ExternalApi;
    type Settings = EndpointSettings;

    async fn resolve(
        api: &ExternalApi,
        references: &dyn References,
    ) -> Result<Resolved<EndpointSettings>, resolving::Unresolved> {
        resolving::external_api::resolve(api, references).await
    }

    fn key(settings: &EndpointSettings) -> [u8; 32] {
        settings.key()
    }

    fn build(api: &ExternalApi, settings: Vec<EndpointSettings>, deps: &CallDeps) -> Result<Self, Problem> {
        Self::new(api, settings, deps)
    }

    /// Endpoints are ready as the operator's probes found them, and before the first probe.
    fn observe_status(&self, api: &ExternalApi) {
        let probed = api.status.as_ref().filter(|status| {
            status.common.observed_generation == api.metadata.generation
                && status.common.endpoints.len() == self.endpoints.len()
        });
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let ready = probed.is_none_or(|status| status.common.endpoints[index].ready);
            endpoint.ready.store(ready, Relaxed);
        }
    }
}

impl ApiClient {
    fn new(api: &ExternalApi, settings: Vec<EndpointSettings>, deps: &CallDeps) -> Result<Self, Problem> {
        let spec = &api.spec;
        let mut endpoints = Vec::new();
        for (declared, settings) in spec.endpoints.iter().zip(settings) {
            let service = HttpEndpoint::new(settings, &deps.egress)
                .map_err(|fault| Problem::new(ProblemKind::NotReady, fault.message()))?;
            endpoints.push(Endpoint {
                name: service.endpoint().into(),
                service,
                weight: declared.weight.into(),
                zone: declared.zone.clone(),
                ready: true.into(),
                breaker: spec.circuit_breaker.as_ref().map(|it| Mutex::new(Breaker::new(breaker(it)))),
                load: Mutex::default(),
            });
        }
        Ok(Self {
            name: api.name_any(),
            timeout: spec.timeout.get(),
            idle_timeout: spec.idle_timeout.get(),
            allow: spec.allow.iter().filter_map(allow).collect(),
            endpoints,
            retry: spec.retry.as_ref().map(|retry| policy(retry, spec.timeout.get())),
            respect_retry_after: spec.retry.as_ref().is_some_and(|retry| retry.respect_retry_after),
            budget: Mutex::new(Budget::new(spec.retry.as_ref().map_or(0, |retry| retry.budget_percent))),
            limit: spec.rate_limit.as_ref().map(Limit::new),
            zone: deps.zone.clone(),
            in_flight: AtomicU32::new(0),
            call_counters: deps.counters(api),
            counters: Arc::clone(&deps.counters),
            started: deps.started,
        })
    }

    /// Time since the start of the gateway.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The circuit of an endpoint is in another state, if it is.
    pub(super) fn circuit_changed(&self, index: usize, changed: Option<breaker::State>) {
        if let Some(state) = changed {
            let endpoint = &*self.endpoints[index].name;
            tracing::info!(api = self.name, endpoint, circuit = state.as_str(), "circuit changed");
            self.counters.circuit_changed();
        }
    }

    /// The circuit of each endpoint that has one.
    pub(super) fn circuits(&self) -> impl Iterator<Item = (&str, breaker::State)> {
        self.endpoints.iter().filter_map(|endpoint| {
            let breaker = endpoint.breaker.as_ref()?.lock();
            Some((endpoint.name.as_ref(), breaker.state()))
        })
    }

    /// Admits the call, within the rate limit and the limit of concurrent calls.
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
            let detail = format!("the rate limit of the ExternalApi {} is exceeded", self.name);
            return Err(Problem::new(ProblemKind::RateLimited, detail).after(wait));
        }
        if self.in_flight.load(Relaxed) >= MAX_IN_FLIGHT {
            let detail = format!("{MAX_IN_FLIGHT} calls of the ExternalApi {} are in flight", self.name);
            return Err(Problem::new(ProblemKind::Overloaded, detail).after(Duration::from_secs(1)));
        }
        Ok(())
    }
}

impl Endpoint {
    pub(super) fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock()
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

fn breaker(spec: &external_api::CircuitBreaker) -> breaker::BreakerConfig {
    breaker::BreakerConfig {
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

/// The schema rejects ambiguous prefixes.
fn allow(spec: &external_api::Allow) -> Option<Allow> {
    let path_prefix = path::normalize(&spec.path_prefix).ok()?;
    Some(Allow {
        encoded_slashes: spec.encoded_slashes,
        web_socket: spec.web_socket,
        methods: spec.methods.iter().map(|method| method.as_str().to_owned()).collect(),
        path_prefix,
    })
}
