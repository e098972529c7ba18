//! Records when watches deliver Jobs and tests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::nodes::partial_metadata;

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Job")]
struct PartialJob {
    #[serde(deserialize_with = "partial_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "LoadTest")]
struct PartialTest {
    #[serde(deserialize_with = "partial_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

impl Status {
    /// Whether one of these conditions is true.
    fn has_any(&self, types: &[&str]) -> bool {
        self.conditions
            .iter()
            .any(|c| c.status == "True" && types.contains(&c.r#type.as_str()))
    }
}

#[derive(Default)]
struct Times {
    created: HashMap<String, Instant>,
    test: HashMap<String, Instant>,
    job: HashMap<String, Instant>,
    job_finished: HashMap<String, Instant>,
    finished: HashMap<String, Instant>,
    existing_jobs: HashSet<String>,
    last_status: HashMap<String, Status>,
    /// Writes of tests, by phase. Those that change only counts and durations are counted as refreshes.
    writes: BTreeMap<String, usize>,
    refreshes: usize,
}

/// The times at which watches of one namespace delivered objects. The watches end when this is dropped.
pub struct WatchRecorder {
    times: Arc<Mutex<Times>>,
    watches: [JoinHandle<()>; 2],
}

impl Drop for WatchRecorder {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

impl WatchRecorder {
    /// Starts the watches. Returns when they have delivered their first lists.
    pub async fn follow(client: &Client, namespace: &str) -> Self {
        let times: Arc<Mutex<Times>> = Arc::default();
        let (jobs, tests) = (times.clone(), times.clone());
        let watches = [
            watch::<PartialJob>(client, namespace, move |job, exists, at| {
                lock(&jobs).job(&job, exists, at);
            })
            .await,
            watch::<PartialTest>(client, namespace, move |test, exists, at| {
                lock(&tests).test(test, exists, at);
            })
            .await,
        ];
        Self { times, watches }
    }

    pub fn record_created(&self, name: &str) {
        lock(&self.times)
            .created
            .insert(name.into(), Instant::now());
    }

    pub fn jobs(&self) -> usize {
        lock(&self.times).job.len()
    }

    pub fn tests(&self) -> usize {
        lock(&self.times).test.len()
    }

    pub fn first_job(&self) -> Option<Instant> {
        lock(&self.times).job.values().min().copied()
    }

    pub fn all_jobs_are_deleted(&self) -> bool {
        lock(&self.times).existing_jobs.is_empty()
    }

    pub fn finished(&self) -> usize {
        lock(&self.times).finished.len()
    }

    pub fn refreshes(&self) -> usize {
        lock(&self.times).refreshes
    }

    pub fn writes(&self) -> BTreeMap<String, usize> {
        lock(&self.times).writes.clone()
    }

    pub fn create_to_test(&self) -> Vec<f64> {
        let times = lock(&self.times);
        between(&times.created, &times.test)
    }

    pub fn create_to_job(&self) -> Vec<f64> {
        let times = lock(&self.times);
        between(&times.created, &times.job)
    }

    pub fn create_to_finished(&self) -> Vec<f64> {
        let times = lock(&self.times);
        between(&times.created, &times.finished)
    }

    pub fn job_finished_to_finished(&self) -> Vec<f64> {
        let times = lock(&self.times);
        between(&times.job_finished, &times.finished)
    }
}

fn lock(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The seconds between two times, by name. 0 if two watches delivered in the wrong order.
fn between(from: &HashMap<String, Instant>, to: &HashMap<String, Instant>) -> Vec<f64> {
    to.iter()
        .filter_map(|(name, to)| {
            from.get(name)
                .map(|from| to.saturating_duration_since(*from).as_secs_f64())
        })
        .collect()
}

impl Times {
    fn job(&mut self, job: &PartialJob, exists: bool, at: Instant) {
        let name = job.name_any();
        if !exists {
            self.existing_jobs.remove(&name);
            return;
        }
        self.existing_jobs.insert(name.clone());
        if job.status.has_any(&["Complete", "Failed"]) {
            self.job_finished.entry(name.clone()).or_insert(at);
        }
        self.job.entry(name).or_insert(at);
    }

    fn test(&mut self, test: PartialTest, exists: bool, at: Instant) {
        if !exists {
            return;
        }
        let name = test.name_any();
        self.test.entry(name.clone()).or_insert(at);
        if test
            .status
            .has_any(&["Completed", "Complete", "Failed", "Succeeded"])
        {
            self.finished.entry(name.clone()).or_insert(at);
        }
        let status = test.status;
        match self.last_status.insert(name, status.clone()) {
            Some(last) if last == status && status != Status::default() => self.refreshes += 1,
            _ => {
                *self
                    .writes
                    .entry(status.phase.unwrap_or_else(|| "created".into()))
                    .or_default() += 1;
            }
        }
    }
}

async fn watch<K>(
    client: &Client,
    namespace: &str,
    mut record: impl FnMut(K, bool, Instant) + Send + 'static,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let mut events = watcher(
        Api::<K>::namespaced(client.clone(), namespace),
        Config::default(),
    )
    .default_backoff()
    .boxed();
    let (ready, is_ready) = oneshot::channel();
    let mut ready = Some(ready);
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let at = Instant::now();
            match event {
                Ok(Event::InitApply(object) | Event::Apply(object)) => record(object, true, at),
                Ok(Event::Delete(object)) => record(object, false, at),
                Ok(Event::Init) => {}
                Ok(Event::InitDone) => {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                }
                Err(error) => {
                    println!("a watch failed and restarts, so times may be wrong: {error}");
                }
            }
        }
    });
    is_ready.await.expect("the watch begins");
    task
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "CoreEvent")]
#[serde(rename_all = "camelCase")]
struct PartialEvent {
    #[serde(deserialize_with = "partial_metadata")]
    metadata: ObjectMeta,
    reason: Option<String>,
    count: Option<usize>,
    involved_object: InvolvedObject,
}

#[derive(Clone, Debug, Deserialize)]
struct InvolvedObject {
    kind: Option<String>,
    name: Option<String>,
}

/// The number of events of each reason, by test.
pub async fn events(client: &Client, namespace: &str) -> HashMap<String, BTreeMap<String, usize>> {
    let api: Api<PartialEvent> = Api::namespaced(client.clone(), namespace);
    let mut found: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
    let mut token = None;
    loop {
        let list = api
            .list(&crate::page(token))
            .await
            .expect("events can be listed");
        for event in list
            .items
            .into_iter()
            .filter(|e| e.involved_object.kind.as_deref() == Some("LoadTest"))
        {
            let reasons = found
                .entry(event.involved_object.name.unwrap_or_default())
                .or_default();
            *reasons.entry(event.reason.unwrap_or_default()).or_default() +=
                event.count.unwrap_or(1);
        }
        token = list.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            return found;
        }
    }
}
