//! The engine, with a kind that only these tests have: it has outside state, and does on demand what a kind must not do.

mod gadget;

use std::{sync::Arc, time::Duration};

use authlink::{
    backends::resolver::Resolver,
    cluster::{
        events::Events,
        fence::Fence,
        object_cache::ScopedCache,
        shared_watches::SharedWatches,
        watches::{Readiness, Scope},
    },
    controllers::{ControllerDeps, FINALIZER, engine},
    telemetry::metrics::Metrics,
};
use k8s_openapi::{
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use self::gadget::{Gadget, Gadgets};
use crate::support::{Namespace, SOON, eventually, password_secret, the_second_after};

/// An engine that runs, ended with the value.
struct Running {
    namespace: Namespace,
    gadgets: Arc<Gadgets>,
    task: AbortHandle,
}

impl Running {
    async fn start(config: engine::EngineConfig) -> Self {
        let namespace = Namespace::create().await;
        gadget::install(&namespace.client).await;
        let gadgets = Arc::<Gadgets>::default();
        let deps = ControllerDeps {
            client: namespace.client.clone(),
            fence: Fence::open(),
            metrics: Arc::new(Metrics::registered().0),
            events: Arc::new(Events::new(namespace.client.clone(), "authlink-test", "test")),
            resolver: Arc::new(Resolver::from_file("/etc/resolv.conf".as_ref()).expect("a resolver")),
            egress: Arc::default(),
            config,
        };
        let readiness = Readiness::default();
        let scope = Scope::Namespace(namespace.name.clone());
        let shared_watches = Arc::new(SharedWatches::start(&namespace.client, scope, &readiness, true));
        let cache = Arc::new(ScopedCache::start(&namespace.client, &shared_watches, &readiness));
        let engine = engine::Engine::start(Arc::clone(&gadgets), deps, &cache);
        let task = tokio::spawn(async move { engine.lead(CancellationToken::new()).await }).abort_handle();
        Self { namespace, gadgets, task }
    }

    async fn create(&self, name: &str, spec: serde_json::Value) {
        let manifest = json!({
            "apiVersion": "test.authlink.dev/v1", "kind": "Gadget", "metadata": { "name": name }, "spec": spec,
        });
        // Untyped, since one of these tests writes what the type cannot read.
        let resource = kube::core::ApiResource::erase::<Gadget>(&());
        let client = self.namespace.client.clone();
        let api = Api::<kube::core::DynamicObject>::namespaced_with(client, &self.namespace.name, &resource);
        api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&manifest)).await.expect(name);
    }

    /// The condition of this type, once it is there or gone.
    async fn until_condition(&self, name: &str, kind: &str, there: bool) -> Option<Condition> {
        let what = format!("{name} has {kind}: {there}");
        let found = self.namespace.follow::<Gadget>(name, SOON, &what, |gadget| {
            crate::support::condition(gadget, kind).is_some() == there
        });
        crate::support::condition(&found.await, kind).cloned()
    }

    /// The Ready condition, once it is `status` for `reason`.
    async fn ready(&self, name: &str, status: &str, reason: &str) -> Condition {
        let resource = kube::core::ApiResource::erase::<Gadget>(&());
        let client = self.namespace.client.clone();
        let api = Api::<kube::core::DynamicObject>::namespaced_with(client, &self.namespace.name, &resource);
        eventually(SOON, &format!("{name} is {status} for {reason}"), async || {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let conditions = object.data["status"]["conditions"].clone();
            let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
            ready
                .filter(|ready| (&*ready.status, &*ready.reason) == (status, reason))
                .ok_or(object.data.to_string())
        })
        .await
    }

    async fn gone(&self, name: &str) {
        eventually(SOON, &format!("{name} is gone"), async || {
            match self.namespace.api::<Gadget>().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_outside_state_gets_its_finalizer_first_and_is_cleaned_up_before_it_goes() {
    let running = Running::start(engine::EngineConfig::default()).await;
    running.create("one", json!({ "outside": true })).await;
    running.ready("one", "True", "Available").await;
    let gadget = running.namespace.api::<Gadget>().get("one").await.expect("one");
    assert_eq!(gadget.finalizers(), [FINALIZER]);
    assert_eq!(
        running.gadgets.first_finalizers("one"),
        [FINALIZER],
        "nothing was made outside before the finalizer"
    );

    running.namespace.delete::<Gadget>("one").await;
    running.gone("one").await;
    assert_eq!(running.gadgets.cleaned(), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_cleaned_up_goes_after_its_deadline_and_an_event_tells_what_stays() {
    let settings =
        engine::EngineConfig { finalize_timeout: Duration::from_secs(3), ..engine::EngineConfig::default() };
    let running = Running::start(settings).await;
    running.create("stuck", json!({ "outside": true, "cleanup": "fail" })).await;
    running.ready("stuck", "True", "Available").await;
    running.namespace.delete::<Gadget>("stuck").await;
    running.gone("stuck").await;
    let events = running.namespace.events("stuck").await;
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert!(reasons.contains(&"CleanupFailed") && reasons.contains(&"Orphaned"), "{events:?}");
    assert!(events.iter().any(|event| event.note.contains("a thing outside")), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_may_take_its_time_and_fail_once_after_that() {
    let settings =
        engine::EngineConfig { finalize_timeout: Duration::from_secs(1), ..engine::EngineConfig::default() };
    let running = Running::start(settings).await;
    running.create("slow", json!({ "outside": true, "cleanup": "wait" })).await;
    running.ready("slow", "True", "Available").await;
    let asked = std::time::Instant::now();
    running.namespace.delete::<Gadget>("slow").await;
    running.gone("slow").await;
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(running.gadgets.cleaned(), ["slow"]);
    let events = running.namespace.events("slow").await;
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["CleanupFailed"], "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_hangs_or_panics_holds_up_nobody_else() {
    let settings = engine::EngineConfig {
        concurrency: 2,
        reconcile_timeout: Duration::from_millis(500),
        ..engine::EngineConfig::default()
    };
    let running = Running::start(settings).await;
    for name in ["hang-1", "hang-2", "hang-3"] {
        running.create(name, json!({ "does": "hang" })).await;
    }
    running.create("panic", json!({ "does": "panic" })).await;
    running.create("good", json!({})).await;
    running.ready("good", "True", "Available").await;
    eventually(SOON, "the hanging pass is tried again", async || {
        match running.gadgets.reconciles("hang-1") {
            2.. => Ok(()),
            passes => Err(passes),
        }
    })
    .await;
    let hanging = running.until_condition("hang-1", "Reconciling", true).await;
    assert_eq!(hanging.expect("Reconciling").reason, "DeadlineExceeded");
    running.create("hang-1", json!({ "does": "work" })).await;
    running.ready("hang-1", "True", "Available").await;
    running.until_condition("hang-1", "Reconciling", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_is_told_so_and_the_others_go_on() {
    let running = Running::start(engine::EngineConfig::default()).await;
    running.create("newer", json!({ "does": "something that only a newer version knows" })).await;
    running.create("good", json!({})).await;
    running.ready("good", "True", "Available").await;
    let ready = running.ready("newer", "False", "InvalidSpec").await;
    assert!(ready.message.contains("Unknown variant"), "{}", ready.message);
    running.create("newer", json!({ "does": "work" })).await;
    running.ready("newer", "True", "Available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_object_that_cannot_be_read_any_more_nothing_is_held_and_no_endpoint_is_ready() {
    let running = Running::start(engine::EngineConfig::default()).await;
    running.create("one", json!({})).await;
    running.ready("one", "True", "Available").await;
    let gadget = running.namespace.api::<Gadget>().get("one").await.expect("one");
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "one", "labels": { "app.kubernetes.io/managed-by": "authlink" },
            "ownerReferences": [gadget.controller_owner_ref(&()).expect("an owner")],
        },
        "spec": { "ports": [{ "port": 80 }] },
    });
    running.namespace.apply::<Service>(service).await;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "one-ipv4-0", "labels": {
            "kubernetes.io/service-name": "one", "endpointslice.kubernetes.io/managed-by": "authlink.dev",
        } },
        "endpoints": [{ "addresses": ["192.0.2.1"], "conditions": { "ready": true, "serving": true } }],
    });
    running.namespace.apply::<EndpointSlice>(slice).await;

    running.create("one", json!({ "does": "what only a newer version knows" })).await;
    let first = running.ready("one", "False", "InvalidSpec").await;
    assert!(running.gadgets.is_forgotten(&gadget.uid().expect("a uid")));
    eventually(SOON, "no endpoint is ready", async || {
        running.create("one", json!({ "does": rand::random::<u64>().to_string() })).await;
        let slices = running.namespace.api::<EndpointSlice>();
        let slice = slices.get("one-ipv4-0").await.map_err(|error| error.to_string())?;
        let ready = slice.endpoints[0].conditions.as_ref().and_then(|it| it.ready);
        if ready == Some(false) { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    the_second_after(first.last_transition_time.0).await;
    running.create("one", json!({ "does": "yet another thing" })).await;
    let second = eventually(SOON, "the newest fault", async || {
        let ready = running.ready("one", "False", "InvalidSpec").await;
        if ready.message.contains("yet another thing") { Ok(ready) } else { Err(ready.message) }
    })
    .await;
    assert_eq!(second.last_transition_time, first.last_transition_time);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_starts_for_our_annotations_and_for_what_the_spec_names_and_for_nothing_else() {
    let running = Running::start(engine::EngineConfig::default()).await;
    running.create("one", json!({ "secret": "login" })).await;
    running.ready("one", "True", "Available").await;
    let annotate = async |name: &str| {
        let patch = json!({ "metadata": { "annotations": { name: "now" } } });
        let api = running.namespace.api::<Gadget>();
        api.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("one")
    };
    let passes = async |count: u32| {
        eventually(SOON, &format!("{count} passes"), async || match running.gadgets.reconciles("one") {
            passes if passes == count => Ok(()),
            passes => Err(passes),
        })
        .await;
    };
    passes(1).await;
    annotate("authlink.dev/reconcile").await;
    passes(2).await;
    running.namespace.apply::<Secret>(password_secret("login", "app", "another")).await;
    passes(3).await;
    // Neither somebody else's annotation nor our own status writes; the next one of ours shows that all were seen.
    annotate("example.org/note").await;
    annotate("authlink.dev/again").await;
    passes(4).await;
    running.namespace.api::<Secret>().delete("login", &DeleteParams::default()).await.expect("login");
    running.ready("one", "False", "SecretNotFound").await;
    assert_eq!(running.gadgets.reconciles("one"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_object_keeps_its_ready_and_is_left_alone() {
    let running = Running::start(engine::EngineConfig::default()).await;
    running.create("one", json!({})).await;
    running.ready("one", "True", "Available").await;
    running.create("one", json!({ "suspend": true })).await;
    eventually(SOON, "Suspended", async || {
        let gadget = running.namespace.api::<Gadget>().get("one").await.map_err(|error| error.to_string())?;
        let conditions = gadget.status.map(|status| status.common.conditions).unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
        if holds("Suspended") && holds("Ready") { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    assert_eq!(running.gadgets.reconciles("one"), 1);
    running.create("one", json!({ "suspend": false })).await;
    eventually(SOON, "another pass", async || match running.gadgets.reconciles("one") {
        2 => Ok(()),
        passes => Err(passes),
    })
    .await;
}
