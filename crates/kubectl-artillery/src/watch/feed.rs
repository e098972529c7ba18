//! The watches of a test, its pods and its events, as one stream of updates.

use std::collections::HashSet;
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, watcher};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::model::{Source, Update};
use crate::error::innermost;
use crate::session::Session;
use crate::view::{EventLine, Worker, event_selector, pod_selector};

/// How long the API server keeps a watch. A connection that died without a trace is noticed after this time.
const WATCH_SECONDS: u32 = 30;

/// The number of pods in one response. A pod with results has about 10 KB.
const PAGE_SIZE: u32 = 250;

/// A person waits: a lost connection is tried again soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// All updates of a test, until the stream is dropped.
pub(super) fn updates(session: &Session, name: &str) -> impl Stream<Item = Update> + use<> {
    let config = || {
        Config::default()
            .timeout(WATCH_SECONDS)
            .page_size(PAGE_SIZE)
    };
    let by_name = config().fields(&format!("metadata.name={name}"));
    let lost = Rc::new(Notify::new());
    let tests = objects(session, Source::Test, by_name, &lost, |test: LoadTest| {
        Update::Test(Box::new(test))
    });
    let pods = config().labels(&pod_selector(name));
    let pods = objects(session, Source::Workers, pods, &lost, |pod: Pod| {
        Update::Worker(Box::new(Worker::from_pod(&pod)))
    });
    let events = config().fields(&event_selector(name));
    let events = objects(session, Source::Events, events, &lost, |event: Event| {
        Update::Event(event.name_any(), EventLine::from_event(&event))
    });
    let recoveries = recoveries(session, name, lost);
    stream::select_all([
        tests.boxed_local(),
        pods.boxed_local(),
        events.boxed_local(),
        recoveries.boxed_local(),
    ])
}

/// Reports that the API server responds again after a watch was lost. A watch that is resumed yields nothing until an object changes.
fn recoveries(
    session: &Session,
    name: &str,
    lost: Rc<Notify>,
) -> impl Stream<Item = Update> + use<> {
    let sources = [Source::Test, Source::Workers, Source::Events];
    let state = (session.tests(), name.to_owned(), lost);
    let recovered = stream::unfold(state, |(tests, name, lost)| async move {
        lost.notified().await;
        loop {
            tokio::time::sleep(RETRY_INTERVAL).await;
            match tests.get_metadata_opt(&name).await {
                Ok(_) | Err(kube::Error::Api(_)) => return Some(((), (tests, name, lost))),
                Err(_) => {}
            }
        }
    });
    recovered
        .flat_map(move |()| stream::iter(sources.map(|source| Update::Connection(source, None))))
}

/// The updates of one watch.
fn objects<K, U>(
    session: &Session,
    source: Source,
    config: Config,
    lost: &Rc<Notify>,
    update: U,
) -> impl Stream<Item = Update> + use<K, U>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
    U: Fn(K) -> Update + 'static,
{
    let (session, lost) = (session.clone(), lost.clone());
    let mut known = Known::default();
    let watch = watcher(session.api::<K>(), config).backoff(EverySecond);
    watch
        .flat_map(move |event| {
            let updates = match event {
                Ok(event) => known.updates(source, event, &update),
                Err(error) => {
                    if is_lost(&error) {
                        lost.notify_one();
                    }
                    failure(&session, source, &error).into_iter().collect()
                }
            };
            stream::iter(updates)
        })
        .scan(false, |is_over, update| {
            let was_over = *is_over;
            *is_over = matches!(update, Update::Fatal(..));
            ready((!was_over).then_some(update))
        })
}

/// The objects of a watch, so that those that a new list lacks are known to be deleted.
#[derive(Default)]
struct Known {
    names: HashSet<String>,
    listed: HashSet<String>,
}

impl Known {
    fn updates<K: kube::Resource<DynamicType = ()>>(
        &mut self,
        source: Source,
        event: watcher::Event<K>,
        update: impl Fn(K) -> Update,
    ) -> Vec<Update> {
        match event {
            watcher::Event::Apply(object) => {
                self.names.insert(object.name_any());
                vec![Update::Connection(source, None), update(object)]
            }
            watcher::Event::Delete(object) => {
                self.names.remove(&object.name_any());
                gone(source, object.name_any()).into_iter().collect()
            }
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listed.insert(object.name_any());
                vec![update(object)]
            }
            watcher::Event::InitDone => {
                let names = std::mem::replace(&mut self.names, std::mem::take(&mut self.listed));
                let mut updates: Vec<_> = names
                    .difference(&self.names)
                    .filter_map(|name| gone(source, name.clone()))
                    .collect();
                if source == Source::Test && self.names.is_empty() {
                    updates.push(Update::NoTest);
                }
                updates.push(Update::Connection(source, None));
                updates
            }
        }
    }
}

fn gone(source: Source, name: String) -> Option<Update> {
    match source {
        Source::Test => Some(Update::NoTest),
        Source::Workers => Some(Update::NoWorker(name)),
        // Events expire after an hour, and are still worth reading.
        Source::Events => None,
    }
}

/// Whether the API server did not respond at all.
fn is_lost(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause)) = error else {
        return false;
    };
    !matches!(cause, kube::Error::Api(_))
}

/// A failure of a watch: what the user may not read will never be readable, everything else is tried again. A watch whose version is
/// too old is no failure, because a new list follows.
fn failure(session: &Session, source: Source, error: &watcher::Error) -> Option<Update> {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause)) = error else {
        let is_expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        return (!is_expired).then(|| Update::Connection(source, Some(error.to_string())));
    };
    let what = match source {
        Source::Test => "LoadTests",
        Source::Workers => "pods",
        Source::Events => "events",
    };
    let action = format!("watch {what} in namespace {}", session.namespace);
    Some(match cause {
        kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => {
            Update::Fatal(source, session.error(&action, cause))
        }
        kube::Error::Api(status) => Update::Connection(source, Some(status.message.clone())),
        _ => Update::Connection(source, Some(innermost(cause))),
    })
}

/// The same interval after every failure.
struct EverySecond;

impl Iterator for EverySecond {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(RETRY_INTERVAL)
    }
}

impl Backoff for EverySecond {
    fn reset(&mut self) {}
}
