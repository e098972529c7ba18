//! Every version of every object of a namespace, recorded by watches that bypass the proxy.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::invariants::{Change, ObjectVersion};
use crate::view::View;

/// The watches of a namespace, and what they have recorded.
pub struct History {
    begun: (Instant, Timestamp),
    versions: Arc<Mutex<Vec<ObjectVersion>>>,
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
    /// Starts to watch a namespace.
    pub async fn follow(client: &Client, namespace: &str) -> Self {
        let (versions, changed) = (
            Arc::<Mutex<Vec<ObjectVersion>>>::default(),
            watch::Sender::new(0),
        );
        let begun @ (at, _) = (Instant::now(), Timestamp::now());
        let mut watches = Vec::new();
        for resource in kinds() {
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), namespace, &resource);
            let from = api
                .list(&ListParams::default())
                .await
                .expect("a namespace can be listed");
            let version = from.metadata.resource_version.unwrap_or_default();
            let record = record(resource.kind, at, versions.clone(), changed.clone());
            watches.push(tokio::spawn(watch_on(api, version, record)));
        }
        Self {
            begun,
            versions,
            changed,
            watches,
        }
    }

    /// The time of a version that is delivered now.
    pub fn now(&self) -> Duration {
        self.begun.0.elapsed()
    }

    /// The same for another instant.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.begun.0)
    }

    /// The lines of a log that begin with their time, and when they were written.
    pub fn lines<'l>(&self, log: &'l str) -> Vec<(Duration, &'l str)> {
        let with_time = |line: &'l str| {
            let time: Timestamp = line.split(' ').next()?.parse().ok()?;
            let at = Duration::try_from(time.duration_since(self.begun.1));
            Some((at.unwrap_or_default(), line))
        };
        log.lines().filter_map(with_time).collect()
    }

    /// All versions, ordered by revision.
    pub fn all(&self) -> Vec<ObjectVersion> {
        let mut all = self.versions.lock().unwrap().clone();
        all.sort_by_key(|v| v.revision);
        all
    }

    pub fn view(&self) -> View {
        View::of(self.all())
    }

    /// Waits until `check` returns something for the current objects.
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

fn record(
    kind: String,
    begun: Instant,
    versions: Arc<Mutex<Vec<ObjectVersion>>>,
    changed: watch::Sender<usize>,
) -> impl Fn(Change, DynamicObject) {
    move |change, mut object| {
        object.metadata.managed_fields = None;
        let revision = object
            .metadata
            .resource_version
            .as_ref()
            .and_then(|v| v.parse().ok())
            .unwrap_or_default();
        let object = serde_json::to_value(object).unwrap();
        versions.lock().unwrap().push(ObjectVersion {
            at: begun.elapsed(),
            revision,
            kind: kind.clone(),
            change,
            object,
        });
        changed.send_modify(|n| *n += 1);
    }
}

/// Watches without lists: a watch that ends is continued from its last resource version, so no version is missed.
async fn watch_on(
    api: Api<DynamicObject>,
    mut version: String,
    record: impl Fn(Change, DynamicObject),
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
            record(change, object);
        }
    }
}

/// The history as text.
pub fn format(history: &[ObjectVersion]) -> String {
    let mut text = String::new();
    for version in history {
        let summary = match version.kind.as_str() {
            "LoadTest" => version.object["status"].to_string(),
            "Event" => format!(
                "{} {}: {}",
                version.object["reason"],
                version.object["involvedObject"]["name"],
                version.object["message"]
            ),
            "Pod" => format!(
                "{} {}",
                version.object["status"]["phase"], version.object["metadata"]["deletionTimestamp"]
            ),
            _ => format!(
                "{} owners {}",
                version.object["status"], version.object["metadata"]["ownerReferences"]
            ),
        };
        let (at, revision, uid) = (version.at.as_secs_f64(), version.revision, version.uid());
        writeln!(
            text,
            "  {at:7.3} {revision} {:?} {} {} {uid} {summary}",
            version.change,
            version.kind,
            version.name()
        )
        .unwrap();
    }
    text
}
