//! What the engine is told.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use jiff::Timestamp;

use crate::{
    backends::transport::TlsSettings,
    domain::delivery::{
        event::Event,
        event_type::Pattern,
        health::Change,
        keys::Key,
        payload::{Payload, PayloadForm},
        scheduler::{EndpointConfig, Limits, Uid},
    },
    store::delivery::Retention,
};

/// Whether an endpoint wants an event, or why nobody can say.
pub type Filter = Arc<dyn Fn(&Event) -> Result<bool, String> + Send + Sync>;

/// The payload of an event, or why there is none.
pub type Template = Arc<dyn Fn(&Event) -> Result<Payload, String> + Send + Sync>;

/// Hears of what changes at an endpoint.
pub type Observer = Arc<dyn Fn(&Uid, Change) + Send + Sync>;

/// How the engine works.
#[derive(Clone)]
pub struct EngineSettings {
    /// Who holds leases: the name of one process at a time. One that starts anew under the same name goes on at once.
    pub owner: String,
    /// How long a lease lasts without being renewed.
    pub lease_time: Duration,
    /// How much is done at once.
    pub limits: Limits,
    /// Deliveries that may be pending for one endpoint, and in all: more are refused.
    pub max_pending: (u64, u64),
    /// How long things are kept.
    pub retention: Retention,
    /// How long attempts that are under way may take when the engine ends.
    pub grace: Duration,
    /// Hears of what changes at endpoints.
    pub observer: Observer,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            owner: format!("process-{:016x}", rand::random::<u64>()),
            lease_time: Duration::from_secs(15),
            limits: Limits::default(),
            // The backlog of one endpoint must leave room for those of others.
            max_pending: (1_000_000, 4_000_000),
            retention: Retention::default(),
            grace: Duration::from_secs(20),
            observer: Arc::new(|_, _| {}),
        }
    }
}

/// An endpoint, as its object describes it.
#[derive(Clone)]
pub struct EndpointSettings {
    /// Of the object. Whatever has this uid is this endpoint; an object of the same name with another uid is another one.
    pub uid: Uid,
    /// Of the object: its events are those of this namespace.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// Where it is. Only its host is ever shown.
    pub url: Uri,
    /// Types of events that it wants.
    pub events: Vec<Pattern>,
    /// Which of these it wants; without one, all.
    pub filter: Option<Filter>,
    /// Headers of the user's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Keys that sign.
    pub signing: Signing,
    /// What is sent.
    pub payload: PayloadKind,
    /// How it is sent.
    pub config: EndpointConfig,
    /// How long an attempt may take, until the whole head of the answer is there.
    pub timeout: Duration,
    /// For https.
    pub tls: TlsSettings,
    /// What certificates must name instead of the URL's host.
    pub server_name: Option<String>,
    /// Where deliveries go that are given up.
    pub dead_letter: Option<Uid>,
    /// What keeps it from being called, such as a Secret that is missing: its deliveries wait.
    pub unusable: Option<String>,
}

/// What is sent of an event.
#[derive(Clone)]
pub enum PayloadKind {
    /// It in one of the usual forms.
    Form(PayloadForm),
    /// Whatever this makes of it.
    Template(Template),
}

/// A key, and until when it signs.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The key.
    pub key: Key,
    /// It signs nothing from then on; none for the key in use.
    pub expires: Option<Timestamp>,
}

/// Keys by scheme. A scheme without any is not used.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// Each that has not expired signs, in this order.
    pub standard: Vec<SigningKey>,
    /// The first that has not expired signs.
    pub hex_hmac: Vec<SigningKey>,
    /// The first that has not expired signs.
    pub github: Vec<SigningKey>,
}

impl fmt::Debug for EndpointSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host().unwrap_or_default();
        write!(f, "{}/{} ({}) at {host}", self.namespace, self.name, self.uid)
    }
}
