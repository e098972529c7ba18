//! Objects that tests wait for and do not own: a missing `ConfigMap`, a Job of others that has the test's name. Each is watched
//! by its name, and only while a test waits for it.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

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

use crate::cache::ObjectRef;
use crate::decide::Dependency;
use crate::runtime::client::WATCH_TIMEOUT;
use crate::runtime::lock;

/// The watches of dependencies, with the tests that wait.
#[derive(Clone)]
pub(crate) struct DependencyWatches {
    client: Client,
    triggers: UnboundedSender<ObjectRef>,
    watches: Arc<Mutex<HashMap<Object, WatchEntry>>>,
}

/// A dependency in its namespace.
type Object = (String, Dependency);

struct WatchEntry {
    tests: HashSet<ObjectRef>,
    task: JoinHandle<()>,
}

impl DependencyWatches {
    /// No watches yet, and the stream of tests to reconcile.
    #[must_use]
    pub(crate) fn new(client: Client) -> (Self, UnboundedReceiver<ObjectRef>) {
        let (triggers, triggered) = unbounded();
        let watches = Self {
            client,
            triggers,
            watches: Arc::default(),
        };
        (watches, triggered)
    }

    /// Lets a test wait for a dependency and for no other, or for none. The watch begins with the current state of the object, so
    /// a change between the last read and the watch is not missed.
    pub(crate) fn watch(&self, test: &ObjectRef, dependency: Option<Dependency>) {
        let object = dependency.map(|dependency| (test.namespace.clone(), dependency));
        let mut watches = lock(&self.watches);
        unwatch_except(&mut watches, test, object.as_ref());
        let Some(object) = object else {
            return;
        };
        watches
            .entry(object.clone())
            .or_insert_with(|| WatchEntry {
                tests: HashSet::new(),
                task: self.spawn(object),
            })
            .tests
            .insert(test.clone());
    }

    /// Stops the wait of a test.
    pub(crate) fn unwatch(&self, test: &ObjectRef) {
        self.watch(test, None);
    }

    fn spawn(&self, object: Object) -> JoinHandle<()> {
        match &object.1 {
            Dependency::ConfigMap(name) => {
                let name = name.clone();
                tokio::spawn(self.clone().trigger_on_events::<ConfigMap>(object, name))
            }
            Dependency::Job(name) => {
                let name = name.clone();
                tokio::spawn(self.clone().trigger_on_events::<Job>(object, name))
            }
        }
    }

    /// Triggers the tests that wait for an object whenever it appears, changes or disappears. Ends by being aborted.
    async fn trigger_on_events<K>(self, object: Object, name: String)
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
            .timeout(WATCH_TIMEOUT);
        let mut events = watcher(api, by_name).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if !is_trigger(&event) => continue,
                Ok(_) => {}
                Err(error) => {
                    let (namespace, dependency) = &object;
                    tracing::warn!(namespace, ?dependency, %error, "watch of a dependency failed, restarting");
                    continue;
                }
            }
            let watches = lock(&self.watches);
            for test in watches.get(&object).iter().flat_map(|entry| &entry.tests) {
                // Fails only when the controller has ended, and the process is about to.
                let _ = self.triggers.unbounded_send(test.clone());
            }
        }
    }
}

/// Whether an event is a reason to reconcile. The end of the first list is one even if the list is empty: the object may have
/// disappeared between the read that saw it and the start of the watch.
fn is_trigger<K>(event: &Event<K>) -> bool {
    matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_))
}

/// Removes a test from all dependencies but one, and ends watches without tests.
fn unwatch_except(
    watches: &mut HashMap<Object, WatchEntry>,
    test: &ObjectRef,
    except: Option<&Object>,
) {
    watches.retain(|object, entry| {
        if Some(object) != except {
            entry.tests.remove(test);
        }
        let is_needed = !entry.tests.is_empty();
        if !is_needed {
            entry.task.abort();
        }
        is_needed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_starts_after_the_object_disappeared_triggers_once() {
        let empty_list: [Event<()>; 2] = [Event::Init, Event::InitDone];
        assert!(empty_list.iter().any(is_trigger));
        let one_in_list = [Event::Init, Event::InitApply(()), Event::InitDone];
        let triggers = one_in_list.iter().filter(|e| is_trigger(e)).count();
        assert_eq!(triggers, 1, "once for the list, not for each object");
    }
}
