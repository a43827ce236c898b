//! The condition types: `Ready` is the summary, the others give the cause.

use super::names::names;

names! {
    /// A condition type of `metav1.Condition`.
    pub enum ConditionType {
        /// Usable now.
        Ready,
        /// The spec is valid, including what its schema cannot check.
        Accepted,
        /// Every Secret, ConfigMap and object that the spec references exists and has the required keys and type.
        ResolvedRefs,
        /// Connection, TLS handshake and login succeed with the credential in use.
        Connected,
        /// The health state derived from the probes, with hysteresis.
        Healthy,
        /// Service and EndpointSlices are up to date. Present only where the object has a Service.
        Registered,
        /// The directory accepts the bind account.
        BindValid,
        /// The search bases exist and can be read.
        SearchBaseFound,
        /// The search for `test.username` finds exactly one user.
        TestSearchPassed,
        /// The entries have the attributes that the mapping needs.
        MappingValid,
        /// The last sync was complete, and the store has what the directory has.
        Synced,
        /// The deletion guard holds losses back that exceed its limits.
        DeletionGuard,
        /// The connection pool has free connections.
        PoolHealthy,
        /// The URL is valid, and all of its addresses are allowed.
        UrlValid,
        /// The signing key and the headers that are read from Secrets are valid.
        SecretValid,
        /// The endpoint responds, and is verified.
        EndpointReachable,
        /// Events are delivered; the webhook is not disabled.
        Enabled,
        /// The circuit breaker lets deliveries through.
        BreakerClosed,
        /// The store survives the loss of its Pod.
        Durable,
        /// Usable, but impaired. Present only while true.
        Degraded,
        /// `spec.suspend` is set. Present only while true.
        Suspended,
        /// Makes no progress until the user changes something (kstatus). Present only while true.
        Stalled,
        /// The last reconcile failed with an internal error and is retried (kstatus). Present only while true.
        Reconciling,
    }
}
