//! Metrics of webhook delivery.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{buckets, series::Series};

/// The labels of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    namespace: String,
    name: String,
    outcome: &'static str,
}

/// The labels of a Webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    namespace: String,
    name: String,
}

/// Metrics of webhook delivery.
#[derive(Clone)]
pub struct DeliveryMetrics {
    attempts: Series<AttemptLabels, Counter>,
    latencies: Series<WebhookLabels, Histogram>,
    dead: Series<WebhookLabels, Counter>,
    /// Events that were accepted.
    pub accepted: Counter,
    /// Results that were dropped because the lease was lost.
    pub fenced: Counter,
    /// Deliveries that are pending at endpoints of this process.
    pub pending: Gauge,
    /// 1 while most endpoints cannot be reached.
    pub outage: Gauge,
    /// Results in one transaction.
    pub batches: Arc<Histogram>,
}

impl DeliveryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Series::new(Counter::default),
            latencies: Series::new(|| Histogram::new(buckets())),
            dead: Series::new(Counter::default),
            accepted: Counter::default(),
            fenced: Counter::default(),
            pending: Gauge::default(),
            outage: Gauge::default(),
            batches: Arc::new(Histogram::new(exponential_buckets(1.0, 2.0, 9))),
        };
        metrics.attempts.register(registry, "webhook_attempts", "Delivery attempts, by their outcome", None);
        let help = "Time from the acceptance of an event to its delivery";
        metrics.latencies.register(registry, "webhook_delivery_latency", help, Some(Unit::Seconds));
        let help = "Deliveries whose attempts or age are used up";
        metrics.dead.register(registry, "webhook_dead_letters", help, None);
        registry.register("webhook_events_accepted", "Accepted events", metrics.accepted.clone());
        let help = "Delivery results that were dropped because another process holds the lease";
        registry.register("webhook_fenced", help, metrics.fenced.clone());
        registry.register("webhook_pending", "Pending deliveries", metrics.pending.clone());
        let help = "1 while more than half of the endpoints cannot be reached";
        registry.register("webhook_egress_degraded", help, metrics.outage.clone());
        let help = "Delivery results in one transaction";
        registry.register("webhook_commit_batch", help, Histogram::clone(&metrics.batches));
        metrics
    }

    /// Counts an attempt.
    pub fn attempt(&self, namespace: &str, name: &str, outcome: &'static str) {
        let labels = AttemptLabels { namespace: namespace.to_owned(), name: name.to_owned(), outcome };
        self.attempts.with(&labels, |attempts| {
            attempts.inc();
        });
    }

    /// Counts a delivery that has arrived.
    pub fn delivered(&self, namespace: &str, name: &str, latency: Duration) {
        let labels = WebhookLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.latencies.with(&labels, |latencies| latencies.observe(latency.as_secs_f64()));
    }

    /// Counts a delivery that was given up.
    pub fn dead(&self, namespace: &str, name: &str) {
        let labels = WebhookLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.dead.with(&labels, |dead| {
            dead.inc();
        });
    }

    /// Removes the series of Webhooks that do not exist, by namespace and name.
    pub fn retain(&self, exists: impl Fn(&str, &str) -> bool) {
        self.attempts.retain(|labels| exists(&labels.namespace, &labels.name));
        self.latencies.retain(|labels| exists(&labels.namespace, &labels.name));
        self.dead.retain(|labels| exists(&labels.namespace, &labels.name));
    }
}
