//! What happens in a namespace, by watches that do not pass the proxy: every version of every object.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::judge::{Change, Seen};
use crate::view::View;

/// The watches of a namespace, and what they have told.
pub struct History {
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: watch::Sender<usize>,
    watches: Vec<JoinHandle<()>>,
}

fn kinds() -> [ApiResource; 4] {
    let resource = |group: &str, version: &str, kind: &str, plural: &str| ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() {
            version.into()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.into(),
        plural: plural.into(),
    };
    [
        resource("loadtest.artillery.io", "v1alpha1", "LoadTest", "loadtests"),
        resource("batch", "v1", "Job", "jobs"),
        resource("", "v1", "Pod", "pods"),
        resource("", "v1", "Event", "events"),
    ]
}

impl History {
    /// Watches a namespace, from now on.
    pub async fn follow(client: &Client, namespace: &str) -> Self {
        let (seen, changed) = (Arc::<Mutex<Vec<Seen>>>::default(), watch::Sender::new(0));
        let begun = Instant::now();
        let mut watches = Vec::new();
        for resource in kinds() {
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), namespace, &resource);
            let from = api
                .list(&ListParams::default())
                .await
                .expect("a namespace can be listed");
            let version = from.metadata.resource_version.unwrap_or_default();
            let note = note(resource.kind, begun, seen.clone(), changed.clone());
            watches.push(tokio::spawn(watch_on(api, version, note)));
        }
        Self {
            seen,
            changed,
            watches,
        }
    }

    /// All that was seen, in the order in which it happened.
    pub fn all(&self) -> Vec<Seen> {
        let mut all = self.seen.lock().unwrap().clone();
        all.sort_by_key(|s| s.version);
        all
    }

    pub fn view(&self) -> View {
        View::of(self.all())
    }

    /// Waits for something that is seen.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&View) -> Option<T>,
    ) -> Result<T, String> {
        let mut changes = self.changed.subscribe();
        let waited = tokio::time::timeout(limit, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = check(&self.view()) {
                    return found;
                }
                // The sender lives as long as `self`.
                changes.changed().await.unwrap();
            }
        });
        waited
            .await
            .map_err(|_| format!("waited {} s in vain for: {what}", limit.as_secs()))
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

fn note(
    kind: String,
    begun: Instant,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: watch::Sender<usize>,
) -> impl Fn(Change, DynamicObject) {
    move |change, mut object| {
        object.metadata.managed_fields = None;
        let version = object
            .metadata
            .resource_version
            .as_ref()
            .and_then(|v| v.parse().ok())
            .unwrap_or_default();
        let object = serde_json::to_value(object).unwrap();
        seen.lock().unwrap().push(Seen {
            at: begun.elapsed(),
            version,
            kind: kind.clone(),
            change,
            object,
        });
        changed.send_modify(|n| *n += 1);
    }
}

/// A watch that goes on from where it was when it ends: unlike a watcher with lists, it misses no version.
async fn watch_on(
    api: Api<DynamicObject>,
    mut version: String,
    note: impl Fn(Change, DynamicObject),
) {
    let params = WatchParams::default().timeout(280);
    loop {
        let Ok(events) = api.watch(&params, &version).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            let (change, object) = match event {
                WatchEvent::Added(object) => (Change::Added, object),
                WatchEvent::Modified(object) => (Change::Modified, object),
                WatchEvent::Deleted(object) => (Change::Deleted, object),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => panic!("the history is lost: {status:?}"),
            };
            version = object.metadata.resource_version.clone().unwrap_or_default();
            note(change, object);
        }
    }
}

/// The history as text, for whoever is to understand a violation.
pub fn tell(history: &[Seen]) -> String {
    let mut text = String::new();
    for seen in history {
        let told = match seen.kind.as_str() {
            "LoadTest" => seen.object["status"].to_string(),
            "Event" => format!(
                "{} {}: {}",
                seen.object["reason"],
                seen.object["involvedObject"]["name"],
                seen.object["message"]
            ),
            "Pod" => format!(
                "{} {}",
                seen.object["status"]["phase"], seen.object["metadata"]["deletionTimestamp"]
            ),
            _ => format!(
                "{} owners {}",
                seen.object["status"], seen.object["metadata"]["ownerReferences"]
            ),
        };
        let (at, version, uid) = (seen.at.as_secs_f64(), seen.version, seen.uid());
        writeln!(
            text,
            "  {at:7.3} {version} {:?} {} {} {uid} {told}",
            seen.change,
            seen.kind,
            seen.name()
        )
        .unwrap();
    }
    text
}
