//! What users read of a directory.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Observed, TargetObservation};
use crate::{
    api::{
        ConditionType, Reason,
        v1alpha1::{
            LdapDirectory,
            ldap_directory::{LdapDirectoryStatus, SyncMode, TlsMode, TlsStatus},
        },
    },
    backends::{Fault, directory::Login},
    controllers::{
        Report, discovery::EndpointTarget, external_api::CERTIFICATE_HORIZON, targets::ObservedTarget,
    },
    domain::{
        conditions::{ConditionUpdate, advise},
        endpoint_slices::Port,
    },
};

/// How often it is checked whether a certificate expires soon.
const EXPIRY_INTERVAL: Duration = Duration::from_hours(24);

pub(super) fn report(object: &LdapDirectory, observed: &Observed) -> Report<LdapDirectoryStatus> {
    let targets = &observed.targets;
    let mut report = targets.report(object);
    report.conditions.push(bind(observed));
    let before = object.status.as_ref().filter(|before| targets.is_of(&before.common));
    let status = &mut report.status;
    // What the store was found to have holds, whatever the servers do.
    status.sync = object.status.as_ref().and_then(|before| before.sync.clone());
    status.plan = object.status.as_ref().and_then(|before| before.plan.clone());
    let vendors = targets.targets.iter().filter_map(|target| target.facts());
    let vendor = vendors.map(|facts| facts.vendor.clone()).find(|vendor| !vendor.is_empty());
    status.vendor = vendor.or_else(|| before?.vendor.clone());
    status.tls = certificates(targets, before);
    match &observed.examination {
        Some(found) => {
            report.conditions.push(verdict(
                ConditionType::SearchBaseFound,
                &found.bases,
                (Reason::Found, "the search bases exist"),
            ));
            report.conditions.push(mapping(&found.mapping));
            report.conditions.push(match &found.test {
                None => ConditionUpdate::is_true(
                    ConditionType::TestSearchPassed,
                    Reason::Passed,
                    "spec.test is not set: nothing is tested",
                ),
                Some(test) => {
                    report.status.test = test.as_ref().ok().cloned();
                    let one = test.clone().and_then(|test| match test.matched {
                        1 => Ok(()),
                        0 => Err(Fault::new(Reason::TestUserNotFound, "the test search finds nobody")),
                        _ => {
                            Err(Fault::new(Reason::TestUserNotFound, "the test search finds several entries"))
                        }
                    });
                    let passed = (Reason::Passed, "the test search finds one user");
                    verdict(ConditionType::TestSearchPassed, &one, passed)
                }
            });
        }
        // While no server can be used, what was seen last stays, and `Connected` says that it is down.
        None => report.status.test = before.and_then(|before| before.test.clone()),
    }
    if object.spec.tls.mode == Some(TlsMode::None) && object.spec.insecure {
        report.degrade(Reason::InsecureBind, "passwords are sent without TLS (spec.insecure)");
    }
    warn_of_expiry(&mut report);
    report
}

fn verdict(
    kind: ConditionType,
    result: &Result<(), Fault>,
    (reason, message): (Reason, &str),
) -> ConditionUpdate {
    match result {
        Ok(()) => ConditionUpdate::is_true(kind, reason, message),
        Err(fault) => ConditionUpdate::is_false(kind, fault.reason, fault.message()),
    }
}

fn mapping(result: &Result<bool, Fault>) -> ConditionUpdate {
    let kind = ConditionType::MappingValid;
    match result {
        Ok(true) => ConditionUpdate::is_true(kind, Reason::Passed, "the entries have what the mapping needs"),
        // The directory may well be empty yet.
        Ok(false) => ConditionUpdate::is_true(
            kind,
            Reason::NobodyFound,
            advise(Reason::NobodyFound, "the search for users finds nobody, so that nothing was tested"),
        ),
        Err(fault) => ConditionUpdate::is_false(kind, fault.reason, fault.message()),
    }
}

/// `BindValid`, by what the probes have found.
fn bind(observed: &Observed) -> ConditionUpdate {
    let kind = ConditionType::BindValid;
    let faults = observed.targets.targets.iter().filter_map(|target| target.observation.fault.as_ref());
    let refused = faults.clone().find(|fault| fault.reason == Reason::AuthenticationFailed);
    if let Some(fault) = refused {
        return ConditionUpdate::is_false(kind, fault.reason, fault.message());
    }
    if !observed.targets.targets.iter().any(ObservedTarget::works) {
        return ConditionUpdate::unknown(kind, Reason::Pending, "no server has answered a bind");
    }
    match observed.resolved.servers.login {
        Login::Anonymous => {
            let message = "the directory is read without a bind (spec.bind.mode Anonymous)";
            ConditionUpdate::is_true(kind, Reason::Anonymous, message)
        }
        Login::Simple { .. } | Login::External => {
            ConditionUpdate::is_true(kind, Reason::BindSucceeded, "the bind account is accepted")
        }
    }
}

fn certificates(targets: &TargetObservation, before: Option<&LdapDirectoryStatus>) -> Option<TlsStatus> {
    // Until this process has connected to every server that works, what an earlier one has seen holds.
    let unseen = targets.targets.iter().any(|target| target.works() && target.facts().is_none());
    let before =
        before.filter(|_| unseen).and_then(|before| Some(before.tls.as_ref()?.not_after.as_ref()?.0));
    let expiries = targets.targets.iter().filter_map(|target| target.facts()?.not_after);
    let client = &targets.targets.first()?.settings.settings.tls;
    let tls = TlsStatus {
        not_after: expiries.chain(before).min().map(Time),
        client_not_after: client.client_not_after().map(Time),
    };
    (tls != TlsStatus::default()).then_some(tls)
}

fn warn_of_expiry(report: &mut Report<LdapDirectoryStatus>) {
    let Some(tls) = report.status.tls.clone() else { return };
    for (what, time) in
        [("a server certificate", tls.not_after), ("the client certificate", tls.client_not_after)]
    {
        let Some(time) = time else { continue };
        if time.0 < Timestamp::now() + CERTIFICATE_HORIZON {
            report.degrade(Reason::CertificateExpiringSoon, &format!("{what} expires at {:.0}", time.0));
        } else {
            report.requeue_within(EXPIRY_INTERVAL);
        }
    }
}

/// `Synced` and `DeletionGuard`, by what the status says of the last sync.
pub(super) fn sync_conditions(object: &LdapDirectory, report: &mut Report<LdapDirectoryStatus>) {
    let status = &report.status;
    let is_off = object.spec.sync.as_ref().is_none_or(|sync| sync.mode == SyncMode::Off);
    let last = status.sync.as_ref().and_then(|sync| sync.last_run.as_ref());
    let is = |reason, message: &str| {
        ConditionUpdate::is_false(ConditionType::Synced, reason, advise(reason, message))
    };
    let synced = match last.map(|last| (last.outcome.as_str(), last.message.as_str())) {
        _ if is_off => {
            ConditionUpdate::unknown(ConditionType::Synced, Reason::SyncOff, "there are no syncs (spec.sync)")
        }
        None => ConditionUpdate::unknown(ConditionType::Synced, Reason::Pending, "no sync has ended yet"),
        Some(("Succeeded", _)) => ConditionUpdate::is_true(
            ConditionType::Synced,
            Reason::SyncSucceeded,
            "the store has the users of the directory",
        ),
        Some(("PartialFailure", _)) => is(Reason::PartialFailure, "some entries cannot be used"),
        Some(("NobodyFound", _)) => is(Reason::NobodyFound, "the search for users finds nobody"),
        Some(("Held", _)) => is(Reason::DeletionThresholdExceeded, "the deletion guard holds losses back"),
        Some(("Planned", _)) if status.plan.is_none() => ConditionUpdate::is_true(
            ConditionType::Synced,
            Reason::SyncSucceeded,
            "the store has the users of the directory, and nothing is planned",
        ),
        Some(("Planned", _)) => is(Reason::PlanPending, "there is a plan"),
        Some(("Incomplete", message)) => {
            ConditionUpdate::is_false(ConditionType::Synced, Reason::Incomplete, message)
        }
        Some((_, message)) => ConditionUpdate::is_false(ConditionType::Synced, Reason::SyncFailed, message),
    };
    let held = status.plan.as_ref().filter(|plan| !plan.held.is_empty());
    let guard = match held {
        _ if is_off => ConditionUpdate::unknown(
            ConditionType::DeletionGuard,
            Reason::SyncOff,
            "there are no syncs (spec.sync)",
        ),
        Some(plan) => {
            let each: Vec<_> =
                plan.held.iter().map(|held| format!("{} ({})", held.class, held.reason)).collect();
            let detail =
                format!("more would be lost than is plausible, and nobody was disabled: {}", each.join(", "));
            ConditionUpdate::is_true(
                ConditionType::DeletionGuard,
                Reason::DeletionThresholdExceeded,
                advise(Reason::DeletionThresholdExceeded, &detail),
            )
        }
        None => ConditionUpdate::is_false(
            ConditionType::DeletionGuard,
            Reason::WithinLimits,
            "nothing is held back",
        ),
    };
    report.conditions.extend([synced, guard]);
}

/// The servers as they are to be published.
pub(super) fn endpoint_targets(targets: &TargetObservation) -> Vec<EndpointTarget> {
    let each = targets.targets.iter().map(|target| {
        let settings = &target.settings;
        let server = settings.settings.servers.get(settings.index);
        let scheme = match settings.settings.protection {
            crate::backends::directory::Protection::Ldaps => "ldaps",
            _ => "ldap",
        };
        EndpointTarget {
            host: server.map(|server| server.host.clone()).unwrap_or_default(),
            port: Port {
                name: scheme.to_owned(),
                port: server.map_or(0, |server| server.port),
                app_protocol: Some(scheme.to_owned()),
            },
            healthy: target.works(),
            zone: None,
        }
    });
    each.collect()
}
