//! Waiting for objects by a watch of the bench's own, which costs the API server the same in every measurement.

use std::{collections::HashSet, pin::pin, time::Instant};

use authlink::api::v1alpha1::Database;
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, NotUsed, Object},
    runtime::watcher::{self, watcher},
};
use serde::Deserialize;
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

/// A change of a condition, and when it was seen.
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) at: Instant,
}

/// Watches one condition of all Databases in a namespace.
pub(crate) struct Watch {
    changes: mpsc::UnboundedReceiver<Change>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts it, and returns when the first list is there: from then on nothing is missed.
    pub(crate) async fn start(client: &Client, namespace: &str, condition: &'static str) -> Outcome<Self> {
        let resource = ApiResource::erase::<Database>(&());
        let api = Api::<Seen>::namespaced_with(client.clone(), namespace, &resource);
        let (tell, changes) = mpsc::unbounded_channel();
        let (listed, ready) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut listed = Some(listed);
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        let at = Instant::now();
                        let conditions = object.status.iter().flat_map(|status| &status.conditions);
                        for found in conditions.filter(|found| found.type_ == condition) {
                            let (name, status) = (object.name_any(), found.status.clone());
                            // Fails only when nobody waits any more.
                            let _ = tell.send(Change { name, status, at });
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
