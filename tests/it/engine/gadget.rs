//! A kind that does what its spec asks for, bad things included.

use std::{collections::HashMap, time::Duration};

use authlink::{
    api::{
        ConditionType, Managed, Reason,
        shared::Reference,
        status::{CommonStatus, Status},
    },
    backends::Fault,
    cluster::references::References,
    controllers::{Error, Finalized, ObserveContext, ReconcileContext, Reconciler, Report},
    domain::conditions::ConditionUpdate,
    resolving::Unresolved,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};
use parking_lot::{Mutex, MutexGuard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "test.authlink.dev", version = "v1", kind = "Gadget", namespaced, status = "GadgetStatus")]
pub(crate) struct GadgetSpec {
    #[serde(default)]
    outside: bool,
    #[serde(default)]
    does: Does,
    #[serde(default)]
    cleanup: Does,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    suspend: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Does {
    #[default]
    Work,
    Fail,
    Hang,
    Panic,
    Wait,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GadgetStatus {
    #[serde(flatten)]
    pub(crate) common: CommonStatus,
}

impl Status for GadgetStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }
    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }
    fn forget_observations(&mut self) {}
    fn forget_numbers(&mut self) {}
}

impl Managed for Gadget {
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::Accepted, ConditionType::ResolvedRefs, ConditionType::Connected];
    const READY_WHEN: &'static [ConditionType] = Self::CONDITIONS;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }
    fn references(&self) -> Vec<Reference> {
        self.spec.secret.clone().map(Reference::Secret).into_iter().collect()
    }
    fn has_external_state(&self) -> bool {
        self.spec.outside
    }
}

/// Installs the CRD, with a spec that takes anything: as if a newer version had written the objects.
pub(crate) async fn install(client: &Client) {
    let mut crd = Gadget::crd();
    let schema = crd.spec.versions[0].schema.as_mut().and_then(|it| it.open_api_v3_schema.as_mut());
    let spec =
        schema.and_then(|it| it.properties.as_mut()).and_then(|it| it.get_mut("spec")).expect("a spec");
    spec.properties = None;
    spec.x_kubernetes_preserve_unknown_fields = Some(true);
    let api = Api::all(client.clone());
    let name = crd.name_any();
    api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.expect("a CRD");
    await_condition(api, &name, conditions::is_crd_established()).await.expect("the CRD is served");
}

/// What was asked of the kind.
#[derive(Default)]
pub(crate) struct Gadgets(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    reconciles: HashMap<String, u32>,
    first_finalizers: HashMap<String, Vec<String>>,
    cleaned: Vec<String>,
    waited: Vec<String>,
    forgotten: Vec<String>,
}

impl Gadgets {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock()
    }
    pub(crate) fn reconciles(&self, name: &str) -> u32 {
        self.seen().reconciles.get(name).copied().unwrap_or_default()
    }
    pub(crate) fn first_finalizers(&self, name: &str) -> Vec<String> {
        self.seen().first_finalizers.get(name).cloned().unwrap_or_default()
    }
    pub(crate) fn is_forgotten(&self, uid: &str) -> bool {
        self.seen().forgotten.iter().any(|forgotten| forgotten == uid)
    }
    pub(crate) fn cleaned(&self) -> Vec<String> {
        self.seen().cleaned.clone()
    }
}

impl Reconciler for Gadgets {
    type Object = Gadget;
    const NAME: &'static str = "Gadget";

    async fn observe(&self, _: &Gadget, _: &ObserveContext<'_>) -> Result<Report<GadgetStatus>, Error> {
        Ok(Report::default())
    }

    async fn reconcile(&self, gadget: &Gadget, cx: &ReconcileContext) -> Result<Report<GadgetStatus>, Error> {
        let name = gadget.name_any();
        {
            let mut seen = self.seen();
            *seen.reconciles.entry(name.clone()).or_default() += 1;
            seen.first_finalizers.entry(name).or_insert_with(|| gadget.finalizers().to_vec());
        }
        match gadget.spec.does {
            Does::Work | Does::Wait => {}
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("the gadget was asked to panic"),
            Does::Fail => return Err(failure()),
        }
        if let Some(name) = &gadget.spec.secret {
            let namespace = gadget.namespace().unwrap_or_default();
            let secret = cx.references.secret(&namespace, name).await?;
            secret.ok_or_else(|| Unresolved::SecretNotFound { name: name.clone() })?;
        }
        let conditions = Gadget::CONDITIONS
            .iter()
            .map(|kind| ConditionUpdate::is_true(*kind, Reason::Valid, ""))
            .collect();
        Ok(Report { conditions, ..Report::default() })
    }

    async fn reject(&self, namespace: &str, uid: &str, cx: &ReconcileContext) -> Result<(), Error> {
        Ok(cx.publisher.mark_endpoints_not_ready(namespace, uid, &cx.fence).await?)
    }

    async fn finalize(&self, gadget: &Gadget, _: &ReconcileContext) -> Result<Finalized, Error> {
        let name = gadget.name_any();
        match gadget.spec.cleanup {
            Does::Fail => return Err(failure()),
            Does::Wait => {
                let waited = self.seen().waited.iter().filter(|waited| **waited == name).count();
                self.seen().waited.push(name.clone());
                match waited {
                    // By then the finalize timeout has passed.
                    0 => return Ok(Finalized::RequeueAfter(Duration::from_secs(2))),
                    1 => return Err(failure()),
                    _ => {}
                }
            }
            _ => {}
        }
        self.seen().cleaned.push(name);
        Ok(Finalized::Done)
    }

    fn forget(&self, uid: &str) {
        self.seen().forgotten.push(uid.to_owned());
    }
}

fn failure() -> Error {
    Error::Cleanup(Fault::new(Reason::Timeout, "a thing outside does not answer"))
}
