//! Composes the process from its parts, and runs it until it is told to stop.

pub mod check;
mod conditions;
mod http;
mod leader;
mod operator;
mod pools;
pub mod settings;

use std::sync::Arc;

use futures::FutureExt;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use leader::{Election, Lease};
use operator::Operator;
use pools::Pools;
pub use settings::{Role, Settings};

use crate::{
    backends::{database::PoolRegistry, http::Egress, resolver::Resolver},
    cluster::{
        events::Events,
        fence::Fence,
        ranges,
        references::ScopedReferences,
        review::Reviewer,
        watches::{Readiness, Scope},
    },
    controllers::{ControllerDeps, SharedWatches, UsageReader},
    gateway::{self, Gateway},
    store::Store,
    telemetry::metrics::Metrics,
};

/// Why the process could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// No way to the API server.
    #[error("the cluster cannot be reached: {0}")]
    Cluster(#[from] kube::Error),
    /// No configuration to reach one.
    #[error("there is no cluster to work for: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The HTTP address is taken or not ours.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// What was asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Runs the roles of `settings` until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the process from starting; once it runs, it keeps running.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let (metrics, mut registry) = Metrics::registered();
    let metrics = Arc::new(metrics);
    let store = open_store(&settings, &metrics)?;
    let stopping = CancellationToken::new();
    let stop = stop_signal()?;
    let signalled = stopping.clone();
    tokio::spawn(async move {
        stop.await;
        signalled.cancel();
    });
    let mut config = kube::Config::infer().await?;
    // Without it a hung connection would hold a watch or a pass for ever; watches are renewed every five minutes.
    config.read_timeout = Some(std::time::Duration::from_secs(295));
    // Whatever asks tries again by itself, within a time; these would go on for minutes, and send a write that was allowed long ago.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let runtime = Arc::new(UsageReader::new(settings.store_interval));
    let readiness = Readiness::default();
    let fence = if settings.leader_elect { Fence::default() } else { Fence::open() };
    let deps = ControllerDeps {
        client: client.clone(),
        fence: fence.clone(),
        metrics: Arc::clone(&metrics),
        runtime: Arc::clone(&runtime),
        events: Arc::new(Events::new(client.clone(), "authlink", &settings.identity)),
        resolver: Arc::new(
            Resolver::from_file(&settings.resolv_conf).map_err(|fault| RunError::Setting(fault.message()))?,
        ),
        egress: Arc::new(settings.egress.clone()),
        settings: settings.engine.clone(),
    };
    let operates = settings.roles.contains(&Role::Operator);
    let scopes = settings.scopes().into_iter();
    let shared_watches = scopes.map(|scope| SharedWatches::start(&client, scope, &readiness, operates));
    let shared_watches: Vec<_> = shared_watches.map(Arc::new).collect();
    // Who only reads the objects says nothing of them: each of many gateways would say the same.
    let mut unsaid = Registry::default();
    let servers = Arc::new(PoolRegistry::new(Egress::anywhere(Arc::clone(&deps.resolver))));
    registry.register_collector(Box::new(Pools::new(Arc::clone(&servers))));
    let said = if operates { &mut registry } else { &mut unsaid };
    let operator = Operator::start(&deps, &shared_watches, &servers, said);
    let ranges_asked = ask_for_ranges(&client, &shared_watches, &settings, &readiness);
    if operates {
        registry.register("leader", "1 while this process holds the lease", metrics.leader.clone());
    }

    let mut serving = None;
    if settings.roles.contains(&Role::Gateway) {
        let server = bind_gateway(&settings).await?;
        let gateway = Arc::new(Gateway::new(gateway::GatewayDeps {
            reviewer: Reviewer::new(client.clone()),
            references: Arc::new(ScopedReferences::new(
                shared_watches.iter().map(|it| it.references()).collect(),
            )),
            egress: Egress::guarded(settings.egress.clone(), Arc::clone(&deps.resolver)),
            servers,
            metrics: Arc::clone(&metrics),
            external_apis: operator.external_apis.clone(),
            databases: operator.databases.clone(),
            registrations: operator.registrations.clone(),
            zone: settings.zone.clone(),
            stopping: stopping.clone(),
        }));
        registry.register_collector(Box::new(gateway::Circuits::new(Arc::clone(&gateway))));
        let serve = serve(server, gateway, Arc::clone(&store), &settings, &stopping, ranges_asked.clone());
        serving = Some(tokio::spawn(serve));
    }
    http::serve(settings.http_addr, registry, readiness).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %settings.http_addr, "running");
    let stop = async { stopping.cancelled().await };
    let (operator, ranges_asked) = (&operator, &ranges_asked);
    let lead = |halt: CancellationToken| {
        metrics.leader.set(1);
        async move {
            // Before the first pass, which could register an address in one of them.
            if halt.run_until_cancelled(ranges_asked.cancelled()).await.is_some() {
                operator.lead(halt).await;
            }
        }
    };
    let lost = || {
        metrics.leader.set(0);
    };
    if operates {
        // A standby knows, too.
        tokio::spawn(async move { runtime.follow(&store).await });
        if settings.leader_elect {
            Lease::new(client, settings.lease(), fence).hold_while(lead, lost, stop).await;
        } else {
            leader::lead_until(lead, stop.map(|()| true)).await;
        }
    } else {
        stop.await;
    }
    if let Some(serving) = serving {
        // It ends by itself, soon after the same signal.
        let _ = serving.await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The process starts and is ready whether the store works or not: calls and passes do without, and what is counted waits.
fn open_store(settings: &Settings, metrics: &Metrics) -> Result<Arc<Store>, RunError> {
    let store = Store::new(&settings.store, metrics.store.clone())
        .map_err(|error| RunError::Setting(format!("--store: {error}")))?;
    if store.is_volatile() {
        tracing::info!("the store is in memory: it ends with this process, and no other one sees it");
    } else {
        tracing::info!(store = store.place(), "the store");
    }
    Ok(Arc::new(store))
}

/// Asks which addresses are the cluster's own, now and again; the first answer cancels what this gives.
fn ask_for_ranges(
    client: &Client,
    shared_watches: &[Arc<SharedWatches>],
    settings: &Settings,
    readiness: &Readiness,
) -> CancellationToken {
    let asked = CancellationToken::new();
    if shared_watches.iter().any(|it| *it.scope() == Scope::Cluster) {
        let known = settings.egress.services.clone();
        tokio::spawn(ranges::follow(client.clone(), known, asked.clone(), readiness.clone()));
    } else {
        // Who watches some namespaces has no right to ask.
        asked.cancel();
    }
    asked
}

/// Serves calls until `stop`, and then until those in flight are over and all is written that was counted.
fn serve(
    server: gateway::Server,
    gateway: Arc<Gateway>,
    store: Arc<Store>,
    settings: &Settings,
    stop: &CancellationToken,
    ranges_asked: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let (stop, served, interval) = (stop.clone(), CancellationToken::new(), settings.store_interval);
    async move {
        let routes = gateway::Routes::new(Arc::clone(&gateway));
        let serving = async {
            // Before the first call, which could lead to one of them.
            if stop.run_until_cancelled(ranges_asked.cancelled()).await.is_some() {
                server.serve(routes, stop).await;
            }
            served.cancel();
        };
        let sweeping = async {
            tokio::select! {
                () = served.cancelled() => {}
                () = gateway.evict() => {}
            }
        };
        tokio::join!(serving, sweeping, gateway.report(&store, interval, served.clone()));
    }
}

async fn bind_gateway(settings: &Settings) -> Result<gateway::Server, RunError> {
    let address = settings.gateway_addr;
    let listen = gateway::Listen { address, tls: settings.gateway_tls.clone() };
    gateway::Server::bind(listen).await.map_err(|error| RunError::Listen { address, error })
}

/// Ends with the first SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, RunError> {
    let failed = |error: std::io::Error| RunError::Setting(format!("signals cannot be received: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
    })
}
