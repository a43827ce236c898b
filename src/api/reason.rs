//! The reasons: the same word is the reason of a condition, the reason of an Event and the label of a metric.

use super::names::names;

names! {
    /// The reason of a condition or an Event.
    pub enum Reason {
        // Success.
        /// `Ready`: the object is usable.
        Available,
        /// `Accepted`, `UrlValid`, `SecretValid`: the spec, the URL or the values of Secrets are valid.
        Valid,
        /// `ResolvedRefs`: every reference in the spec is resolved.
        Resolved,
        /// `Connected`: connection, TLS handshake and login succeed.
        LoginSucceeded,
        /// `Connected`, `EndpointReachable`: connection and TLS handshake succeed; this target needs no login.
        Reachable,
        /// `Healthy`: the probes succeed.
        ProbeSucceeded,
        /// `Connected`, `Healthy`, `EndpointReachable`: assumed to be true because probes are turned off.
        NotProbed,
        /// `Registered`: Service and EndpointSlices are up to date.
        Registered,
        /// `PoolHealthy`: callers get a connection without waiting.
        WithinBounds,
        /// A new credential is verified and in use, or a new key signs deliveries (Event only).
        CredentialRotated,
        /// `BreakerClosed`: the circuit breaker lets deliveries through.
        BreakerClosed,
        /// `Enabled`: events are delivered.
        Enabled,
        /// `Durable`: the store survives the loss of its Pod.
        StoreDurable,

        // Unknown.
        /// Not checked yet.
        Pending,
        /// Probes fail, but not yet `unhealthyThreshold` times in a row.
        ThresholdNotReached,
        /// `spec.suspend` is true.
        Suspended,

        // Spec and references.
        /// The spec is invalid in a way that the schema cannot check.
        InvalidSpec,
        /// An older object registers the same instance.
        Duplicate,
        /// The Secret does not exist.
        SecretNotFound,
        /// The Secret has no such key.
        SecretMissingKeys,
        /// The Secret has an unsupported type.
        SecretWrongType,
        /// The value in the Secret is invalid.
        SecretInvalidValue,
        /// The ConfigMap or object does not exist, or has no such key.
        RefNotFound,
        /// The referenced object exists, but is not ready.
        RefNotReady,

        // The target.
        /// The host name has no address, or no DNS server responds.
        DnsFailed,
        /// Nothing listens on the port.
        ConnectionRefused,
        /// No response before the timeout.
        Timeout,
        /// The TLS handshake failed.
        TlsFailed,
        /// The server's certificate has expired.
        CertificateExpired,
        /// The server rejects the credential.
        AuthenticationFailed,
        /// The login succeeds, but the account lacks a privilege.
        PermissionDenied,
        /// The database does not exist on the server.
        DatabaseMissing,
        /// The server has reached its connection limit.
        TooManyConnections,
        /// The server speaks another protocol.
        ProtocolError,
        /// The server is temporarily unable to serve: starting, stopping, loading, or out of resources.
        Unavailable,
        /// Connections to the address are not allowed.
        AddressDenied,
        /// The health check got an unexpected status code.
        UnexpectedStatus,
        /// The health check got a body without `expectedBody`.
        UnexpectedBody,
        /// The caller aborted its request.
        CallerAborted,
        /// Probes failed `unhealthyThreshold` times in a row.
        ProbeFailed,

        // Discovery.
        /// A Service with this name exists and is not managed by authlink.
        ServiceConflict,
        /// The API server rejects the Service or its EndpointSlices.
        ServiceRefused,
        /// The target has an address that is not allowed in an EndpointSlice.
        AddressNotAllowed,
        /// The host names of the targets have no address.
        NoAddresses,
        /// The Service has no address of the targets' IP family (IPv4 or IPv6).
        AddressFamilyMissing,

        // Degraded.
        /// Some endpoints are down.
        SomeEndpointsDown,
        /// The credential Secret changed and the new value does not work; the previous one stays in use.
        PreviousCredentialInUse,
        /// A certificate expires within two weeks.
        CertificateExpiringSoon,
        /// The address is served by a different server than before.
        ServerReplaced,
        /// A declared query cannot be prepared.
        QueryInvalid,
        /// A Secret with the binding's name exists and is not managed by authlink.
        BindingConflict,
        /// The API server rejects the binding Secret.
        BindingRefused,
        /// The connection pool is exhausted; callers are waiting.
        PoolSaturated,

        // Directories.
        /// The search base does not exist, or the bind account may not read it.
        SearchBaseMissing,
        /// The server does not support paged results (RFC 2696), so that a listing cannot be known to be complete.
        PagingUnsupported,
        /// The server returned a reference to another server for a part of the search.
        ReferralReturned,
        /// A size or time limit of the server ended a listing before its end.
        LimitExceeded,
        /// The search for `test.username` does not find exactly one user.
        TestUserNotFound,
        /// Entries lack attributes that the mapping needs.
        MappingInvalid,

        // User sync.
        /// `BindValid`: the server accepts the bind account.
        BindSucceeded,
        /// `BindValid`: the directory is read anonymously, as the spec says.
        Anonymous,
        /// `SearchBaseFound`: the search bases exist and can be read.
        Found,
        /// `TestSearchPassed`, `MappingValid`: the search or the mapping gives what is needed.
        Passed,
        /// `Synced`: the store has the users of the directory.
        SyncSucceeded,
        /// `spec.sync.mode` is Off.
        SyncOff,
        /// The sync failed before it could read anything.
        SyncFailed,
        /// The listing of users or groups is not complete; nobody is disabled.
        Incomplete,
        /// The sync found no user, and there were none before.
        NobodyFound,
        /// Some entries cannot be used.
        PartialFailure,
        /// A plan waits for approval.
        PlanPending,
        /// More users, memberships or roles would be lost than the limits of `spec.sync.deletionGuard` allow.
        DeletionThresholdExceeded,
        /// `DeletionGuard` is False: nothing is held back.
        WithinLimits,
        /// The annotation `authlink.dev/approve-deletions` does not match the current plan (Event only).
        ApprovalIgnored,
        /// Passwords are sent without TLS.
        InsecureBind,

        // Webhooks.
        /// A Secret with the required name exists and is not managed by authlink.
        SecretConflict,
        /// The API server rejects the Secret.
        SecretRefused,
        /// The Secret with the generated signing key was deleted; a new key was generated.
        SigningKeyLost,
        /// The signing key cannot be used for one of the schemes.
        SchemeUnsigned,
        /// The endpoint did not answer the challenge.
        ChallengeFailed,
        /// The circuit breaker is open; deliveries wait.
        BreakerOpen,
        /// The receiver responded with 410 (Gone).
        Gone,
        /// Every delivery failed for `delivery.disableAfter`.
        TooManyFailures,
        /// The store is on a volume that is deleted with its Pod.
        EphemeralVolume,
        /// The store is unavailable.
        StoreUnavailable,
        /// The filter failed for events, which are held.
        ExpressionFailed,
        /// Every delivery fails; the webhook is about to be disabled.
        EndpointFailing,
        /// The receiver rejects every delivery with a 4xx status.
        DeliveriesRejected,
        /// There are dead letters: deliveries without attempts left, or too old.
        DeadLettersPresent,

        // The gateway.
        /// A gateway opened the circuit breaker of an endpoint because too many calls failed (Event only).
        CircuitOpened,
        /// All circuit breakers are closed again (Event only).
        CircuitClosed,

        // The operator.
        /// The reconcile timed out.
        DeadlineExceeded,
        /// A request to the API server failed.
        ClusterFailed,
        /// Cleaning up outside of the cluster failed.
        CleanupFailed,
        /// The object was deleted, and its state outside of the cluster could not be cleaned up (Event only).
        Orphaned,
    }
}

impl Reason {
    /// What the user can do; empty if nothing needs to be done.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::DnsFailed | Self::NoAddresses => "check the host name and the cluster's DNS",
            Self::ConnectionRefused => "check that the server is running and listens on this port",
            Self::Timeout => {
                "check firewalls and NetworkPolicies, the load of the server, and type, port and TLS mode in the spec"
            }
            Self::TlsFailed => "check spec.tls: mode, CA and the names in the server certificate",
            Self::CertificateExpired => "renew the server certificate",
            Self::CertificateExpiringSoon => "renew the certificate",
            Self::AuthenticationFailed => {
                "check the user name and password, or the token, in the credential Secret"
            }
            Self::PermissionDenied => "grant the account the privileges to connect and to run the probe",
            Self::DatabaseMissing => "create the database, or correct its name",
            Self::TooManyConnections => "raise the server's connection limit, or lower spec.pool.max",
            Self::ProtocolError => "check type, host and port in the spec",
            Self::Unavailable => "check the server's log, and type, port and TLS mode in the spec",
            Self::AddressDenied => {
                "use a public address; other addresses must be in --egress-allow-cidrs (chart: egress.allowCIDRs)"
            }
            Self::UnexpectedStatus => {
                "check the server's log, or correct path and expectedStatuses in spec.healthCheck.http"
            }
            Self::UnexpectedBody => {
                "check the response of the server, or correct spec.healthCheck.http.expectedBody"
            }
            Self::SearchBaseMissing => {
                "correct the search base, or give the bind account the right to read it"
            }
            Self::PagingUnsupported => {
                "set spec.allowUnpaged to true if the server lists everything in one response"
            }
            Self::ReferralReturned => {
                "set spec.referrals to Ignore if that part is not wanted, or use an LdapDirectory for each server"
            }
            Self::LimitExceeded => "raise the server's limits for the bind account, or lower spec.pageSize",
            Self::TestUserNotFound => "correct spec.test.username, or spec.userSearch",
            Self::MappingInvalid => {
                "correct spec.preset or spec.userSearch.attributes, or let the bind account read them"
            }
            Self::SyncFailed => "see the message; the sync is retried",
            Self::NobodyFound => "correct spec.userSearch: base, scope and filter",
            Self::PartialFailure => "see status.sync.failures",
            Self::PlanPending => {
                "review status.plan, and approve it with the annotation authlink.dev/approve-deletions"
            }
            Self::DeletionThresholdExceeded => {
                "correct the directory or the search, or approve status.plan.hash with the annotation authlink.dev/approve-deletions"
            }
            Self::InsecureBind => "set spec.tls.mode to Ldaps or StartTls",
            Self::SecretNotFound => "create the Secret in the same namespace, or correct its name",
            Self::SecretMissingKeys => "add the key to the Secret",
            Self::SecretWrongType => "use a Secret with one of the supported types",
            Self::SecretInvalidValue => "correct the value in the Secret",
            Self::RefNotFound => "create it in the same namespace, or correct the reference",
            Self::RefNotReady => "check the status of the referenced object",
            Self::InvalidSpec => "correct the spec",
            Self::Duplicate => "delete one of the two objects, or give it another instanceId",
            Self::QueryInvalid => "correct the statement, or create the tables and columns that it uses",
            Self::BindingConflict => "delete that Secret, or set spec.binding.secretName to another name",
            Self::BindingRefused => {
                "allow the operator to write Secrets (chart: rbac.bindings), or set spec.binding.enabled to false"
            }
            Self::ServiceConflict => "delete that Service, or set spec.discovery.serviceName to another name",
            Self::ServiceRefused => {
                "allow the operator to write Services and EndpointSlices, or correct spec.discovery"
            }
            Self::AddressNotAllowed => {
                "use an address outside of the cluster that is neither loopback, link-local nor multicast"
            }
            Self::AddressFamilyMissing => {
                "use addresses of the Service's IP family, or make the cluster dual-stack and delete the Service"
            }
            Self::PoolSaturated => "raise spec.pool.max, or check for slow queries",
            Self::SecretConflict => "delete that Secret, or rename the object",
            Self::SecretRefused => "allow the operator to write Secrets (chart: rbac.bindings)",
            Self::SigningKeyLost => "configure the receiver with the new key in the Secret",
            Self::SchemeUnsigned => {
                "use a key that is valid for every scheme in spec.signing.schemes, or remove the scheme"
            }
            Self::ChallengeFailed => {
                "let the receiver respond with the value of challenge, or use another spec.verification.mode"
            }
            Self::BreakerOpen => "see status.lastFailure, and check the log of the receiver",
            Self::Gone | Self::TooManyFailures => {
                "once the receiver works, set the annotation authlink.dev/enable to a new value"
            }
            Self::EphemeralVolume => "use a persistent volume (chart: store), or PostgreSQL",
            Self::StoreUnavailable => "check the log of the gateway, and the store",
            Self::ExpressionFailed => "correct spec.filter: the held events are delivered then",
            Self::EndpointFailing => "see status.lastFailure, and correct the receiver before it is disabled",
            Self::DeliveriesRejected => "see status.lastFailure, and correct spec.payload or the receiver",
            Self::DeadLettersPresent => "see status.lastFailure, and replay them once the receiver works",
            Self::CircuitOpened => "check the log of the API, or correct spec.circuitBreaker",
            Self::SomeEndpointsDown => "see status.endpoints",
            Self::PreviousCredentialInUse => "correct the Secret, or set its new password on the server",
            Self::ServerReplaced => "check that this is the intended server and that its data is complete",
            _ => "",
        }
    }
}
