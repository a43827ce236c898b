//! The condition types: `Ready` sums up, the others say why.

use super::names::names;

names! {
    /// A condition type of `metav1.Condition`.
    pub enum ConditionType {
        /// Usable now.
        Ready,
        /// The spec is valid beyond its schema.
        Accepted,
        /// Every Secret, ConfigMap and object that the spec names exists, with the keys and the type it needs.
        ResolvedRefs,
        /// Network, TLS and login succeeded with the credential in use.
        Connected,
        /// The verdict of the probes, with hysteresis.
        Healthy,
        /// The Service leads to the targets. Present only where `spec.discovery` asks for one.
        Registered,
        /// The connection pool has room.
        PoolHealthy,
        /// Works, with a fault. Present only while true.
        Degraded,
        /// `spec.suspend` is set. Present only while true.
        Suspended,
        /// Will not progress without a change by the user (kstatus). Present only while true.
        Stalled,
        /// A reconcile failed for a reason of the operator's own and is retried (kstatus). Present only while true.
        Reconciling,
    }
}
