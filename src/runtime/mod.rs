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
use pools::PoolMetrics;
pub use settings::{Role, Settings};

use crate::{
    backends::{database::PoolRegistry, directory::DirectoryRegistry, http::Egress, resolver::Resolver},
    cluster::{
        events::Events,
        fence::Fence,
        object_cache::Caches,
        ranges,
        references::ScopedReferences,
        review::Reviewer,
        shared_watches::SharedWatches,
        watches::{Readiness, Scope},
    },
    controllers::{ControllerDeps, DeliveryReader, ReconcilerDeps, UsageReader},
    delivery,
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
    let client = connect().await?;
    let readiness = Readiness::default();
    let resolver = Resolver::from_file(&settings.resolv_conf);
    let resolver = Arc::new(resolver.map_err(|fault| RunError::Setting(fault.message()))?);
    let operates = settings.roles.contains(&Role::Operator);
    let scopes = settings.scopes().into_iter();
    let shared_watches = scopes.map(|scope| SharedWatches::start(&client, scope, &readiness, operates));
    let shared_watches: Vec<_> = shared_watches.map(Arc::new).collect();
    let caches = Caches::start(&client, &shared_watches, &readiness);
    let pools = Arc::new(PoolRegistry::new(Egress::anywhere(Arc::clone(&resolver))));
    let directories = Arc::new(DirectoryRegistry::new(Egress::anywhere(Arc::clone(&resolver))));
    registry.register_collector(Box::new(PoolMetrics::new(Arc::clone(&pools))));
    let ranges_known = learn_ranges(&client, &shared_watches, &settings, &readiness);
    let process = Process {
        client,
        store,
        metrics,
        resolver,
        shared_watches,
        caches,
        pools,
        directories,
        ranges_known,
        stopping,
    };

    let mut serving = None;
    if settings.roles.contains(&Role::Gateway) {
        let server = bind_gateway(&settings).await?;
        serving = Some(tokio::spawn(process.serve_gateway(server, &settings, &mut registry)?));
    }
    let leading = operates.then(|| Box::pin(process.operate(&settings, &mut registry)));
    http::serve(settings.http_addr, registry, readiness).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %settings.http_addr, "running");
    match leading {
        Some(leading) => leading.await,
        None => process.stopping.cancelled().await,
    }
    if let Some(serving) = serving {
        // It ends by itself, soon after the same signal.
        let _ = serving.await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// A client of the API server.
async fn connect() -> Result<Client, RunError> {
    let mut config = kube::Config::infer().await?;
    // Without it a hung connection would hold a watch or a reconcile for ever; watches are renewed every five minutes.
    config.read_timeout = Some(std::time::Duration::from_secs(295));
    // Whatever asks retries by itself, within a time; these retries would go on for minutes, and send a write that was allowed long
    // ago.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// What the roles of the process share.
struct Process {
    client: Client,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    resolver: Arc<Resolver>,
    shared_watches: Vec<Arc<SharedWatches>>,
    caches: Caches,
    pools: Arc<PoolRegistry>,
    directories: Arc<DirectoryRegistry>,
    /// Cancelled once the cluster's own address ranges are known.
    ranges_known: CancellationToken,
    stopping: CancellationToken,
}

impl Process {
    fn guarded_egress(&self, settings: &Settings) -> Egress {
        Egress::guarded(settings.egress.clone(), Arc::clone(&self.resolver))
    }

    /// Starts the engines; what it gives leads until the process stops.
    fn operate(&self, settings: &Settings, registry: &mut Registry) -> impl Future<Output = ()> + use<> {
        let fence = if settings.leader_elect { Fence::default() } else { Fence::open() };
        let client = self.client.clone();
        let deps = ControllerDeps {
            client: client.clone(),
            fence: fence.clone(),
            metrics: Arc::clone(&self.metrics),
            events: Arc::new(Events::new(client.clone(), "authlink", &settings.identity)),
            resolver: Arc::clone(&self.resolver),
            egress: Arc::new(settings.egress.clone()),
            config: settings.engine.clone(),
        };
        let usage = Arc::new(UsageReader::new(settings.store_interval));
        let deliveries = Arc::new(DeliveryReader::new(Arc::clone(&self.store), settings.store_interval));
        let reconciler_deps = ReconcilerDeps {
            metrics: Arc::clone(&self.metrics),
            usage: Arc::clone(&usage),
            deliveries: Arc::clone(&deliveries),
            pools: Arc::clone(&self.pools),
            directories: Arc::clone(&self.directories),
            store: Arc::clone(&self.store),
            egress: self.guarded_egress(settings),
            instance_egress: Egress::to_endpoints(settings.egress.clone(), Arc::clone(&self.resolver)),
            plan: false,
        };
        let operator = Operator::start(&deps, &reconciler_deps, &self.caches, registry);
        let metrics = Arc::clone(&self.metrics);
        registry.register("leader", "1 while this process holds the lease", metrics.leader.clone());
        let election = settings.leader_elect.then(|| settings.lease());
        let (store, ranges_known, stopping) =
            (Arc::clone(&self.store), self.ranges_known.clone(), self.stopping.clone());
        async move {
            let (operator, ranges_known, metrics) = (&operator, &ranges_known, &metrics);
            let lead = |halt: CancellationToken| {
                metrics.leader.set(1);
                async move {
                    // Before the first reconcile, which could publish an address in one of them.
                    if halt.run_until_cancelled(ranges_known.cancelled()).await.is_some() {
                        operator.lead(halt).await;
                    }
                }
            };
            let lost = || {
                metrics.leader.set(0);
                operator.on_leadership_lost()
            };
            // A standby knows, too.
            tokio::spawn(async move { usage.follow(&store).await });
            tokio::spawn(async move { deliveries.follow().await });
            let stop = stopping.cancelled();
            if let Some(election) = election {
                Lease::new(client, election, fence).hold_while(lead, lost, stop).await;
            } else {
                leader::lead_until(lead, stop.map(|()| true)).await;
                lost().await;
            }
        }
    }

    /// Serves calls until the process stops, and then until those in flight are over and all usage is written.
    fn serve_gateway(
        &self,
        server: gateway::Server,
        settings: &Settings,
        registry: &mut Registry,
    ) -> Result<impl Future<Output = ()> + use<>, RunError> {
        let references = self.shared_watches.iter();
        let references = references.map(|it| (it.scope().clone(), Arc::clone(it.references())));
        let engine = self.delivery_engine(settings)?;
        let gateway = Arc::new(Gateway::new(gateway::GatewayDeps {
            engine: engine.clone(),
            store: Arc::clone(&self.store),
            reviewer: Reviewer::new(self.client.clone()),
            references: Arc::new(ScopedReferences::new(references.collect())),
            egress: self.guarded_egress(settings),
            pools: Arc::clone(&self.pools),
            directories: Arc::clone(&self.directories),
            metrics: Arc::clone(&self.metrics),
            caches: self.caches.clone(),
            zone: settings.zone.clone(),
            stopping: self.stopping.clone(),
        }));
        registry.register_collector(Box::new(gateway::FamilyMetrics::new(Arc::clone(&gateway))));
        let (stop, ranges_known) = (self.stopping.clone(), self.ranges_known.clone());
        let (store, interval, served) =
            (Arc::clone(&self.store), settings.store_interval, CancellationToken::new());
        Ok(async move {
            let routes = gateway::Routes::new(&gateway);
            let serving = async {
                // Before the first call, which could connect to one of them.
                if stop.run_until_cancelled(ranges_known.cancelled()).await.is_some() {
                    server.serve(routes, stop).await;
                }
                served.cancel();
            };
            let evicting = async {
                tokio::select! {
                    () = served.cancelled() => {}
                    () = gateway.evict() => {}
                }
            };
            // What is accepted while the last calls end is sent, too.
            let delivering = async {
                if served.run_until_cancelled(ranges_known.cancelled()).await.is_some() {
                    engine.run(served.clone()).await;
                }
            };
            tokio::join!(
                serving,
                evicting,
                gateway.report(&store, interval, served.clone()),
                gateway.follow_webhooks(served.clone()),
                delivering
            );
        })
    }

    /// The engine that delivers to Webhooks.
    fn delivery_engine(&self, settings: &Settings) -> Result<delivery::Engine, RunError> {
        let owner = delivery::EngineSettings { owner: settings.identity.clone(), ..Default::default() };
        delivery::Engine::new(
            Arc::clone(&self.store),
            self.guarded_egress(settings),
            owner,
            self.metrics.delivery.clone(),
        )
        .map_err(|fault| RunError::Setting(fault.message()))
    }
}

/// The process starts and is ready whether the store works or not: calls and reconciles do without, and usage waits.
fn open_store(settings: &Settings, metrics: &Metrics) -> Result<Arc<Store>, RunError> {
    let location = settings.store.clone();
    let store = Store::new(location, metrics.store.clone())
        .map_err(|error| RunError::Setting(format!("{}: {error}", settings.store)))?;
    if store.is_volatile() {
        tracing::info!("the store is in memory: it ends with this process, and no other one sees it");
    } else {
        tracing::info!(store = store.place(), "the store");
    }
    Ok(Arc::new(store))
}

/// Learns which addresses are the cluster's own, now and again; the first answer cancels the token.
fn learn_ranges(
    client: &Client,
    shared_watches: &[Arc<SharedWatches>],
    settings: &Settings,
    readiness: &Readiness,
) -> CancellationToken {
    let known = CancellationToken::new();
    if shared_watches.iter().any(|it| *it.scope() == Scope::Cluster) {
        let ranges = settings.egress.services.clone();
        tokio::spawn(ranges::follow(client.clone(), ranges, known.clone(), readiness.clone()));
    } else {
        // Who watches some namespaces has no right to ask.
        known.cancel();
    }
    known
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
