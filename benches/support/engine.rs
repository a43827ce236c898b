//! A delivery engine in the process of the benchmark, and what hands events to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use authlink::{
    backends::{http::Egress, transport::TlsSettings},
    delivery::{AcceptedId, EndpointSettings, Engine, EngineSettings, PayloadKind, Signing, SigningKey},
    domain::delivery::{
        event::{Event, from_plain},
        event_type::Pattern,
        keys::{Key, Scheme},
        payload::PayloadForm,
        scheduler::EndpointConfig,
    },
    store::{Location, Store},
    telemetry::metrics::Metrics,
};
use jiff::Timestamp;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Outcome, receiver::sent};

pub(crate) const KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";
const NAMESPACE: &str = "bench";

/// Tasks that hand in events in [`Deliverer::flood`].
pub(crate) const PRODUCERS: usize = 32;

/// The most deliveries that may be pending: more than the largest backlog of a benchmark.
const MOST: u64 = 2_000_000;

/// An engine that runs.
pub(crate) struct Deliverer {
    pub(crate) engine: Engine,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Deliverer {
    pub(crate) async fn start(store: &str) -> Outcome<Self> {
        let (metrics, _) = Metrics::registered();
        let store = Arc::new(Store::new(Location::Url(store.into()), metrics.store.clone())?);
        let owner = "bench".to_owned();
        let settings = EngineSettings { owner, max_pending: (MOST, MOST), ..EngineSettings::default() };
        let engine = Engine::new(store, Egress::unrestricted(), settings, metrics.delivery.clone());
        let engine = engine.map_err(|fault| fault.detail)?;
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, stop) = (engine.clone(), stop.clone());
            async move { engine.run(stop).await }
        });
        let end = Instant::now() + Duration::from_secs(30);
        while !engine.is_working() {
            if Instant::now() > end {
                return Err("the engine does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { engine, stop, running })
    }

    /// Adds an endpoint for events of one type, with all other settings at their defaults.
    pub(crate) fn add(&self, event_type: &str, name: &str, url: &str) -> Outcome<()> {
        let key = Key::parse(Scheme::StandardWebhooks, KEY.as_bytes()).map_err(|_| "no key")?;
        let signing = Signing { standard: vec![SigningKey { key, expires: None }], ..Signing::default() };
        let settings = EndpointSettings {
            uid: format!("uid-{name}").into(),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            url: url.parse()?,
            events: vec![Pattern::parse(event_type).map_err(|_| "no pattern")?],
            filter: None,
            headers: Vec::new(),
            signing,
            payload: PayloadKind::Form(PayloadForm::Standard),
            config: EndpointConfig::default(),
            timeout: Duration::from_secs(30),
            tls: TlsSettings::default(),
            server_name: None,
            dead_letter: None,
            unusable: None,
        };
        Ok(self.engine.set_endpoint(settings).map_err(|fault| fault.detail)?)
    }

    pub(crate) async fn accept(&self, events: Vec<Event>) -> Outcome<Vec<AcceptedId>> {
        Ok(self.engine.accept(NAMESPACE, events).await?)
    }

    /// Hands in events for so long, each to one of `endpoints` endpoints in turn, as fast as they are accepted; gives their number.
    pub(crate) async fn flood(&self, endpoints: usize, period: Duration) -> Outcome<usize> {
        let end = Instant::now() + period;
        let mut tasks = JoinSet::new();
        for producer in 0..PRODUCERS {
            let engine = self.engine.clone();
            tasks.spawn(async move {
                let mut count = 0;
                while Instant::now() < end {
                    let event = event(&format!("t{}", (producer + count) % endpoints))?;
                    engine.accept(NAMESPACE, vec![event]).await?;
                    count += 1;
                }
                Outcome::Ok(count)
            });
        }
        let mut all = 0;
        while let Some(done) = tasks.join_next().await {
            all += done??;
        }
        Ok(all)
    }

    /// Hands in so many events a second for so long; gives the time until each was accepted, in milliseconds.
    pub(crate) async fn pace(&self, endpoints: usize, rate: u32, period: Duration) -> Outcome<Vec<f64>> {
        const CALLERS: u32 = 10;
        let mut tasks = JoinSet::new();
        for number in 0..CALLERS {
            let engine = self.engine.clone();
            tasks.spawn(async move {
                let gap = Duration::from_secs(1) * CALLERS / rate;
                let mut due =
                    tokio::time::interval_at(tokio::time::Instant::now() + gap * number / CALLERS, gap);
                let end = Instant::now() + period;
                let mut took = Vec::new();
                loop {
                    due.tick().await;
                    let began = Instant::now();
                    if began >= end {
                        return Outcome::Ok(took);
                    }
                    let event = event(&format!("t{}", (number as usize + took.len()) % endpoints))?;
                    engine.accept(NAMESPACE, vec![event]).await?;
                    took.push(began.elapsed().as_secs_f64() * 1000.0);
                }
            });
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.extend(done??);
        }
        Ok(took)
    }

    /// Ends it in order: what is under way is completed, and its leases are free.
    pub(crate) async fn stop(self) -> Outcome<()> {
        self.stop.cancel();
        Ok(self.running.await?)
    }
}

/// An event with data of 1 KB, which says when it was made.
pub(crate) fn event(event_type: &str) -> Outcome<Event> {
    let text = format!(r#"{{"type":"{event_type}","data":{}}}"#, data());
    from_plain(&text.into(), "/bench", Timestamp::now()).map_err(|error| error.to_string().into())
}

/// Data of 1 KB.
pub(crate) fn data() -> String {
    format!(r#"{{"sent":{},"text":"{:x<980}"}}"#, sent(), "")
}
