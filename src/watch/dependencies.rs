//! Objects that tests wait for and do not own: a missing `ConfigMap`, a Job of others that has the test's name. One watch per
//! namespace and kind serves all tests that wait, and it exists only while tests wait.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use tokio::task::JoinHandle;

use crate::cache::{ObjectRef, shrink_if_sparse};
use crate::decide::Dependency;
use crate::runtime::client::WATCH_TIMEOUT;
use crate::runtime::lock;

/// The watches of dependencies, with the tests that wait.
#[derive(Clone)]
pub(crate) struct DependencyWatches {
    client: Client,
    triggers: UnboundedSender<ObjectRef>,
    waits: Arc<Mutex<Waits>>,
}

/// What a watch covers: a namespace, and whether its Jobs or its `ConfigMap`s.
type Scope = (String, Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ConfigMap,
    Job,
}

impl Kind {
    fn of(dependency: &Dependency) -> (Self, &[String]) {
        match dependency {
            Dependency::ConfigMaps(names) => (Self::ConfigMap, names),
            Dependency::Job(name) => (Self::Job, std::slice::from_ref(name)),
        }
    }
}

#[derive(Default)]
struct Waits {
    by_test: HashMap<ObjectRef, Dependency>,
    watches: HashMap<Scope, ScopeWatch>,
}

struct ScopeWatch {
    /// The tests that wait, by the name of what they wait for.
    waiting: HashMap<String, Waiting>,
    /// Whether the current objects have been listed.
    is_listed: bool,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    tests: HashSet<ObjectRef>,
    /// An object whose name only has another beginning or end, as kustomize gives it.
    similar: Option<String>,
}

impl DependencyWatches {
    /// No watches yet. Tests to reconcile are sent to `triggers`.
    #[must_use]
    pub(crate) fn new(client: Client, triggers: UnboundedSender<ObjectRef>) -> Self {
        Self {
            client,
            triggers,
            waits: Arc::default(),
        }
    }

    /// Lets a test wait for a dependency and for no other, or for none. No change is missed that happens after the last read: a
    /// watch triggers its tests when it has listed all objects, and a test that joins later is triggered at once.
    pub(crate) fn watch(&self, test: &ObjectRef, dependency: Option<Dependency>) {
        let waits = &mut *lock(&self.waits);
        if waits.by_test.get(test) == dependency.as_ref() {
            return;
        }
        waits.remove(test);
        let Some(dependency) = dependency else {
            return;
        };
        let (kind, names) = Kind::of(&dependency);
        let watch = waits
            .watches
            .entry((test.namespace.clone(), kind))
            .or_insert_with(|| ScopeWatch {
                waiting: HashMap::new(),
                is_listed: false,
                task: self.spawn(test.namespace.clone(), kind),
            });
        for name in names {
            let waiting = watch.waiting.entry(name.clone()).or_default();
            waiting.tests.insert(test.clone());
        }
        if watch.is_listed {
            self.trigger([test]);
        }
        waits.by_test.insert(test.clone(), dependency);
    }

    /// Stops the wait of a test.
    pub(crate) fn unwatch(&self, test: &ObjectRef) {
        self.watch(test, None);
    }

    /// The name of an object that may be the one that a test waits for, under the name that kustomize gave it.
    pub(crate) fn similar_name(&self, test: &ObjectRef) -> Option<String> {
        let waits = lock(&self.waits);
        let (kind, names) = Kind::of(waits.by_test.get(test)?);
        let watch = waits.watches.get(&(test.namespace.clone(), kind))?;
        watch.waiting.get(names.first()?)?.similar.clone()
    }

    fn spawn(&self, namespace: String, kind: Kind) -> JoinHandle<()> {
        let watches = self.clone();
        match kind {
            Kind::ConfigMap => tokio::spawn(watches.run::<ConfigMap>(namespace, kind)),
            Kind::Job => tokio::spawn(watches.run::<Job>(namespace, kind)),
        }
    }

    /// Triggers the tests that wait for an object whenever it appears, changes or disappears. Ends by being aborted.
    async fn run<K>(self, namespace: String, kind: Kind)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), &namespace);
        let config = Config::default().timeout(WATCH_TIMEOUT);
        let mut events = watcher(api, config).default_backoff().boxed();
        let scope = (namespace, kind);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let (namespace, kind) = &scope;
                    tracing::warn!(namespace, ?kind, %error, "watch of dependencies failed, restarting");
                    continue;
                }
            };
            let mut waits = lock(&self.waits);
            if let Some(watch) = waits.watches.get_mut(&scope) {
                self.trigger(watch.apply(&event));
            }
        }
    }

    fn trigger<'a>(&self, tests: impl IntoIterator<Item = &'a ObjectRef>) {
        for test in tests {
            // Fails only when the controller has ended, and the process is about to.
            let _ = self.triggers.unbounded_send(test.clone());
        }
    }
}

impl Waits {
    /// Ends the wait of a test, and the watch that it was the last to need.
    fn remove(&mut self, test: &ObjectRef) {
        let Some(dependency) = self.by_test.remove(test) else {
            return;
        };
        shrink_if_sparse(&mut self.by_test);
        let (kind, names) = Kind::of(&dependency);
        let scope = (test.namespace.clone(), kind);
        let Some(watch) = self.watches.get_mut(&scope) else {
            return;
        };
        for name in names {
            let Some(waiting) = watch.waiting.get_mut(name) else {
                continue;
            };
            waiting.tests.remove(test);
            if waiting.tests.is_empty() {
                watch.waiting.remove(name);
                shrink_if_sparse(&mut watch.waiting);
            }
        }
        if watch.waiting.is_empty() {
            watch.task.abort();
            self.watches.remove(&scope);
        }
    }
}

impl ScopeWatch {
    /// Applies an event. Returns the tests to reconcile.
    ///
    /// At the end of a list these are all: an object may have disappeared between the read that saw it and the list.
    fn apply<K: ResourceExt>(&mut self, event: &Event<K>) -> Vec<&ObjectRef> {
        match event {
            Event::Init => Vec::new(),
            Event::InitApply(object) => {
                self.compare_names(&object.name_any());
                Vec::new()
            }
            Event::InitDone => {
                self.is_listed = true;
                self.waiting.values().flat_map(|w| &w.tests).collect()
            }
            Event::Apply(object) => {
                let name = object.name_any();
                let resembles = self.compare_names(&name);
                [Some(name), resembles]
                    .into_iter()
                    .flatten()
                    .filter_map(|name| self.waiting.get(&name))
                    .flat_map(|w| &w.tests)
                    .collect()
            }
            Event::Delete(object) => {
                let waiting = self.waiting.get(&object.name_any());
                waiting.into_iter().flat_map(|w| &w.tests).collect()
            }
        }
    }

    /// Records an object whose name resembles one that a test waits for. Returns that name.
    fn compare_names(&mut self, name: &str) -> Option<String> {
        let waited = names_before_kustomize(name).find(|one| self.waiting.contains_key(*one))?;
        self.waiting.get_mut(waited)?.similar = Some(name.to_owned());
        Some(waited.to_owned())
    }
}

/// The names that an object may have had before kustomize added a prefix, a suffix, or both.
fn names_before_kustomize(name: &str) -> impl Iterator<Item = &str> {
    let ends = |part| {
        let shorter = str::rsplit_once(part, '-').map(|(begin, _)| begin);
        [Some(part), shorter].into_iter().flatten()
    };
    let parts = name.match_indices('-').map(|(at, _)| &name[at + 1..]);
    let parts = std::iter::once(name).chain(parts);
    parts
        .flat_map(ends)
        .filter(move |part| *part != name && !part.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cache::object_ref;
    use crate::fixtures::load_test;

    fn config_map(name: &str) -> ConfigMap {
        let mut config_map = ConfigMap::default();
        config_map.metadata.name = Some(name.to_owned());
        config_map
    }

    fn waiting_for(name: &str) -> ScopeWatch {
        let test = object_ref(&load_test().build().metadata);
        let waiting = Waiting {
            tests: [test].into(),
            similar: None,
        };
        ScopeWatch {
            waiting: [(name.to_owned(), waiting)].into(),
            is_listed: false,
            task: tokio::spawn(async {}),
        }
    }

    #[tokio::test]
    async fn a_watch_that_starts_after_the_object_disappeared_triggers_once() {
        let mut watch = waiting_for("a");
        let events = [
            Event::Init,
            Event::InitApply(config_map("a")),
            Event::InitDone,
        ];
        let triggers: usize = events.iter().map(|e| watch.apply(e).len()).sum();
        assert_eq!(triggers, 1, "once for the list, not for each object");
        assert_eq!(
            waiting_for("a").apply::<ConfigMap>(&Event::InitDone).len(),
            1
        );
    }

    #[tokio::test]
    async fn only_the_object_of_a_test_triggers_it() {
        let mut watch = waiting_for("a");
        assert_eq!(watch.apply(&Event::Apply(config_map("b"))).len(), 0);
        assert_eq!(watch.apply(&Event::Delete(config_map("b"))).len(), 0);
        assert_eq!(watch.apply(&Event::Apply(config_map("a"))).len(), 1);
        assert_eq!(watch.apply(&Event::Delete(config_map("a"))).len(), 1);
    }

    #[tokio::test]
    async fn an_object_that_kustomize_renamed_is_noticed() {
        for name in [
            "script-6m2kd9b4t7",
            "dev-script",
            "team-a-script-6m2kd9b4t7",
            "script-v2",
        ] {
            let mut watch = waiting_for("script");
            assert_eq!(
                watch.apply(&Event::Apply(config_map(name))).len(),
                1,
                "{name}"
            );
            assert_eq!(watch.waiting["script"].similar.as_deref(), Some(name));
        }
        let mut watch = waiting_for("script");
        for name in ["script", "scripts", "myscript", "-", "a--b"] {
            watch.compare_names(name);
        }
        assert_eq!(watch.waiting["script"].similar, None);
    }
}
