//! What is known of a test: the LoadTest itself, its workers and its events.

use std::sync::Arc;

use futures::future::join;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use loadtest_api::labels::{COMPONENT_LABEL, TEST_NAME_LABEL, WORKER_COMPONENT};
use loadtest_api::v1alpha1::LoadTest;
use loadtest_results::{Measurements, Snapshot, log_tail};

use crate::error::Result;
use crate::session::Session;

/// A test with everything that could be read of it.
#[derive(Clone, Debug)]
pub struct View {
    /// The test.
    pub test: LoadTest,
    /// Its workers whose pods exist, by their index.
    pub workers: Vec<Worker>,
    /// Its events, the oldest first.
    pub events: Vec<EventLine>,
    /// The text of its script, if it is inline or in a ConfigMap.
    pub script: Option<String>,
    /// What could not be read, in sentences.
    pub missing: Vec<String>,
}

/// A worker, as its pod shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its index, from 0.
    pub index: Option<u32>,
    /// The name of its pod.
    pub pod: String,
    /// The node of its pod.
    pub node: Option<String>,
    /// Its state in one word: Pending, Running, Succeeded, or why it failed or does not start.
    pub state: String,
    /// Whether it failed, or cannot start.
    pub is_problem: bool,
    /// The message that belongs to its state.
    pub detail: Option<String>,
    /// When its container started.
    pub started: Option<Timestamp>,
    /// When its container ended.
    pub ended: Option<Timestamp>,
    /// What it measured, once it has ended.
    pub measured: Option<Arc<Measurements>>,
}

/// An event of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLine {
    /// When it was last recorded.
    pub time: Option<Timestamp>,
    /// Whether it is a warning.
    pub is_warning: bool,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl View {
    /// Reads everything of a test. What the user may not read, or no longer exists, is listed in `missing`.
    ///
    /// # Errors
    /// The test itself cannot be read.
    pub async fn read(session: &Session, name: &str) -> Result<Self> {
        let test = session.test(name).await?;
        let mut missing = Vec::new();
        let (workers, events) = join(read_workers(session, name), read_events(session, name)).await;
        let workers = workers.unwrap_or_else(|error| {
            missing.push(error.to_string());
            Vec::new()
        });
        let events = events.unwrap_or_else(|error| {
            missing.push(error.to_string());
            Vec::new()
        });
        let mut view = Self {
            script: test.spec.test_script.inline.clone(),
            test,
            workers,
            events,
            missing,
        };
        view.read_script(session).await;
        Ok(view)
    }

    async fn read_script(&mut self, session: &Session) {
        let script = &self.test.spec.test_script;
        let Some(name) = script.config_map() else {
            return;
        };
        match session.api::<ConfigMap>().get(name).await {
            Ok(config_map) => {
                self.script = config_map
                    .data
                    .and_then(|mut data| data.remove(script.file()));
            }
            Err(error) => {
                let action = format!("read ConfigMap {}/{name}", session.namespace);
                self.missing
                    .push(session.error(&action, &error).to_string());
            }
        }
    }

    /// What all workers measured whose pods exist, and how many these are.
    #[must_use]
    pub fn measured(&self) -> Option<(Measurements, usize)> {
        let mut merged: Option<Measurements> = None;
        let mut workers = 0;
        for measured in self.workers.iter().filter_map(|one| one.measured.as_ref()) {
            workers += 1;
            match &mut merged {
                Some(merged) => merged.merge(measured),
                None => merged = Some(measured.as_ref().clone()),
            }
        }
        merged.map(|merged| (merged, workers))
    }
}

/// The workers of a test whose pods exist, by their index.
///
/// # Errors
/// The user may not list pods.
pub async fn read_workers(session: &Session, name: &str) -> Result<Vec<Worker>> {
    let selector = ListParams::default().labels(&pod_selector(name));
    let pods = session.api::<Pod>().list(&selector).await;
    let action = format!("list pods in namespace {}", session.namespace);
    let pods = pods.map_err(|error| session.error(&action, &error))?;
    let mut workers: Vec<_> = pods.iter().map(Worker::from_pod).collect();
    workers.sort_by_key(|worker| (worker.index, worker.started));
    Ok(workers)
}

/// The events of a test, the oldest first.
async fn read_events(session: &Session, name: &str) -> Result<Vec<EventLine>> {
    let selector = ListParams::default().fields(&event_selector(name));
    let events = session.api::<Event>().list(&selector).await;
    let action = format!("list events in namespace {}", session.namespace);
    let events = events.map_err(|error| session.error(&action, &error))?;
    let mut events: Vec<_> = events.iter().map(EventLine::from_event).collect();
    events.sort_by_key(|event| event.time);
    Ok(events)
}

/// The label selector of a test's pods.
#[must_use]
pub fn pod_selector(name: &str) -> String {
    format!("{TEST_NAME_LABEL}={name},{COMPONENT_LABEL}={WORKER_COMPONENT}")
}

/// The field selector of a test's events.
#[must_use]
pub fn event_selector(name: &str) -> String {
    format!("involvedObject.kind=LoadTest,involvedObject.name={name}")
}

impl Worker {
    /// Reads a worker from its pod.
    #[must_use]
    pub fn from_pod(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let index = pod
            .annotations()
            .get("batch.kubernetes.io/job-completion-index")
            .and_then(|index| index.parse().ok());
        let mut worker = Self {
            index,
            pod: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            state: status
                .and_then(|status| status.phase.clone())
                .unwrap_or_else(|| "Pending".into()),
            is_problem: false,
            detail: status.and_then(|status| status.message.clone()),
            started: None,
            ended: None,
            measured: None,
        };
        if let Some(reason) = status.and_then(|status| status.reason.as_ref()) {
            (worker.state, worker.is_problem) = (reason.clone(), true);
        }
        let unscheduled = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|all| {
                all.iter()
                    .find(|one| one.type_ == "PodScheduled" && one.status == "False")
            });
        if let Some(unscheduled) = unscheduled {
            worker.state = unscheduled
                .reason
                .clone()
                .unwrap_or_else(|| "Unschedulable".into());
            worker.is_problem = true;
            worker.detail.clone_from(&unscheduled.message);
        }
        // The container has the name of the test; others belong to a service mesh.
        let test = pod.labels().get(TEST_NAME_LABEL);
        let container = status
            .and_then(|status| status.container_statuses.as_ref())
            .and_then(|all| all.iter().find(|one| Some(&one.name) == test));
        let Some(state) = container.and_then(|container| container.state.as_ref()) else {
            return worker;
        };
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.clone().unwrap_or_default();
            if !matches!(
                reason.as_str(),
                "" | "ContainerCreating" | "PodInitializing"
            ) {
                worker.is_problem = true;
                worker.state = reason;
                worker.detail.clone_from(&waiting.message);
            }
        }
        if let Some(running) = &state.running {
            worker.started = running.started_at.as_ref().map(|time| time.0);
        }
        if let Some(ended) = &state.terminated {
            worker.started = ended.started_at.as_ref().map(|time| time.0);
            worker.ended = ended.finished_at.as_ref().map(|time| time.0);
            let message = ended.message.as_deref().unwrap_or_default();
            worker.measured = Snapshot::from_message(message)
                .and_then(|snapshot| snapshot.decode().ok())
                .map(Arc::new);
            if ended.exit_code != 0 {
                worker.is_problem = true;
                worker.state = ended.reason.clone().unwrap_or_else(|| "Error".into());
                let log = log_tail(message);
                worker.detail = log
                    .lines()
                    .rfind(|line| !line.trim().is_empty())
                    .map(|line| line.trim().to_owned())
                    .or(Some(format!("exit code {}", ended.exit_code)));
            }
        }
        worker
    }
}

impl EventLine {
    /// Reads an event.
    #[must_use]
    pub fn from_event(event: &Event) -> Self {
        let time = event.last_timestamp.as_ref().map(|time| time.0);
        let time = time.or(event.event_time.as_ref().map(|time| time.0));
        Self {
            time: time.or(event
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)),
            is_warning: event.type_.as_deref() == Some("Warning"),
            reason: event.reason.clone().unwrap_or_default(),
            message: event.message.clone().unwrap_or_default(),
        }
    }
}
