//! Every sentence of a condition or event that the operator writes itself.
//!
//! A message names what happened, to which object, why, and what to do. It begins with a capital letter; field names and
//! durations are written as in YAML.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::crd::APPLY_COMMAND;
use loadtest_api::duration;
use loadtest_api::labels::TEST_NAME_LABEL;
use loadtest_api::v1alpha1::Reason;

mod finished;
mod live;
pub(super) mod load;
mod results;

pub(super) use finished::*;
pub(super) use live::*;
pub(super) use results::*;

use super::SetAsideCause;
use super::log_line::most_informative_line;
use crate::state::{FailedCall, StartBlocker, WorkerStatus};

/// How many objects a message lists at most.
pub(super) const MAX_LISTED: usize = 5;

/// The exit code of Artillery after a test that ran and did not meet its conditions.
///
/// Source: Artillery 2, `lib/cmds/run.ts` and the plugins `ensure` and `expect` (`suggestedExitCode`).
const CONDITIONS_NOT_MET: i32 = 21;

// Calls to the API server

pub(super) fn request_failed(failed: &FailedCall) -> String {
    let error = failed.error.trim_end_matches(['.', ' ']);
    format!("Cannot {}: {error}.", failed.what)
}

pub(super) fn events_not_recorded(error: &str) -> String {
    let error = error.trim_end_matches(['.', ' ']);
    format!(
        "Cannot record events of this test: {error}. The test goes on without them; the operator retries."
    )
}

// Tests that are set aside

pub(super) fn set_aside(cause: SetAsideCause) -> String {
    let happened = match cause {
        SetAsideCause::UnexpectedEnds(times) => format!(
            "The operator's process ended unexpectedly {times} times while it reconciled this test"
        ),
        SetAsideCause::Panic => {
            "The operator failed with an internal error while it reconciled this test".to_owned()
        }
    };
    format!(
        "{happened}, so the test is set aside: the operator neither starts nor updates it. Workers that run go on until their Job's \
         activeDeadlineSeconds. See the log of the operator, and report the error with this LoadTest. Any change of its spec has \
         it reconciled again; deleting the LoadTest also ends its workers."
    )
}

// Pending and suspended tests

pub(super) const STOPPED_BEFORE_START: &str = "Stopped by spec.stop before it started.";

pub(super) fn suspended_by_spec(test: &str) -> String {
    format!(
        "Suspended by spec.suspend. Set it to false to start the test (kubectl edit loadtest {test})."
    )
}

pub(super) fn job_queued(job: &str, queue: &str, namespace: &str, uid: &str) -> String {
    format!(
        "Job {job} is suspended: it waits in the queue {queue} of Kueue. The test starts when Kueue admits it. For the reason, see: \
         kubectl describe workloads -n {namespace} -l kueue.x-k8s.io/job-uid={uid}"
    )
}

pub(super) fn job_suspended_by_queue(job: &str) -> String {
    format!(
        "Job {job} is suspended, by a queueing system or manually. The test starts when it is resumed \
         (kubectl describe job {job})."
    )
}

pub(super) fn crd_outdated(missing: &[String]) -> String {
    let listed = missing[..missing.len().min(MAX_LISTED)].join(", ");
    let more = match missing.len() - missing.len().min(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "The installed CRD is older than the operator and would drop {listed}{more}. Apply the CRD of the operator's version \
         {}: {APPLY_COMMAND}",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn name_conflict(name: &str) -> String {
    format!(
        "Job {name} exists and is not owned by this LoadTest. Delete it (kubectl delete job {name}) or rename the LoadTest."
    )
}

pub(super) fn foreign_worker_files(namespace: &str, name: &str) -> String {
    format!(
        "ConfigMap {name} exists and has other contents than the files that the operator mounts into workers. Its code would run \
         in every worker. Find out who created it, and delete it (kubectl delete configmap -n {namespace} {name}); the test then \
         starts."
    )
}

pub(super) fn job_rejected(error: &str) -> String {
    format!("The API server rejected the Job: {error}")
}

pub(super) fn script_config_map_missing(
    namespace: &str,
    name: &str,
    key: &str,
    similar: Option<&str>,
) -> String {
    let renamed = similar.map(renamed_by_kustomize).unwrap_or_default();
    format!(
        "ConfigMap {namespace}/{name} not found. {renamed}Create it with the test script under key {key}."
    )
}

pub(super) fn external_config_map_missing(
    namespace: &str,
    name: &str,
    similar: Option<&str>,
) -> String {
    let renamed = similar.map(renamed_by_kustomize).unwrap_or_default();
    format!(
        "ConfigMap {namespace}/{name} not found. {renamed}Create it; spec.testScript.external names it."
    )
}

fn renamed_by_kustomize(similar: &str) -> String {
    format!(
        "If kustomize generated {similar} for this test, add the component config/kustomize, which updates the reference. "
    )
}

pub(super) fn script_key_missing(config_map: &str, key: &str, keys: &[String]) -> String {
    let keys = if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    };
    format!(
        "ConfigMap {config_map} has no key {key} (keys: {keys}). Add the test script under this key."
    )
}

pub(super) fn invalid_env(problem: &str) -> String {
    format!("Invalid spec.worker.env: {problem}.")
}

pub(super) fn duplicate_file(file: &str, first: &str, second: &str) -> String {
    format!("Both {first} and {second} contain a file {file}. Rename one of them.")
}

pub(super) fn invalid_script(place: &str, problem: &str) -> String {
    format!(
        "Invalid test script ({place}): {problem}. To run it unchecked, set spec.validate: false."
    )
}

pub(super) fn script_warning(place: &str, warning: &str) -> String {
    format!("Test script ({place}): {warning}. The test starts nevertheless.")
}

pub(super) fn invalid_threshold(problem: &str) -> String {
    let end = if problem.ends_with('?') { "" } else { "." };
    format!("Invalid spec.thresholds: {problem}{end} No worker starts until it is corrected.")
}

pub(super) const INLINE_SCRIPT: &str = "spec.testScript.inline";

pub(super) fn script_place(key: &str, config_map: &str) -> String {
    format!("key {key} in ConfigMap {config_map}")
}

pub(super) fn config_map_place(name: &str) -> String {
    format!("ConfigMap {name}")
}

pub(super) fn start_deadline_exceeded(seconds: i64, why: &str) -> String {
    format!("Did not start within {seconds}s (startDeadlineSeconds): {why}")
}

// Starting and running tests

pub(super) fn waiting_for_workers(count: i32, job: &str) -> String {
    format!(
        "Waiting for {} of Job {job} to start.",
        count_of_workers(count)
    )
}

pub(super) fn all_running(count: i32) -> String {
    match count {
        1 => "The worker is running.".to_owned(),
        n => format!("All {n} workers are running."),
    }
}

pub(super) fn waiting_for_barrier(count: i32, waiting_for: &str) -> String {
    format!("All {count} workers are running; the synchronized start waits for {waiting_for}.")
}

pub(super) fn barrier_not_ready(workers: &str, ready: usize) -> String {
    format!("{workers} to become ready ({ready} ready so far)")
}

/// A message and a second sentence.
pub(super) fn joined(message: &str, more: &str) -> String {
    format!("{message} {more}")
}

/// Why a pod does not start: `container proxy: CrashLoopBackOff: ...; it exited with code 1: <its last line>`.
pub(super) fn blocker(blocker: &StartBlocker) -> String {
    let Some(container) = &blocker.container else {
        return blocker.message.clone();
    };
    let exit = container
        .exit_code
        .map(|code| format!("; it exited with code {code}"));
    let line = most_informative_line(container.output.as_deref());
    format!(
        "container {}: {}{}{}",
        container.name,
        blocker.message.trim_end_matches(['.', ' ']),
        exit.unwrap_or_default(),
        line.map(|line| format!(": {line}")).unwrap_or_default(),
    )
}

pub(super) fn pod_blocked(pod: &str, others: usize, why: &str) -> String {
    match others {
        0 => format!("Pod {pod} is waiting: {why}"),
        n => format!("Pod {pod} and {n} more are waiting: {why}"),
    }
}

/// What a user can do about a blocker of a pod, where it is known.
pub(super) fn advice(blocker: &StartBlocker, namespace: &str, pod: Option<&str>) -> Option<String> {
    if let Some(container) = &blocker.container {
        let (name, pod) = (&container.name, pod?);
        return Some(if container.exit_code.is_some() {
            format!("See: kubectl logs -n {namespace} {pod} -c {name} --previous")
        } else {
            format!("See: kubectl describe pod -n {namespace} {pod} (container {name})")
        });
    }
    let error = blocker.message.as_str();
    let advice = match blocker.reason {
        Reason::Unschedulable => "Free capacity, add nodes, or reduce spec.count.",
        Reason::ImageNotPullable => {
            "Check the workers' image (status.image) and that the nodes can pull it."
        }
        Reason::VolumeNotMounted => {
            "Check that the ConfigMaps, Secrets and claims that the test refers to exist."
        }
        Reason::PodCreationFailed if error.contains("exceeded quota") => {
            "Raise the namespace's quota, or reduce spec.count or the workers' resources."
        }
        Reason::PodCreationFailed if error.contains("webhook") => {
            "Check the admission webhook that the message names."
        }
        Reason::PodCreationFailed if error.contains("forbidden") || error.contains("denied") => {
            "Change spec.worker so that the pods meet the policy, or relax the policy."
        }
        Reason::ContainerNotStarting => {
            "Check the workers' image and what their container refers to."
        }
        Reason::ProbeFailed if error.contains(":8899/") => {
            "The node's kubelet must reach port 8899 of the workers' pods: check the network policies of the namespace and \
             the node's firewall. A worker that is still loading looks the same: its log shows this."
        }
        Reason::ProbeFailed => "Check the container whose probe fails.",
        _ => return None,
    };
    Some(advice.to_owned())
}

pub(super) fn with_advice(message: &str, advice: &str) -> String {
    format!("{}. {advice}", message.trim_end_matches(['.', ' ']))
}

/// The pods are deleted when the test ends, so the advice does not refer to their logs.
pub(super) fn barrier_deadline_exceeded(
    seconds: i64,
    waiting_for: &str,
    namespace: &str,
    test: &str,
) -> String {
    format!(
        "The synchronized start did not happen within {seconds}s (startDeadlineSeconds): it waited for {waiting_for}. \
         Create the test again and follow the logs while its workers start (kubectl logs -n {namespace} -f -l \
         {TEST_NAME_LABEL}={test}), or set spec.start: Immediate."
    )
}

pub(super) fn workers_not_started(seconds: i64, blocker: Option<&str>) -> String {
    let late = format!("Not all workers started within {seconds}s (startDeadlineSeconds)");
    match blocker {
        Some(blocker) => format!("{late}: {blocker}"),
        None => format!("{late}. Neither their pods nor events give a reason."),
    }
}

pub(super) fn silent_node(node: &str, pod: &str) -> String {
    format!(
        "Node {node} has not reported about pod {pod}. Check its kubelet, and that it can run the workers' image \
         (kubectl describe node {node})."
    )
}

pub(super) const STOPPING: &str = "Stopping the workers: spec.stop is true.";

pub(super) fn node_lost(pods: &[&WorkerStatus], first: &str) -> String {
    let (worker, node, it) = match pods.len() {
        1 => ("Worker pod", "its node has", "the pod is"),
        _ => ("Worker pods", "their nodes have", "the pods are"),
    };
    format!(
        "{worker} {} should have terminated, but {node} not confirmed it. The test ends when the node recovers or {it} \
         force-deleted: kubectl delete pod --force {first}",
        list_workers(pods)
    )
}

pub(super) fn start_not_acknowledged(pods: &[&WorkerStatus], at: Timestamp) -> String {
    let pods_listed = list_workers(pods);
    match pods.len() {
        1 => format!(
            "Worker {pods_listed} has not acknowledged the start time {at}. Check its log and the load on its node."
        ),
        _ => format!(
            "Workers {pods_listed} have not acknowledged the start time {at}. Check their logs and the load on their nodes."
        ),
    }
}

pub(super) fn clock_skew(node: &str, offset: i64) -> String {
    let (by, direction) = (offset.abs(), if offset > 0 { "ahead" } else { "behind" });
    format!(
        "The clock of node {node} is about {by}s {direction}. Its workers begin their load that much too early or too late, and \
         durations are off. Synchronize the clocks of the nodes (NTP)."
    )
}

pub(super) fn running_too_long(
    pods: &[&WorkerStatus],
    expected: SignedDuration,
    namespace: &str,
    first: &str,
) -> String {
    let (worker, is) = match pods.len() {
        1 => ("Worker", "is"),
        _ => ("Workers", "are"),
    };
    format!(
        "{worker} {} {is} still running; the script's phases should have finished after {}. See kubectl logs -n {namespace} \
         {first}. To end the test, set spec.stop: true.",
        list_workers(pods),
        duration::format(expected)
    )
}

pub(super) fn deadline_overridden(job: &str, requested: i64, actual: Option<i64>) -> String {
    let actual = actual.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds}s"));
    format!(
        "The cluster set activeDeadlineSeconds of Job {job} to {actual} instead of {requested}s. The operator keeps this value."
    )
}

// Events. The texts of Created, Running and the prefixes of the others are those of the original operator.

pub(super) fn created_event(job: &str) -> String {
    format!("Created Load Test worker master job: {job}")
}

pub(super) fn running_event(pod: &str) -> String {
    format!("Running Load Test worker pod: {pod}")
}

pub(super) fn all_running_event(count: usize) -> String {
    format!("Running {count} Load Test worker pods")
}

pub(super) fn finished_event(phase: &str, message: &str) -> String {
    format!("{phase} Load Test: {}", lower_first(message))
}

pub(super) const IN_PROGRESS: &str = "The test is in progress.";

// Parts of messages

/// Pods with their nodes, at most [`MAX_LISTED`].
pub(super) fn list_workers(workers: &[&WorkerStatus]) -> String {
    let names = workers.iter().take(MAX_LISTED).map(|w| match &w.node {
        Some(node) => format!("{} on {node}", w.pod),
        None => w.pod.clone(),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    match workers.len().saturating_sub(MAX_LISTED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn count_of_workers(count: impl std::fmt::Display) -> String {
    match count.to_string().as_str() {
        "1" => "1 worker".into(),
        n => format!("{n} workers"),
    }
}

fn count_of_other_workers(count: usize) -> String {
    match count {
        1 => "1 other worker".into(),
        n => format!("{n} other workers"),
    }
}

/// A message inside a sentence: a leading word in lower case, unless it is an abbreviation or a name.
fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().collect::<String>()
                + message.get(first.len_utf8()..).unwrap_or_default()
        }
        _ => message.to_owned(),
    }
}
