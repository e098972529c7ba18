//! Where a test stands: pure. Turns the pods and the Job that the API server shows into [`Worker`]s and a [`TestJob`],
//! which hold only what decisions need.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::api::v1alpha1::Reason;
use crate::results::{self, Packed};
use crate::worker::{START_ANNOTATION, times_told};

mod job;
mod test;

pub use job::{Outcome, TestJob, WorkerJob, WorkerJobSpec};
pub use test::{Unreadable, WatchedTest};

/// A worker's pod, as far as it is read. Unknown and unused fields are skipped while parsing, so that a pod costs
/// little and a new field cannot break the watch.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub struct WorkerPod {
    /// The pod's metadata.
    #[serde(default, deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    #[serde(default)]
    conditions: Vec<PodCondition>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodCondition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerStatus {
    name: String,
    #[serde(default)]
    started: Option<bool>,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<Running>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    reason: Option<String>,
    message: Option<String>,
    started_at: Option<Time>,
    finished_at: Option<Time>,
}

/// What a worker's probes say of it (see `worker::probes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Not yet that it could begin its load.
    Loads,
    /// That it could begin.
    CouldBegin,
    /// That it knows when to begin.
    KnowsStart,
}

/// One worker, as its pod shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The worker's number, from 0.
    pub index: Option<u32>,
    /// The node that it is on, once it has one.
    pub node: Option<String>,
    /// Whether its container has run, however it ended.
    pub started: bool,
    /// When its container began to run, while it runs.
    pub running_since: Option<Timestamp>,
    /// When its container ended, if it has run.
    pub ended: Option<Timestamp>,
    /// How far it says that it is, where workers begin together.
    pub readiness: Readiness,
    /// When it was told to begin its load.
    pub start_at: Option<Timestamp>,
    /// How often it was told.
    pub told: u8,
    /// When it was told first, if by this process.
    pub told_at: Option<Timestamp>,
    /// When it is to have said that it knows. None until the watch shows that it was told: one that is behind says nothing of
    /// what the worker makes of it.
    pub answer_due: Option<Timestamp>,
    /// What it has measured, as its container left it.
    pub snapshot: Option<Arc<Packed>>,
    /// Whether its pod goes on though its container has ended, as other containers do.
    pub lingers: bool,
    /// Its deletion, if its pod was deleted.
    pub deleted: Option<Box<Deletion>>,
    /// Where it stands.
    pub state: WorkerState,
}

/// The deletion of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// When the pod was to be gone at the latest, by the grace that it was given.
    pub due: Timestamp,
    /// The pod's version when its deletion was first seen. The lower came first.
    pub version: u64,
    /// Whether the pod is gone from the cluster.
    pub gone: bool,
}

/// What keeps a worker from running.
#[derive(Clone, Debug, PartialEq)]
pub struct Obstacle {
    /// Its kind.
    pub reason: Reason,
    /// What the kubelet, the scheduler or the Job controller says of it.
    pub message: String,
}

/// Where a worker stands.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerState {
    /// It does not run yet; where that is more than the usual wait, why.
    Pending {
        /// What keeps it from running.
        obstacle: Option<Obstacle>,
    },
    /// Its container runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It failed by itself.
    Failed {
        /// The exit code of its container, where that ran.
        exit_code: Option<i32>,
        /// `Error`, `OOMKilled`, `Evicted`, ...
        reason: String,
        /// The last thing it said.
        message: Option<String>,
    },
    /// It was stopped from outside, as the Job's other workers are when one has failed.
    Aborted,
}

/// A kubelet has brought to a worker what it was told, and says what the worker makes of it, within this time.
const ANSWER: SignedDuration = SignedDuration::from_millis(1250);

/// Reasons of a waiting container that say no more than that it is about to start.
const USUAL_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

impl Worker {
    /// Reads a worker from its pod. `container` is the name of the worker's container: other containers of the pod, such
    /// as a service mesh's, say nothing about the worker.
    #[must_use]
    pub fn from_pod(pod: &WorkerPod, container: &str) -> Self {
        let meta = &pod.metadata;
        let status = pod
            .status
            .container_statuses
            .iter()
            .find(|c| c.name == container);
        let state = status.map(|c| &c.state);
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|a| a.get(name));
        let terminated = state.and_then(|s| s.terminated.as_ref());
        // A container that could not be started at all is terminated too, with a start time of 0 or none.
        let ran = terminated.is_some_and(|t| {
            t.started_at
                .as_ref()
                .is_some_and(|t| t.0 > Timestamp::UNIX_EPOCH)
        });
        let running = state.and_then(|s| s.running.as_ref());
        let version = || {
            meta.resource_version
                .as_ref()
                .and_then(|v| v.parse().ok())
                .unwrap_or_default()
        };
        Self {
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            index: annotation("batch.kubernetes.io/job-completion-index")
                .and_then(|i| i.parse().ok()),
            node: pod.spec.node_name.clone(),
            started: ran || running.is_some(),
            running_since: running.and_then(|r| r.started_at.as_ref()).map(|t| t.0),
            ended: terminated
                .filter(|_| ran)
                .and_then(|t| t.finished_at.as_ref())
                .map(|t| t.0),
            readiness: status.map_or(Readiness::Loads, |s| match (s.ready, s.started) {
                (true, _) => Readiness::KnowsStart,
                (false, Some(true)) => Readiness::CouldBegin,
                (false, _) => Readiness::Loads,
            }),
            start_at: annotation(START_ANNOTATION).and_then(|at| at.parse().ok()),
            told: annotation(START_ANNOTATION)
                .map(|at| times_told(at))
                .unwrap_or_default(),
            told_at: None,
            answer_due: None,
            snapshot: terminated
                .and_then(|t| t.message.as_deref())
                .and_then(Packed::of)
                .map(Arc::new),
            lingers: ran && matches!(pod.status.phase.as_deref(), Some("Pending" | "Running")),
            deleted: meta.deletion_timestamp.as_ref().map(|t| {
                Box::new(Deletion {
                    due: t.0,
                    version: version(),
                    gone: false,
                })
            }),
            state: worker_state(pod, state, terminated),
        }
    }

    /// Whether it has ended, however.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.state,
            WorkerState::Succeeded | WorkerState::Failed { .. }
        ) || self.ended.is_some()
            || self.deleted.as_ref().is_some_and(|d| d.gone)
    }

    /// The same worker as a later look shows it, with what only the earlier look could know.
    #[must_use]
    pub fn seen_after(mut self, earlier: Option<&Self>, now: Timestamp) -> Self {
        let earlier = earlier.filter(|earlier| self.uid == earlier.uid);
        // The way there is as long as the way back.
        let news = earlier
            .and_then(|e| e.told_at)
            .map(|at| now.duration_since(at))
            .unwrap_or_default();
        let due = now
            .checked_add(ANSWER.max(news.saturating_mul(2)))
            .ok()
            .filter(|_| self.told > 0);
        self.answer_due = earlier.and_then(|e| e.answer_due).or(due);
        if let Some(earlier) = earlier {
            if let (Some(deleted), Some(earlier)) = (&mut self.deleted, &earlier.deleted) {
                deleted.version = earlier.version;
            }
            self.started |= earlier.started;
            self.readiness = self.readiness.max(earlier.readiness);
            (self.start_at, self.told) = (
                earlier.start_at.or(self.start_at),
                self.told.max(earlier.told),
            );
            self.told_at = earlier.told_at;
            self.snapshot = self.snapshot.or_else(|| earlier.snapshot.clone());
        }
        self
    }

    /// The worker whose pod is gone from the cluster.
    #[must_use]
    pub fn gone(mut self, version: u64, now: Timestamp) -> Self {
        match &mut self.deleted {
            Some(deleted) => deleted.gone = true,
            None => {
                self.deleted = Some(Box::new(Deletion {
                    due: now,
                    version,
                    gone: true,
                }))
            }
        }
        if !matches!(
            self.state,
            WorkerState::Succeeded | WorkerState::Failed { .. }
        ) {
            self.state = WorkerState::Aborted;
        }
        self.running_since = None;
        self.lingers = false;
        self
    }
}

fn worker_state(
    pod: &WorkerPod,
    state: Option<&ContainerState>,
    terminated: Option<&Terminated>,
) -> WorkerState {
    let status = &pod.status;
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let disrupted = status
        .conditions
        .iter()
        .find(|c| c.r#type == "DisruptionTarget" && c.status == "True");
    if let (Some(disruption), true) = (disrupted, terminated.is_none_or(|t| t.exit_code != 0)) {
        return WorkerState::Failed {
            exit_code: terminated.map(|t| t.exit_code),
            reason: disruption
                .reason
                .clone()
                .or_else(|| status.reason.clone())
                .unwrap_or_else(|| "DisruptionTarget".into()),
            message: status
                .message
                .clone()
                .or_else(|| disruption.message.clone()),
        };
    }
    if let Some(t) = terminated {
        return match t.exit_code {
            0 => WorkerState::Succeeded,
            // 128 + SIGINT, SIGKILL, SIGTERM: what the kubelet's own signals leave.
            130 | 137 | 143 if deleted && t.reason.as_deref() != Some("OOMKilled") => {
                WorkerState::Aborted
            }
            exit_code => WorkerState::Failed {
                exit_code: Some(exit_code),
                reason: status
                    .reason
                    .clone()
                    .or_else(|| t.reason.clone())
                    .unwrap_or_else(|| "Error".into()),
                message: t
                    .message
                    .as_deref()
                    .map(results::last_words)
                    .filter(|m| !m.trim().is_empty())
                    .or_else(|| status.message.clone()),
            },
        };
    }
    match status.phase.as_deref() {
        Some("Succeeded") => WorkerState::Succeeded,
        Some("Failed") if deleted => WorkerState::Aborted,
        Some("Failed") => WorkerState::Failed {
            exit_code: None,
            reason: status.reason.clone().unwrap_or_else(|| "Error".into()),
            message: status.message.clone(),
        },
        _ if deleted => WorkerState::Aborted,
        _ if state.is_some_and(|s| s.running.is_some()) => WorkerState::Running,
        _ => WorkerState::Pending {
            obstacle: obstacle(status, state),
        },
    }
}

/// What keeps a pod from running, where it is more than the usual wait.
fn obstacle(status: &PodStatus, state: Option<&ContainerState>) -> Option<Obstacle> {
    let told = |reason: &str, message: Option<&str>| match message {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    let unscheduled = status
        .conditions
        .iter()
        .find(|c| c.r#type == "PodScheduled" && c.status == "False")
        .map(|c| Obstacle {
            reason: Reason::Unschedulable,
            message: told(
                c.reason.as_deref().unwrap_or("Unschedulable"),
                c.message.as_deref(),
            ),
        });
    let waiting = || {
        let waiting = state?.waiting.as_ref()?;
        let word = waiting
            .reason
            .as_deref()
            .filter(|r| !USUAL_WAITS.contains(r))?;
        // `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `RegistryUnavailable`, ...
        let image = word.contains("Image") || word == "RegistryUnavailable";
        let reason = if image {
            Reason::ImageNotPullable
        } else {
            Reason::ContainerNotStarting
        };
        Some(Obstacle {
            reason,
            message: told(word, waiting.message.as_deref()),
        })
    };
    // A container waits for something of its own only once its pod has a node.
    waiting().or(unscheduled)
}

impl Obstacle {
    /// What an event says that the cluster's own controllers wrote of a Job or a pod. None where it tells of no obstacle.
    #[must_use]
    pub fn from_event(event_reason: &str, message: &str) -> Option<Self> {
        let reason = match event_reason {
            "FailedCreate" => Reason::PodsRefused,
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Reason::VolumeNotMounted,
            "FailedScheduling" => Reason::Unschedulable,
            "FailedCreatePodSandBox" | "FailedPodSandBoxStatus" | "Failed" => {
                Reason::ContainerNotStarting
            }
            _ => return None,
        };
        Some(Self {
            reason,
            message: format!("{event_reason}: {message}"),
        })
    }
}

/// Reads of metadata only what is used: the managed fields are most of an object's JSON, and would become a tree of values.
fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Lean {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        owner_references: Option<Vec<OwnerReference>>,
        finalizers: Option<Vec<String>>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let lean = Lean::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        generation: lean.generation,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        owner_references: lean.owner_references,
        finalizers: lean.finalizers,
        labels: lean.labels,
        annotations: lean.annotations,
        ..ObjectMeta::default()
    })
}

/// The object that controls the one with this metadata.
#[must_use]
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))
}

#[cfg(test)]
mod tests;
