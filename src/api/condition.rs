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
        /// A pass over the object failed for a reason of the operator's own and is tried again (kstatus). Present only while
        /// true.
        Reconciling,
    }
}

impl ConditionType {
    /// Conditions that only some objects have, and on which their `Ready` depends.
    pub const OPTIONAL: &'static [Self] = &[Self::Registered];

    /// Whether `Ready` depends on it. A pool without room slows callers down, and the rest still works.
    #[must_use]
    pub const fn gates_ready(self) -> bool {
        !matches!(self, Self::PoolHealthy)
    }
}
