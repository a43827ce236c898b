//! Events: a few lines of history for `kubectl describe`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;

/// The API server's limit for a note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// Publishes Events; the same one again only raises the count of the first.
pub struct Events {
    client: Client,
    reporter: Reporter,
    /// kube's recorder counts Events up without looking at their notes, so each note gets a recorder of its own.
    recorders: Mutex<HashMap<Subject, (String, Recorder)>>,
}

/// The uid of the object, and the reason.
type Subject = (String, &'static str);

impl Events {
    /// Events from `controller`, by the process `instance`.
    #[must_use]
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        Self { client, reporter, recorders: Mutex::default() }
    }

    /// Publishes one. A failure is logged: an Event is never worth failing a reconcile.
    pub async fn publish(&self, about: &ObjectReference, warning: bool, reason: &'static str, note: &str) {
        let note = cut(note, NOTE_LIMIT);
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let recorder = self.recorder(about.uid.clone().unwrap_or_default(), reason, note);
        if let Err(error) = recorder.publish(&event, about).await {
            tracing::warn!(%error, reason, "an Event could not be published");
        }
    }

    fn recorder(&self, uid: String, reason: &'static str, note: &str) -> Recorder {
        let mut recorders = self.recorders.lock();
        let fresh = || (note.to_owned(), Recorder::new(self.client.clone(), self.reporter.clone()));
        let entry = recorders.entry((uid, reason)).or_insert_with(fresh);
        if entry.0 != note {
            *entry = fresh();
        }
        entry.1.clone()
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.recorders.lock().retain(|(of, _), _| of != uid);
    }
}

/// At most `limit` bytes, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
