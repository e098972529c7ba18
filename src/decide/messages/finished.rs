//! The sentences about how tests end.

use super::{CONDITIONS_NOT_MET, count_of_other_workers, count_of_workers};
use crate::decide::log_line::{error_line, most_informative_line};
use crate::state::{WorkerState, WorkerStatus};

pub(in crate::decide) fn all_succeeded(count: i32) -> String {
    match count {
        1 => "The worker succeeded.".to_owned(),
        n => format!("All {n} workers succeeded."),
    }
}

pub(in crate::decide) fn stopped(succeeded: i32, count: i32) -> String {
    format!(
        "Stopped by spec.stop; {succeeded} of {} had succeeded.",
        count_of_workers(count)
    )
}

pub(in crate::decide) const STOPPED_AND_JOB_DELETED: &str =
    "Stopped by spec.stop; the Job was deleted.";

pub(in crate::decide) const STOPPED_AND_JOB_SUSPENDED: &str =
    "Stopped by spec.stop; the Job was suspended.";

pub(in crate::decide) fn job_deleted(job: &str) -> String {
    format!(
        "Job {job} was deleted before the test finished. To run the test again, delete the LoadTest and create it again."
    )
}

pub(in crate::decide) fn job_suspended_after_start(job: &str, namespace: &str) -> String {
    format!(
        "Job {job} was suspended after it had started, by a queueing system or manually. It is not resumed, because the workers \
         would repeat their load. For the cause, see: kubectl get events -n {namespace}. To run the test again, delete the LoadTest \
         and create it again."
    )
}

pub(in crate::decide) fn parallelism_reduced(job: &str, parallelism: i32, count: i32) -> String {
    format!(
        "Job {job} may run only {parallelism} of {} at a time (spec.parallelism), so the load would not be that of the test. \
         Partial admission by a queueing system is not supported.",
        count_of_workers(count)
    )
}

pub(in crate::decide) fn job_resumed(job: &str) -> String {
    format!(
        "Job {job} was suspended after it had started, and then resumed. Its workers were started twice and may have repeated their \
         load, so the test is ended. To run the test again, delete the LoadTest and create it again."
    )
}

pub(in crate::decide) fn deadline_exceeded(seconds: Option<i64>, job_message: &str) -> String {
    match seconds {
        Some(seconds) => {
            format!("Ran longer than activeDeadlineSeconds ({seconds}s): {job_message}")
        }
        None => format!("The Job ran longer than its deadline: {job_message}"),
    }
}

pub(in crate::decide) fn worker_lost(job_reason: &str, job_message: &str) -> String {
    format!("A worker pod was deleted or lost before it finished ({job_reason}: {job_message}).")
}

pub(in crate::decide) const POD_DELETED: &str = "its pod was deleted";

/// `Worker 1 (pod t-1-abcde) failed with exit code 11: <its last line>. 2 other workers were stopped. See: kubectl logs ...`
pub(in crate::decide) fn worker_failed(
    first: &WorkerStatus,
    others_failed: usize,
    aborted: usize,
    logs: Option<&str>,
    test: &str,
) -> String {
    let failure = describe_failure(first);
    let were = if aborted == 1 { "was" } else { "were" };
    let sentences = [
        Some(format!("Worker {}.", failure.trim_end_matches('.'))),
        (others_failed > 0)
            .then(|| format!("{} failed too.", count_of_other_workers(others_failed))),
        (aborted > 0).then(|| format!("{} {were} stopped.", count_of_other_workers(aborted))),
        logs.map(|namespace| logs_hint(namespace, first, test)),
    ];
    sentences
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The command that shows the log of the container that failed.
fn logs_hint(namespace: &str, worker: &WorkerStatus, test: &str) -> String {
    let failed = match &worker.state {
        WorkerState::Failed {
            container: Some(container),
            ..
        } => Some(container.name.as_str()),
        _ => worker.has_sidecars.then_some(test),
    };
    let container = failed.map(|name| format!(" -c {name}"));
    format!(
        "See: kubectl logs -n {namespace} {}{}",
        worker.pod,
        container.unwrap_or_default()
    )
}

/// A failed worker: `1 (pod t-1-abcde) failed with exit code 11: <its last line>`.
fn describe_failure(worker: &WorkerStatus) -> String {
    let index = worker
        .index
        .map_or_else(|| "?".to_owned(), |i| i.to_string());
    let WorkerState::Failed {
        exit_code,
        reason,
        message,
        container,
    } = &worker.state
    else {
        return index;
    };
    if let Some(container) = container {
        let code = container
            .exit_code
            .map(|code| format!(" with exit code {code}"));
        let line = most_informative_line(container.output.as_deref());
        return format!(
            "{index} (pod {}) failed: its container {} ended{}{}",
            worker.pod,
            container.name,
            code.unwrap_or_default(),
            line.map(|line| format!(": {line}")).unwrap_or_default(),
        );
    }
    let code = exit_code.map(|code| format!(" with exit code {code}"));
    let explanation = (*exit_code == Some(CONDITIONS_NOT_MET)).then(|| {
        " (Artillery: a condition of ensure or an expectation of expect was not met)".to_owned()
    });
    let cause = (reason != "Error").then(|| format!(" ({reason})"));
    let line = match exit_code {
        // The log ends with the report then.
        Some(CONDITIONS_NOT_MET) => error_line(message.as_deref()),
        _ => most_informative_line(message.as_deref()),
    };
    let line = line.map(|line| format!(": {line}"));
    let hint = (reason == "OOMKilled")
        .then_some(". It needs more memory, or fewer virtual users per worker");
    let parts = [code, explanation, cause, line, hint.map(str::to_owned)];
    format!(
        "{index} (pod {}) failed{}",
        worker.pod,
        parts.into_iter().flatten().collect::<String>()
    )
}
