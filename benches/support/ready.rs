//! Waiting for objects by a watch of the bench's own, which costs the API server the same in every measurement.

use std::{collections::HashSet, fmt::Debug, pin::pin, time::Instant};

use authlink::controllers;
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, NotUsed, Object},
    runtime::watcher::{self, watcher},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::mpsc, task::JoinHandle};

use super::Outcome;

/// Only what is looked at: the bench must not take the processor that the operator needs.
type Seen = Object<NotUsed, SeenStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
struct SeenStatus {
    #[serde(default)]
    conditions: Vec<SeenCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SeenCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

/// What an object says, and when it was seen.
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) at: Instant,
}

/// Watches one thing that all objects of a kind in a namespace say.
pub(crate) struct Watch {
    changes: mpsc::UnboundedReceiver<Change>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts it, and returns when the first list is there: from then on nothing is missed.
    pub(crate) async fn start<K: controllers::Object>(
        client: &Client,
        namespace: &str,
        condition: &'static str,
    ) -> Outcome<Self> {
        let resource = ApiResource::erase::<K>(&());
        let api = Api::<Seen>::namespaced_with(client.clone(), namespace, &resource);
        Self::follow(api, move |object: &Seen| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions.filter(|found| found.type_ == condition).map(|found| found.status.clone()).collect()
        })
        .await
    }

    /// The same for whether endpoints are ready, in the EndpointSlices of the namespace.
    pub(crate) async fn start_on_slices(client: &Client, namespace: &str) -> Outcome<Self> {
        Self::follow(Api::<EndpointSlice>::namespaced(client.clone(), namespace), |slice| {
            let ready = slice.endpoints.iter().filter_map(|endpoint| endpoint.conditions.as_ref()?.ready);
            ready.map(|ready| if ready { "True" } else { "False" }.to_owned()).collect()
        })
        .await
    }

    async fn follow<K, F>(api: Api<K>, statuses: F) -> Outcome<Self>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        F: Fn(&K) -> Vec<String> + Send + 'static,
    {
        let (tell, changes) = mpsc::unbounded_channel();
        let (listed, ready) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut listed = Some(listed);
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        let at = Instant::now();
                        for status in statuses(&object) {
                            // Fails only when nobody waits any more.
                            let _ = tell.send(Change { name: object.name_any(), status, at });
                        }
                    }
                    Ok(watcher::Event::InitDone) => {
                        if let Some(listed) = listed.take() {
                            let _ = listed.send(());
                        }
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("the bench's own watch: {error}"),
                }
            }
        });
        ready.await?;
        Ok(Self { changes, task })
    }

    /// Waits until `count` objects say True; gives the time of the last one.
    pub(crate) async fn all_true(&mut self, count: usize) -> Outcome<Instant> {
        let mut holds = HashSet::new();
        loop {
            let change = self.changes.recv().await.ok_or("the bench's own watch has ended")?;
            if change.status != "True" {
                holds.remove(&change.name);
            } else if holds.insert(change.name) && holds.len() == count {
                return Ok(change.at);
            }
        }
    }

    /// Waits until the one object that is watched says `status`; gives the time.
    pub(crate) async fn until(&mut self, status: &str) -> Outcome<Instant> {
        loop {
            let change = self.changes.recv().await.ok_or("the bench's own watch has ended")?;
            if change.status == status {
                return Ok(change.at);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
