//! Results of running tests.

use loadtest_api::labels::PROBE_PORT;
use loadtest_api::v1alpha1::AbortCondition;

pub(in crate::decide) const ABORT_WITHOUT_LIVE_RESULTS: &str = "spec.abort needs live results, which spec.liveResults or the operator's --live-results=false turns off. No worker starts until \
     one of them is changed.";

pub(in crate::decide) fn invalid_abort(problem: &str) -> String {
    let end = if problem.ends_with('?') { "" } else { "." };
    format!("Invalid spec.abort: {problem}{end} No worker starts until it is corrected.")
}

pub(in crate::decide) fn abort_condition_met(condition: &AbortCondition, observed: &str) -> String {
    let duration = condition.r#for.as_deref();
    let lasted = duration.map(|duration| format!(" for {duration}"));
    format!(
        "Aborted, because `{}` held{} (spec.abort): {observed}.",
        condition.when,
        lasted.unwrap_or_default()
    )
}

pub(in crate::decide) fn abort_condition_unknown(
    condition: &AbortCondition,
    observed: &str,
) -> String {
    format!(
        "Aborted, because `{}` (spec.abort) could not be evaluated for 60s: {observed}. To go on without data, set onNoData: \
         Continue.",
        condition.when
    )
}

pub(in crate::decide) fn workers_unreachable(workers: usize, error: &str) -> String {
    let workers = match workers {
        1 => "the running worker".to_owned(),
        workers => format!("any of {workers} running workers"),
    };
    format!(
        "Cannot read results of {workers} on port {PROBE_PORT}: {error}. The test goes on, and results follow at its end. The operator \
         must reach the pods: check NetworkPolicies, or set spec.liveResults: false."
    )
}
