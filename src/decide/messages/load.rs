//! The sentences about the planned and the sent load, and the advice about the size of workers.

use loadtest_api::v1alpha1::Reason;

use crate::decide::delivery::{Cause, Facts, WorkerLoad};

/// How much more than the measured concurrency is advised for `maxVusers`: phases are not even.
const MAX_VUSERS_RESERVE: f64 = 1.2;

/// The figures of a test's load.
pub(in crate::decide) struct Figures<'a> {
    pub(in crate::decide) facts: &'a Facts,
    pub(in crate::decide) planned_seconds: Option<f64>,
    /// The 99th percentile of the arrival delay of all workers.
    pub(in crate::decide) delay_ms: Option<f64>,
    /// The 99th percentile of the duration of sessions.
    pub(in crate::decide) session_ms: Option<f64>,
    /// The workers of the test, and those that reported a plan.
    pub(in crate::decide) workers: u32,
    pub(in crate::decide) known_workers: u32,
    /// Whether the workers share the load.
    pub(in crate::decide) divides: bool,
    /// The worker with the largest delay.
    pub(in crate::decide) worst: Option<&'a WorkerLoad>,
}

/// The message of the condition `LoadDelivered`.
pub(in crate::decide) fn delivery(
    reason: Reason,
    figures: &Figures,
    advice: Option<&str>,
) -> String {
    let facts = figures.facts;
    let mut sentences = vec![match reason {
        Reason::AsPlanned => as_planned(figures),
        Reason::NotCompleted => match facts.planned {
            Some(planned) => format!(
                "The test did not complete, so its load was not complete either: {} of {} planned virtual users were created.",
                whole(facts.created),
                whole(planned)
            ),
            None => "The test did not complete, and its planned load is unknown.".to_owned(),
        },
        Reason::PlanUnknown => {
            "The planned load is unknown: not all workers reported a plan of the script's phases."
                .to_owned()
        }
        _ => format!("{}.", upper_first(&shortfall(reason, figures))),
    }];
    if let (Reason::WorkersSaturated, Some(worst)) = (reason, figures.worst) {
        sentences.push(cause(worst));
        if facts.skipped > 0.0 {
            sentences.push(format!("{}.", upper_first(&skipped(facts))));
        }
    }
    sentences.extend(advice.map(str::to_owned));
    sentences.join(" ")
}

fn as_planned(figures: &Figures) -> String {
    let facts = figures.facts;
    let created = format!(
        "{} of {} planned virtual users were created",
        whole(facts.created),
        whole(facts.planned.unwrap_or_default())
    );
    let delay = figures
        .delay_ms
        .map(|ms| format!(", 99% of them at most {} late", milliseconds(ms)));
    let accepted = (facts.skipped > 0.0).then(|| {
        format!(
            " spec.loadTolerance accepts {} that maxVusers skipped.",
            whole(facts.skipped)
        )
    });
    format!(
        "{created}{}.{}",
        delay.unwrap_or_default(),
        accepted.unwrap_or_default()
    )
}

/// What the load lacked, as a part of a sentence. Empty if it lacked nothing.
pub(in crate::decide) fn shortfall(reason: Reason, figures: &Figures) -> String {
    let facts = figures.facts;
    match reason {
        Reason::WorkersSaturated => saturated(figures),
        Reason::VusersSkipped => skipped(facts),
        Reason::WorkersMissing if facts.missing_workers > 0 => {
            let (missing, workers) = (facts.missing_workers, figures.workers);
            match (missing, workers) {
                (1, 1) => {
                    "the worker left no results, so nothing shows that it sent its load".to_owned()
                }
                (1, n) => format!(
                    "1 of {n} workers left no results, so nothing shows that it sent its load"
                ),
                (m, n) => format!(
                    "{m} of {n} workers left no results, so nothing shows that they sent their load"
                ),
            }
        }
        Reason::WorkersMissing => format!(
            "only {} of {} planned virtual users were created",
            whole(facts.created),
            whole(facts.planned.unwrap_or_default())
        ),
        _ => String::new(),
    }
}

fn saturated(figures: &Figures) -> String {
    let (saturated, known) = (figures.facts.saturated_workers, figures.known_workers);
    let who = match (saturated, known) {
        (1, 1) => "the worker was saturated".to_owned(),
        (1, n) => format!("1 of {n} workers was saturated"),
        (all, n) if all == n => format!("all {n} workers were saturated"),
        (some, n) => format!("{some} of {n} workers were saturated"),
    };
    let Some(worst) = figures.worst else {
        return who;
    };
    // The delay has an error of 8 %, so the two are not compared.
    if worst.is_overdue {
        format!(
            "{who}: the load took {} instead of {}",
            seconds(worst.actual_seconds),
            seconds(worst.planned_seconds)
        )
    } else {
        format!(
            "{who}: 1% of the virtual users arrived at least {} late",
            seconds(worst.delay_seconds)
        )
    }
}

fn skipped(facts: &Facts) -> String {
    let total = facts.planned.unwrap_or(facts.created + facts.skipped);
    let were = if facts.skipped > 1.5 { "were" } else { "was" };
    format!(
        "{} of {} planned virtual users {were} skipped because maxVusers was reached",
        whole(facts.skipped),
        whole(total)
    )
}

/// What limited the worker.
fn cause(worst: &WorkerLoad) -> String {
    let index = worst.index;
    let generator = &worst.generator;
    match worst.cause() {
        Cause::Throttled => format!(
            "Worker {index} was throttled in {} of its CPU periods.",
            percent(generator.throttled_share().unwrap_or_default())
        ),
        Cause::EventLoopBusy | Cause::NodeBusy { .. } => format!(
            "The event loop of worker {index} was busy {} of the time.",
            percent(generator.utilization.unwrap_or_default())
        ),
        Cause::Unknown => format!("Worker {index} was the latest."),
    }
}

/// How to size the workers, or what else makes the test send its load. None where nothing is known.
pub(in crate::decide) fn advice(reason: Reason, figures: &Figures) -> Option<String> {
    match reason {
        Reason::WorkersSaturated => figures.worst.map(|worst| size(worst, figures)),
        Reason::VusersSkipped => Some(max_vusers(figures)),
        Reason::WorkersMissing if figures.facts.missing_workers > 0 => {
            Some("The condition ResultsComplete names the workers.".to_owned())
        }
        Reason::WorkersMissing => Some(
            "A worker or one of its threads ended early: see the logs of the workers.".to_owned(),
        ),
        _ => None,
    }
}

fn size(worst: &WorkerLoad, figures: &Figures) -> String {
    let factor = worst.factor();
    let generator = &worst.generator;
    let (sent, planned) = (number(worst.arrival_rate), number(worst.planned_rate));
    let workers = more_workers(factor, figures);
    let cpu = |of: f64| millicores((of * factor / 100.0).ceil() * 100.0);
    let advice = match (worst.cause(), generator.cpu_limit) {
        (Cause::Throttled, Some(limit)) => format!(
            "One worker with {} CPU sent {sent} virtual users/s; {planned}/s needs {}, or {workers}",
            millicores(limit),
            cpu(limit)
        ),
        (Cause::Throttled, None) => format!(
            "One worker sent {sent} virtual users/s; {planned}/s needs {} times its CPU limit, or {workers}",
            number(factor)
        ),
        (Cause::NodeBusy { cpu: used }, _) => format!(
            "One worker that received {} CPU from its node sent {sent} virtual users/s; {planned}/s needs a CPU request of {}, \
             and nodes with this much free CPU",
            millicores(used),
            cpu(used)
        ),
        (Cause::EventLoopBusy, _) => {
            let threads = generator.threads.unwrap_or(1.0);
            let s = if threads > 1.5 { "s" } else { "" };
            format!(
                "One worker with {} thread{s} sent {sent} virtual users/s; {planned}/s needs a CPU limit of {} (Artillery runs one \
                 thread per CPU), or {workers}",
                whole(threads),
                whole((threads * factor).ceil())
            )
        }
        (Cause::Unknown, _) => format!(
            "One worker sent {sent} virtual users/s instead of {planned}/s, and neither its CPU limit nor its event loop explains \
             this: check the load of its node"
        ),
    };
    match generator.memory.zip(generator.memory_limit) {
        Some((used, limit)) if worst.memory_is_full() => format!(
            "{advice}; its memory reached {} of {}, so it also needs more memory.",
            mebibytes(used),
            mebibytes(limit)
        ),
        _ => format!("{advice}."),
    }
}

/// The alternative to larger workers. Without `load: Divide`, more workers send more load.
fn more_workers(factor: f64, figures: &Figures) -> String {
    let workers = figures.workers.max(1);
    let needed = whole((factor * f64::from(workers)).ceil());
    match (figures.divides, workers) {
        (true, _) => format!("{needed} workers"),
        (false, 1) => format!("{needed} workers with load: Divide"),
        (false, n) => format!(
            "{needed} workers with load: Divide and a script of {n} times the load (more workers alone multiply the load)"
        ),
    }
}

fn max_vusers(figures: &Figures) -> String {
    let facts = figures.facts;
    let total = facts.planned.unwrap_or(facts.created + facts.skipped);
    let percent = whole((100.0 * facts.skipped / total.max(1.0)).ceil().min(100.0));
    let accept = format!("accept this with spec.loadTolerance.skippedPercent: {percent}");
    // With Divide, the script's limit is that of all workers.
    let shares = if figures.divides {
        1.0
    } else {
        f64::from(figures.workers.max(1))
    };
    let rate = figures
        .planned_seconds
        .map(|planned| total / shares / planned.max(1.0));
    match rate.zip(figures.session_ms) {
        Some((rate, session_ms)) => format!(
            "{} virtual users/s with sessions of {} need a maxVusers of about {}, more in phases with a higher rate: raise it, or \
             {accept}.",
            number(rate),
            seconds(session_ms / 1000.0),
            whole(
                (rate * session_ms / 1000.0 * MAX_VUSERS_RESERVE)
                    .ceil()
                    .max(1.0)
            ),
        ),
        None => format!("Raise maxVusers, or {accept}."),
    }
}

/// The message of the condition `Passed` of a test without a violated threshold whose load was not delivered.
pub(in crate::decide) fn inconclusive(met: usize, shortfall: &str, failures: &str) -> String {
    let but = match met {
        0 => "All workers succeeded".to_owned(),
        1 => "The threshold is met".to_owned(),
        n => format!("{n} thresholds are met"),
    };
    super::append(
        &format!("{but}, but {shortfall} (see LoadDelivered)."),
        failures,
    )
}

/// What a shortfall of the load means for violated thresholds.
pub(in crate::decide) fn violated_without_load(reason: Reason) -> &'static str {
    match reason {
        Reason::WorkersSaturated => {
            "The workers were saturated, so latencies may include their own delay (see LoadDelivered)."
        }
        _ => "The load was not delivered as planned (see LoadDelivered).",
    }
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `99%`, of a share.
pub(in crate::decide) fn percent(share: f64) -> String {
    format!("{}%", (share * 100.0).round())
}

/// `182ms`.
pub(in crate::decide) fn milliseconds(ms: f64) -> String {
    format!("{}ms", tenths(ms))
}

/// `57.4s`.
pub(in crate::decide) fn seconds(seconds: f64) -> String {
    format!("{}s", tenths(seconds))
}

/// `300m`, or `2` for whole CPUs.
pub(in crate::decide) fn millicores(millicores: f64) -> String {
    let rounded = millicores.round();
    if rounded >= 1000.0 && rounded % 1000.0 == 0.0 {
        format!("{}", rounded / 1000.0)
    } else {
        format!("{rounded}m")
    }
}

/// `512Mi`.
pub(in crate::decide) fn mebibytes(mebibytes: f64) -> String {
    format!("{}Mi", mebibytes.round())
}

/// A rate or factor: at least two digits.
fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{}", tenths(value))
    } else {
        format!("{}", value.round())
    }
}

fn whole(value: f64) -> String {
    format!("{}", value.round())
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
