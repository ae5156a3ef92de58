//! Events: one for each thing that happened, written in the background. They can fail; a reconcile cannot fail by them.
//!
//! Each is an object of its own: the library's recorder folds events of one reason into one and keeps the first note,
//! which would tell the first cause for ever.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource, api::PostParams};
use tokio::sync::mpsc;

use crate::{
    api::{Class, MANAGER},
    kubernetes::{brief, timed},
    plan::Happening,
    runtime::Metrics,
};

/// How many events may wait to be written; more are dropped.
const QUEUE: usize = 4096;
/// How many are written at a time: as fast as things happen, and few beside what those that wait for an answer ask for.
const WRITERS: usize = 8;
/// The API server refuses longer notes.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>
const NOTE_BYTES: usize = 1024;

/// Where events are handed in.
#[derive(Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<(String, Event)>,
    instance: String,
}

impl Events {
    /// The queue, and the task that writes what is put in it until every sender is gone.
    pub fn start(client: Client, instance: String, metrics: Arc<Metrics>) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, mut waiting) = mpsc::channel::<(String, Event)>(QUEUE);
        let task = tokio::spawn(async move {
            // What keeps one from being written keeps the next as well: said once.
            let failing = AtomicBool::new(false);
            let write = async |(namespace, event): (String, Event)| {
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                let written = timed(api.create(&PostParams::default(), &event)).await;
                let is_known = failing.swap(written.is_err(), Ordering::Relaxed);
                match written {
                    Ok(_) => metrics.event_written(),
                    Err(error) if is_known => tracing::debug!(namespace, error = %brief(&error), "event not written"),
                    Err(error) => {
                        tracing::warn!(namespace, error = %brief(&error), "an event is not written; neither may others be");
                    }
                }
            };
            stream::poll_fn(move |context| waiting.poll_recv(context)).for_each_concurrent(WRITERS, write).await;
        });
        (Self { queue, instance }, task)
    }

    /// Tells what happened to an object.
    pub fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, happening: &Happening) {
        // The API server wants events of what has no namespace there.
        let namespace = object.meta().namespace.clone().unwrap_or_else(|| "default".to_owned());
        let good = happening.reason.class() == Class::Good;
        let event = Event {
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", object.meta().name.as_deref().unwrap_or("toolzz"))),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            note: Some(cut(&happening.note)),
            reason: Some(happening.reason.to_string()),
            regarding: Some(object.object_ref(&())),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if good { "Normal" } else { "Warning" }.to_owned()),
            ..Event::default()
        };
        if self.queue.try_send((namespace, event)).is_err() {
            tracing::warn!("too many events wait to be written; one was dropped");
        }
    }
}

fn cut(note: &str) -> String {
    let mut end = note.len().min(NOTE_BYTES);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}
