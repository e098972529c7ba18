//! The state of a worker, read from its pod.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::labels::{START_ANNOTATION, START_ATTEMPT_ANNOTATION};
use loadtest_results::{Snapshot, log_tail};

use super::clip;
use super::partial::{ContainerState, PartialPod, Terminated};
use super::start_annotation::decode_attempt;
use super::start_blocker::{
    OtherContainer, StartBlocker, failed_container, other_containers, start_blocker,
};

/// The progress of a worker towards a synchronized start, as its probes report it (see `build::worker_files::probes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StartState {
    /// Artillery is still loading.
    #[default]
    Loading,
    /// The worker is ready to begin its load.
    Ready,
    /// The worker has acknowledged the start instant.
    Acknowledged,
}

/// The state of a worker, read from its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The worker's index, from 0.
    pub index: Option<u32>,
    /// The node of the pod, once it is scheduled.
    pub node: Option<String>,
    /// The address of the pod.
    pub ip: Option<IpAddr>,
    /// Whether the worker's container has ever run.
    pub started: bool,
    /// The start time of the container, while it runs.
    pub running_since: Option<Timestamp>,
    /// The end time of the container, if it has run.
    pub ended: Option<Timestamp>,
    /// The handshake of a synchronized start.
    pub start: StartHandshake,
    /// The measurements in the container's termination message.
    pub snapshot: Option<Arc<Snapshot>>,
    /// How far the clock of the pod's node is ahead of the operator's or the API server's, in seconds; negative if it is behind.
    /// 0 where nothing shows a difference.
    pub clock_offset: i64,
    /// Whether the pod has other containers.
    pub has_sidecars: bool,
    /// Whether other containers keep the pod running after the worker's container has ended.
    pub pod_outlives_worker: bool,
    /// The deletion of the pod, if it was deleted.
    pub deleted: Option<Box<Deletion>>,
    /// The state of the worker's container.
    pub state: WorkerState,
}

/// The handshake of a synchronized start: the operator sends a start instant, the worker acknowledges it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StartHandshake {
    /// The progress of the worker.
    pub state: StartState,
    /// The instant in the pod's annotation, or that this process sent and the watch does not show yet. Whoever may patch the pod
    /// can write another one than the operator's.
    pub instant: Option<Timestamp>,
    /// The number of times that the instant was sent.
    pub attempt: u8,
    /// When this process first sent this instant.
    pub sent_at: Option<Timestamp>,
    /// When the acknowledgement is due. None until the watch shows the annotation, because the worker cannot have
    /// received it before.
    pub ack_deadline: Option<Timestamp>,
}

/// The deletion of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    /// When the pod's grace period ends.
    pub grace_deadline: Timestamp,
    /// The pod's resource version when its deletion was first seen. The lower version was deleted first.
    pub version: u64,
    /// Whether the pod no longer exists.
    pub removed: bool,
}

/// The state of a worker's container.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerState {
    /// The container does not run yet.
    Pending {
        /// Why the container does not start, if this is more than a normal wait.
        blocker: Option<StartBlocker>,
    },
    /// The container runs.
    Running,
    /// The container exited with 0.
    Succeeded,
    /// The worker failed.
    Failed {
        /// The exit code of the container, if it ran.
        exit_code: Option<i32>,
        /// The reason, such as `Error`, `OOMKilled` or `Evicted`.
        reason: String,
        /// The end of the container's log, or the pod's message.
        message: Option<String>,
        /// The container that failed, if it is another one than the worker's.
        container: Option<Box<OtherContainer>>,
    },
    /// The worker was stopped, for example because another worker failed.
    Aborted,
}

/// The time in which a kubelet normally delivers an annotation to a worker and reports the worker's acknowledgement.
const ACK_TIMEOUT: SignedDuration = SignedDuration::from_millis(1250);

impl WorkerStatus {
    /// Reads a worker from its pod. `container` is the name of the worker's container. Other containers of the pod,
    /// such as those of a service mesh, matter only where they keep the worker from starting.
    #[must_use]
    pub fn from_pod(pod: &PartialPod, container: &str) -> Self {
        let meta = &pod.metadata;
        let status = pod
            .status
            .container_statuses
            .iter()
            .find(|c| c.name == container);
        let state = status.map(|c| &c.state);
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|a| a.get(name));
        let terminated = state.and_then(|s| s.terminated.as_ref());
        // A container that could not be started is reported as terminated too, with a zero or missing start time.
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
        let instant = annotation(START_ANNOTATION).and_then(|at| at.parse().ok());
        Self {
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            index: annotation("batch.kubernetes.io/job-completion-index")
                .and_then(|i| i.parse().ok()),
            node: pod.spec.node_name.clone(),
            ip: pod.status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
            started: ran || running.is_some(),
            running_since: running.and_then(|r| r.started_at.as_ref()).map(|t| t.0),
            ended: terminated
                .filter(|_| ran)
                .and_then(|t| t.finished_at.as_ref())
                .map(|t| t.0),
            start: StartHandshake {
                state: status.map_or(StartState::Loading, |s| match (s.ready, s.started) {
                    (true, _) => StartState::Acknowledged,
                    (false, Some(true)) => StartState::Ready,
                    (false, _) => StartState::Loading,
                }),
                instant,
                attempt: instant.map_or(0, |_| {
                    decode_attempt(annotation(START_ATTEMPT_ANNOTATION).map(String::as_str))
                }),
                sent_at: None,
                ack_deadline: None,
            },
            snapshot: terminated
                .and_then(|t| t.message.as_deref().map(clip::output))
                .and_then(Snapshot::from_message)
                .map(Arc::new),
            clock_offset: running
                .and_then(|r| r.started_at.as_ref())
                .zip(meta.creation_timestamp.as_ref())
                // No container starts before its pod exists.
                .map_or(0, |(started, created)| {
                    (started.0.as_second() - created.0.as_second()).min(0)
                }),
            has_sidecars: pod.status.container_statuses.len()
                + pod.status.init_container_statuses.len()
                > 1,
            pod_outlives_worker: ran
                && matches!(pod.status.phase.as_deref(), Some("Pending" | "Running")),
            deleted: meta.deletion_timestamp.as_ref().map(|t| {
                Box::new(Deletion {
                    grace_deadline: t.0,
                    version: version(),
                    removed: false,
                })
            }),
            state: worker_state(pod, container, state, terminated),
        }
    }

    /// Returns whether the worker has ended, with any outcome.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.state,
            WorkerState::Succeeded | WorkerState::Failed { .. }
        ) || self.ended.is_some()
            || self.deleted.as_ref().is_some_and(|d| d.removed)
    }

    /// Merges information that only an earlier view of the same pod contained. `now` is the time at which this view was
    /// received.
    #[must_use]
    pub(crate) fn merge_earlier(mut self, earlier: Option<&Self>, now: Timestamp) -> Self {
        let earlier = earlier.filter(|earlier| self.uid == earlier.uid);
        self.start = self.start.merge_earlier(earlier.map(|e| &e.start), now);
        self.clock_offset = match (earlier, self.running_since) {
            (Some(earlier), _) if earlier.running_since == self.running_since => {
                earlier.clock_offset
            }
            // No container starts after its start was reported.
            (_, Some(since)) if since > now => since.as_second() - now.as_second(),
            _ => self.clock_offset,
        };
        if let Some(earlier) = earlier {
            if let (Some(deleted), Some(earlier)) = (&mut self.deleted, &earlier.deleted) {
                deleted.version = earlier.version;
            }
            self.started |= earlier.started;
            self.snapshot = self.snapshot.or_else(|| earlier.snapshot.clone());
        }
        self
    }

    /// Marks the pod as no longer existing.
    #[must_use]
    pub(crate) fn mark_deleted(mut self, version: u64, now: Timestamp) -> Self {
        match &mut self.deleted {
            Some(deleted) => deleted.removed = true,
            None => {
                self.deleted = Some(Box::new(Deletion {
                    grace_deadline: now,
                    version,
                    removed: true,
                }));
            }
        }
        if !matches!(
            self.state,
            WorkerState::Succeeded | WorkerState::Failed { .. }
        ) {
            self.state = WorkerState::Aborted;
        }
        self.running_since = None;
        self.pod_outlives_worker = false;
        self
    }
}

impl StartHandshake {
    fn merge_earlier(self, earlier: Option<&Self>, now: Timestamp) -> Self {
        let Some(earlier) = earlier else {
            return Self {
                ack_deadline: self.ack_deadline(SignedDuration::ZERO, now),
                ..self
            };
        };
        let merged = Self {
            state: self.state.max(earlier.state),
            attempt: self.attempt.max(earlier.attempt),
            sent_at: None,
            ..self
        };
        match earlier.sent_at {
            // The watch does not show yet what was sent.
            Some(_) if earlier.ack_deadline.is_none() && self.instant != earlier.instant => Self {
                instant: earlier.instant,
                sent_at: earlier.sent_at,
                ..merged
            },
            sent_at if self.instant == earlier.instant => {
                // The acknowledgement is expected to take as long to return as the annotation took to arrive.
                let delivery = sent_at.map(|at| now.duration_since(at)).unwrap_or_default();
                let due = earlier.ack_deadline;
                Self {
                    sent_at,
                    ack_deadline: due.or_else(|| self.ack_deadline(delivery, now)),
                    ..merged
                }
            }
            // Somebody else has changed the annotation.
            _ => Self {
                ack_deadline: self.ack_deadline(SignedDuration::ZERO, now),
                ..merged
            },
        }
    }

    fn ack_deadline(&self, delivery: SignedDuration, now: Timestamp) -> Option<Timestamp> {
        self.instant?;
        now.checked_add(ACK_TIMEOUT.max(delivery.saturating_mul(2)))
            .ok()
    }
}

fn worker_state(
    pod: &PartialPod,
    container: &str,
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
                .as_deref()
                .or(status.reason.as_deref())
                .map_or_else(|| "DisruptionTarget".into(), clip::reason),
            message: status
                .message
                .as_deref()
                .or(disruption.message.as_deref())
                .map(clip::message),
            container: None,
        };
    }
    if let Some(t) = terminated {
        return match t.exit_code {
            0 => WorkerState::Succeeded,
            // 128 + SIGINT, SIGKILL or SIGTERM: the exit codes after a signal of the kubelet.
            130 | 137 | 143 if deleted && t.reason.as_deref() != Some("OOMKilled") => {
                WorkerState::Aborted
            }
            exit_code => WorkerState::Failed {
                exit_code: Some(exit_code),
                reason: status
                    .reason
                    .as_deref()
                    .or(t.reason.as_deref())
                    .map_or_else(|| "Error".into(), clip::reason),
                message: t
                    .message
                    .as_deref()
                    .map(|message| log_tail(clip::output(message)))
                    .filter(|m| !m.trim().is_empty())
                    .or_else(|| status.message.as_deref().map(clip::message)),
                container: None,
            },
        };
    }
    match status.phase.as_deref() {
        Some("Succeeded") => WorkerState::Succeeded,
        Some("Failed") if deleted => WorkerState::Aborted,
        Some("Failed") => WorkerState::Failed {
            exit_code: None,
            reason: status
                .reason
                .as_deref()
                .map_or_else(|| "Error".into(), clip::reason),
            message: status.message.as_deref().map(clip::message),
            container: other_containers(status, container)
                .find_map(failed_container)
                .map(Box::new),
        },
        _ if deleted => WorkerState::Aborted,
        _ if state.is_some_and(|s| s.running.is_some()) => WorkerState::Running,
        _ => WorkerState::Pending {
            blocker: start_blocker(status, container, state),
        },
    }
}
