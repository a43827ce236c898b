//! The reasons: one word is at once the condition's reason, the Event's reason and the metric's label.

use super::names::names;

names! {
    /// Why a condition has its status.
    pub enum Reason {
        // What is well.
        /// `Ready`: usable now.
        Available,
        /// `Accepted`: the spec is valid.
        Valid,
        /// `ResolvedRefs`: everything that the spec names is there.
        Resolved,
        /// `Connected`: network, TLS and login succeeded.
        LoginSucceeded,
        /// `Connected`: network and TLS succeed, where nobody logs in.
        Reachable,
        /// `Healthy`: the probes pass.
        ProbeSucceeded,
        /// `Connected` and `Healthy`: taken to be so, since the spec asks for no probes.
        NotProbed,
        /// `Registered`: Service and EndpointSlices are as they should be.
        Registered,
        /// `PoolHealthy`: callers get a connection without waiting.
        WithinBounds,
        /// A new credential was verified and is in use (an Event).
        CredentialRotated,

        // What is not known yet.
        /// Not looked at yet.
        Pending,
        /// Probes have failed, fewer times than `unhealthyThreshold`.
        ThresholdNotReached,
        /// `spec.suspend` is set.
        Suspended,

        // The spec and what it names.
        /// The spec is refused, beyond what the schema can say.
        InvalidSpec,
        /// An older object has registered the same instance.
        Duplicate,
        /// The Secret does not exist.
        SecretNotFound,
        /// The Secret lacks a key.
        SecretMissingKeys,
        /// The Secret's type cannot serve here.
        SecretWrongType,
        /// The Secret has the key, with a value that cannot serve here.
        SecretInvalidValue,
        /// The ConfigMap or object does not exist, or lacks the key.
        RefNotFound,
        /// The object that the spec names exists, and is not ready.
        RefNotReady,

        // The outside system.
        /// The host name has no address, or no DNS server answers what it is.
        DnsFailed,
        /// Nothing listens there.
        ConnectionRefused,
        /// No answer in time.
        Timeout,
        /// The TLS handshake failed.
        TlsFailed,
        /// The server's certificate has expired.
        CertificateExpired,
        /// The login was refused.
        AuthenticationFailed,
        /// The login works, the account may not do what is needed.
        PermissionDenied,
        /// The server has no such database.
        DatabaseMissing,
        /// The server has no connection left.
        TooManyConnections,
        /// The server speaks another protocol.
        ProtocolError,
        /// The server is there and cannot serve now: starting, stopping, loading, out of resources.
        Unavailable,
        /// The address is one that the operator's settings refuse.
        AddressDenied,
        /// The health check got a status that it does not expect.
        UnexpectedStatus,
        /// The health check got an answer without the text that it expects.
        UnexpectedBody,
        /// Who called broke its own request off.
        CallerAborted,
        /// Probes failed `unhealthyThreshold` times in a row.
        ProbeFailed,

        // Discovery.
        /// A Service of this name exists and belongs to somebody else.
        ServiceConflict,
        /// The API server refuses the Service or its slices.
        ServiceRefused,
        /// The target has an address that must not stand in an EndpointSlice.
        AddressNotAllowed,
        /// The host names of the targets have no address.
        NoAddresses,
        /// The cluster's Services have no addresses of the targets' family (IPv4, IPv6).
        AddressFamilyMissing,

        // Works, with a fault.
        /// Some of several endpoints are down.
        SomeEndpointsDown,
        /// The credential Secret changed and its new value does not work: the previous one is still used.
        PreviousCredentialInUse,
        /// A server's certificate expires within two weeks.
        CertificateExpiringSoon,
        /// The server is another one than before.
        ServerReplaced,
        /// A declared query cannot be prepared.
        QueryInvalid,
        /// A Secret of the binding's name exists and is not ours.
        BindingConflict,
        /// The API server refuses the binding Secret.
        BindingRefused,
        /// Callers wait for a connection.
        PoolSaturated,

        // The gateway.
        /// So many calls of an endpoint failed that a gateway calls it no more for a while (an Event).
        CircuitOpened,
        /// The endpoints are called again (an Event).
        CircuitClosed,

        // The operator itself.
        /// The pass took longer than its deadline.
        DeadlineExceeded,
        /// The API server refused or failed a request.
        ClusterFailed,
        /// Cleaning up outside of the cluster failed.
        CleanupFailed,
        /// The object went although something stays behind outside (an Event).
        Orphaned,
    }
}

impl Reason {
    /// What a user can do about it; empty for reasons that ask for nothing.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::DnsFailed | Self::NoAddresses => "check the host name and the cluster's DNS",
            Self::ConnectionRefused => "check that the server runs and listens on this port",
            Self::Timeout => {
                "check the network on the way, the server's load, and that type, port and TLS mode fit the server"
            }
            Self::TlsFailed => "check spec.tls: its mode, its CA and the names in the server's certificate",
            Self::CertificateExpired | Self::CertificateExpiringSoon => "renew the server's certificate",
            Self::AuthenticationFailed => {
                "check user name and password, or the token, in the credential Secret"
            }
            Self::PermissionDenied => "grant the account the right to connect and to run the probe",
            Self::DatabaseMissing => "create the database, or correct its name",
            Self::TooManyConnections => "raise the server's connection limit, or lower spec.pool.max",
            Self::ProtocolError => {
                "check that the address and the port belong to the kind of system that the spec says"
            }
            Self::Unavailable => {
                "look at the server's own log, and check that type, port and TLS mode fit the server"
            }
            Self::AddressDenied => "use a public address, or have the operator's settings allow this one",
            Self::UnexpectedStatus => {
                "look at the server's own log, or correct spec.healthCheck.http: its path and expectedStatuses"
            }
            Self::UnexpectedBody => {
                "look at what the server answers there, or correct spec.healthCheck.http.expectedBody"
            }
            Self::SecretNotFound => "create the Secret in the same namespace, or correct its name",
            Self::SecretMissingKeys => "add the key to the Secret",
            Self::SecretWrongType => "use a Secret of a type that holds credentials",
            Self::SecretInvalidValue => "correct the value in the Secret",
            Self::RefNotFound => "create it in the same namespace, or correct the reference",
            Self::RefNotReady => "see the status of the object that the spec names",
            Self::InvalidSpec => "correct the spec",
            Self::Duplicate => "delete one of the two, or register it as another instance",
            Self::QueryInvalid => "correct the statement, or create what it names",
            Self::BindingConflict => "delete that Secret, or set spec.binding.secretName to another name",
            Self::BindingRefused => {
                "give the operator the right to write Secrets, or set spec.binding.enabled to false"
            }
            Self::ServiceConflict => "delete that Service, or set spec.discovery.serviceName to another name",
            Self::ServiceRefused => "give the operator that right, or correct spec.discovery",
            Self::AddressNotAllowed => {
                "use an address that is neither of this machine, its link nor the cluster"
            }
            Self::AddressFamilyMissing => {
                "use addresses of the Service's family, or make the cluster dual-stack and delete the Service"
            }
            Self::PoolSaturated => "raise spec.pool.max, or look for slow queries",
            Self::CircuitOpened => "look at the API's own log, or correct spec.circuitBreaker",
            Self::SomeEndpointsDown => "see status.endpoints",
            Self::PreviousCredentialInUse => "correct the Secret, or create its new password on the server",
            Self::ServerReplaced => "check that this is the server you mean, and that its data is there",
            _ => "",
        }
    }
}
