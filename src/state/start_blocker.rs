//! Why a worker does not start, read from its pod or from events.

use loadtest_api::v1alpha1::Reason;

use super::clip;
use super::partial::{ContainerState, ContainerStatus, PodStatus};

/// The reason why a worker does not start.
#[derive(Clone, Debug, PartialEq)]
pub struct StartBlocker {
    /// The reason that conditions and events report.
    pub reason: Reason,
    /// The message of the kubelet, the scheduler or the Job controller.
    pub message: String,
    /// The container that causes it, if it is another one than the worker's.
    pub container: Option<Box<OtherContainer>>,
}

/// A container of a worker's pod besides the worker's own: an init container, a sidecar, or one that the cluster injected.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherContainer {
    /// The name.
    pub name: String,
    /// The exit code of its last run that failed.
    pub exit_code: Option<i32>,
    /// The end of its log, or the message of the kubelet about it.
    pub output: Option<String>,
}

/// Reasons of a waiting container that is about to start.
const NORMAL_WAIT_REASONS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Returns why a pod does not start, if this is more than a normal wait.
pub(super) fn start_blocker(
    status: &PodStatus,
    container: &str,
    state: Option<&ContainerState>,
) -> Option<StartBlocker> {
    let text = |reason: &str, message: Option<&str>| match (clip::reason(reason), message) {
        (reason, Some(message)) if !message.is_empty() => {
            format!("{reason}: {}", clip::message(message))
        }
        (reason, _) => reason,
    };
    let unscheduled = status
        .conditions
        .iter()
        .find(|c| c.r#type == "PodScheduled" && c.status == "False")
        .map(|c| StartBlocker {
            reason: Reason::Unschedulable,
            message: text(
                c.reason.as_deref().unwrap_or("Unschedulable"),
                c.message.as_deref(),
            ),
            container: None,
        });
    let waiting = |state: Option<&ContainerState>| {
        let waiting = state?.waiting.as_ref()?;
        let waiting_reason = waiting
            .reason
            .as_deref()
            .filter(|r| !NORMAL_WAIT_REASONS.contains(r))?;
        // `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `RegistryUnavailable`, ...
        let image = waiting_reason.contains("Image") || waiting_reason == "RegistryUnavailable";
        let reason = if image {
            Reason::ImageNotPullable
        } else {
            Reason::ContainerNotStarting
        };
        Some(StartBlocker {
            reason,
            message: text(waiting_reason, waiting.message.as_deref()),
            container: None,
        })
    };
    // Containers that start before the worker's, or beside it. One that has failed is restarted, or fails the pod.
    let other = other_containers(status, container).find_map(|other| {
        let failed = failed_container(other);
        let blocker = waiting(Some(&other.state)).or_else(|| {
            Some(StartBlocker {
                reason: Reason::ContainerNotStarting,
                message: clip::reason(other.state.terminated.as_ref()?.reason.as_deref()?),
                container: None,
            })
            .filter(|_| failed.is_some())
        })?;
        let container = failed.unwrap_or_else(|| OtherContainer {
            name: other.name.clone(),
            exit_code: None,
            output: None,
        });
        Some(StartBlocker {
            container: Some(Box::new(container)),
            ..blocker
        })
    });
    // A waiting container takes precedence, because its pod has been scheduled.
    waiting(state).or(other).or(unscheduled)
}

/// The containers of a pod besides the worker's, in the order in which they start.
pub(super) fn other_containers<'a>(
    status: &'a PodStatus,
    container: &'a str,
) -> impl Iterator<Item = &'a ContainerStatus> {
    let all = status.init_container_statuses.iter();
    all.chain(&status.container_statuses)
        .filter(move |c| c.name != container)
}

/// A container whose last run failed.
pub(super) fn failed_container(status: &ContainerStatus) -> Option<OtherContainer> {
    let runs = [&status.state, &status.last_state];
    let failed = runs
        .into_iter()
        .filter_map(|state| state.terminated.as_ref())
        .find(|run| run.exit_code != 0)?;
    Some(OtherContainer {
        name: status.name.clone(),
        exit_code: Some(failed.exit_code),
        output: failed
            .message
            .as_deref()
            .map(|message| clip::output(message).to_owned())
            .filter(|message| !message.trim().is_empty()),
    })
}

impl StartBlocker {
    /// Returns the blocker that an event about a Job or a pod reports, if any.
    #[must_use]
    pub(crate) fn from_event(event_reason: &str, message: &str) -> Option<Self> {
        let reason = match event_reason {
            // A kubelet that has not received a new ConfigMap yet tries again at once.
            "FailedMount" if message.contains("failed to sync") => return None,
            "FailedCreate" => Reason::PodCreationFailed,
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Reason::VolumeNotMounted,
            "FailedScheduling" => Reason::Unschedulable,
            "FailedCreatePodSandBox" | "FailedPodSandBoxStatus" | "Failed" | "BackOff" => {
                Reason::ContainerNotStarting
            }
            "Unhealthy" => Reason::ProbeFailed,
            _ => return None,
        };
        Some(Self {
            reason,
            message: format!("{event_reason}: {message}"),
            container: None,
        })
    }
}
