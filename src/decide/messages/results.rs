//! The sentences about verdicts and results.

use loadtest_api::v1alpha1::Reason;

use super::{MAX_LISTED, joined, load, lower_first};

pub(in crate::decide) const NO_THRESHOLDS: &str =
    "All workers succeeded; the test has no thresholds.";

pub(in crate::decide) const NO_RESULTS: &str = "No worker reported results, so nothing shows that load was sent. Check the workers' \
     arguments (spec.worker.args) and their logs.";

pub(in crate::decide) const NO_VUSERS: &str =
    "No virtual user was created: the test sent no load. Check the script's phases.";

pub(in crate::decide) const NOTHING_ANSWERED: &str = "Nothing answered: every virtual user failed. Check the target (spec.target, or config.target of the script).";

pub(in crate::decide) const RESULTS_INCOMPLETE: &str =
    "Thresholds were not evaluated: results of some workers are missing (see ResultsComplete).";

pub(in crate::decide) fn not_completed(phase: &str, failures: &str) -> String {
    let message = match phase {
        "Stopped" => "The test was stopped.",
        _ => "The test failed.",
    };
    append(message, failures)
}

pub(in crate::decide) fn thresholds_met(count: usize, failures: &str) -> String {
    let message = match count {
        1 => "The threshold is met.".to_owned(),
        n => format!("{n} thresholds are met."),
    };
    append(&message, failures)
}

/// `shortfall` is the reason why the load was not delivered, if it was not.
pub(in crate::decide) fn expectations_not_met(failed: u64) -> String {
    let expectations = match failed {
        1 => "1 expectation".to_owned(),
        failed => format!("{failed} expectations"),
    };
    format!(
        "{expectations} of the script (plugin expect) not met, over all workers; the workers' logs name the requests. To accept \
         some, add a threshold such as plugins.expect.failed < 10."
    )
}

pub(in crate::decide) fn thresholds_not_met(failures: &str, shortfall: Option<Reason>) -> String {
    let message = append("Thresholds not met:", failures);
    match shortfall.map(load::violated_without_load) {
        Some(note) => joined(&message, note),
        None => message,
    }
}

pub(in crate::decide) fn append(message: &str, failures: &str) -> String {
    match failures {
        "" => message.to_owned(),
        failures => format!("{message} {failures}."),
    }
}

pub(in crate::decide) fn verdict_event(passed: Option<bool>, message: &str) -> String {
    let verdict = match passed {
        Some(true) => "Load test passed",
        Some(false) => "Load test did not pass",
        None => "Load test is inconclusive",
    };
    format!("{verdict}: {}", lower_first(message))
}

/// The message of the condition `StartSynchronized`.
pub(in crate::decide) fn start_skewed(milliseconds: i64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let seconds = milliseconds as f64 / 1000.0;
    format!(
        "The workers began their load {seconds:.1}s apart by their clocks, so the load was not complete from its first second. \
         Check the clocks and the load of the nodes."
    )
}

pub(in crate::decide) fn no_pod(index: i32) -> String {
    format!("no pod for worker {index}")
}

pub(in crate::decide) fn incomplete_results(index: i32) -> String {
    format!("results of worker {index} are incomplete")
}

pub(in crate::decide) fn results_problem(index: i32, problem: &str) -> String {
    format!("worker {index}: {problem}")
}

/// The message of the condition `ResultsComplete`.
pub(in crate::decide) fn results_complete(
    partial: bool,
    reporting: &str,
    missing: &[String],
    dropped: i32,
    repeated: u32,
) -> String {
    let first = if partial {
        format!("{reporting} workers reported")
    } else {
        "All workers reported".to_owned()
    };
    let more = (missing.len() > MAX_LISTED).then(|| "and more".to_owned());
    let dropped = match dropped {
        0 => None,
        1 => Some("1 metric was dropped for lack of space".to_owned()),
        n => Some(format!("{n} metrics were dropped for lack of space")),
    };
    let repeated = match repeated {
        0 => None,
        1 => Some("Kubernetes ran 1 worker twice; only one of its results is counted".to_owned()),
        n => Some(format!(
            "Kubernetes ran {n} workers twice; only one result of each is counted"
        )),
    };
    let parts = std::iter::once(first)
        .chain(missing.iter().take(MAX_LISTED).cloned())
        .chain(more)
        .chain(dropped)
        .chain(repeated);
    parts.collect::<Vec<_>>().join("; ") + "."
}
