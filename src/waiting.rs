//! Tests that wait for an object that is not theirs: a `ConfigMap` that is missing, a foreign Job that has their name.
//! Such an object is watched by its name, and only while a test waits for it.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource};
use tokio::task::JoinHandle;

use crate::decide::WaitFor;
use crate::index::Key;

/// The tests that wait, by what they wait for.
#[derive(Clone)]
pub struct Waiting {
    client: Client,
    wake: UnboundedSender<Key>,
    watched: Arc<Mutex<HashMap<Object, Waiters>>>,
}

/// An object that is waited for, with its namespace.
type Object = (String, WaitFor);

struct Waiters {
    tests: HashSet<Key>,
    watch: JoinHandle<()>,
}

impl Waiting {
    /// Nobody waits yet. The second is where the tests come out that are to be looked at again.
    #[must_use]
    pub fn new(client: Client) -> (Self, UnboundedReceiver<Key>) {
        let (wake, woken) = unbounded();
        (
            Self {
                client,
                wake,
                watched: Arc::default(),
            },
            woken,
        )
    }

    /// Lets a test wait for an object, and for nothing else. The watch of the object begins with the object as it is
    /// then, so one that came since the look that missed it is not missed again.
    pub fn start(&self, test: &Key, what: WaitFor) {
        let object = (test.0.clone(), what);
        let mut watched = self.watched();
        leave(&mut watched, test, Some(&object));
        watched
            .entry(object.clone())
            .or_insert_with(|| Waiters {
                tests: HashSet::new(),
                watch: self.watch(object),
            })
            .tests
            .insert(test.clone());
    }

    /// Lets a test wait no more.
    pub fn stop(&self, test: &Key) {
        leave(&mut self.watched(), test, None);
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Object, Waiters>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, object: Object) -> JoinHandle<()> {
        match &object.1 {
            WaitFor::ConfigMap(name) => {
                let name = name.clone();
                tokio::spawn(self.clone().wake_on_events::<ConfigMap>(object, name))
            }
            WaitFor::Job(name) => {
                let name = name.clone();
                tokio::spawn(self.clone().wake_on_events::<Job>(object, name))
            }
        }
    }

    /// Wakes the tests that wait for an object whenever it comes, changes or goes. Ends by being aborted.
    async fn wake_on_events<K>(self, object: Object, name: String)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), &object.0);
        let by_name = Config::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(crate::controller::WATCH_SECONDS);
        let mut events = watcher(api, by_name).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if !is_news(&event) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(namespace = object.0, what = ?object.1, %error, "cannot watch what a test waits for");
                    continue;
                }
            }
            for test in self.watched().get(&object).iter().flat_map(|w| &w.tests) {
                // It fails only when the controller has ended, and with it this process.
                let _ = self.wake.unbounded_send(test.clone());
            }
        }
    }
}

/// Whether a watch's event is a reason to look again. The end of its first list is one, also where the list is empty:
/// what is waited for may have gone between the look that saw it and the begin of the watch.
fn is_news<K>(event: &Event<K>) -> bool {
    matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_))
}

/// Takes a test from the waiters of all objects but one, and ends the watches that nobody needs any more.
fn leave(watched: &mut HashMap<Object, Waiters>, test: &Key, but: Option<&Object>) {
    watched.retain(|object, waiters| {
        if Some(object) != but {
            waiters.tests.remove(test);
        }
        let needed = !waiters.tests.is_empty();
        if !needed {
            waiters.watch.abort();
        }
        needed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_begins_after_the_object_has_gone_is_news() {
        let empty_list: [Event<()>; 2] = [Event::Init, Event::InitDone];
        assert!(empty_list.iter().any(is_news));
        let one_in_list = [Event::Init, Event::InitApply(()), Event::InitDone];
        assert_eq!(
            one_in_list.iter().filter(|e| is_news(e)).count(),
            1,
            "looked at once, not for each object"
        );
    }
}
