//! The table of what was measured, beside what it is to be measured against.

use crate::{Figures, Plan};

/// What the Go operator was measured to do by the same measures: Kubernetes 1.34, simulated nodes, two cores.
struct Go {
    to_job: &'static str,
    to_finished: &'static str,
    requests: &'static str,
    status_writes: &'static str,
    late_writes: &'static str,
    rss_idle: &'static str,
    rss_peak: &'static str,
    cpu: &'static str,
}

const GO_100: Go = Go {
    to_job: "2.7 / 5.3",
    to_finished: "1.7 / 4.8",
    requests: "17.9",
    status_writes: "12.5",
    late_writes: "327",
    rss_idle: "30",
    rss_peak: "42",
    cpu: "3.7",
};

const GO_1000: Go = Go {
    to_job: "38.8 / 89.0",
    to_finished: "40.3 / 58.2",
    requests: "5.0, half of the events lost",
    status_writes: "1.9",
    late_writes: "331",
    rss_idle: "30",
    rss_peak: "91",
    cpu: "14.3",
};

const GO_OTHERWISE: Go =
    Go { to_job: "", to_finished: "", requests: "", status_writes: "", late_writes: "", rss_idle: "30", rss_peak: "", cpu: "" };

/// One line: what, ours, the Go operator's, and the most it may be.
struct Line {
    what: &'static str,
    ours: String,
    go: &'static str,
    target: Option<(f64, f64)>,
}

/// The table as text.
pub fn table(plan: &Plan, figures: &Figures) -> String {
    let size = (plan.tests, plan.count);
    let (go, to_job, to_finished, peak) = match size {
        (100, 2) => (GO_100, Some(0.5), Some(1.0), None),
        (1000, 2) => (GO_1000, Some(9.0), None, Some(24.0)),
        _ => (GO_OTHERWISE, None, None, None),
    };
    let requests = plan.worker_events() as f64 + 7.0;
    let at_most = |limit: Option<f64>, is: f64| limit.map(|limit| (limit, is));
    let line = |what, ours: String, go, target| Line { what, ours, go, target };
    let (job_95, finished_95) = (quantile(&figures.to_job, 0.95), quantile(&figures.to_finished, 0.95));
    let pair = |values: &[f64]| format!("{:.3} / {:.3}", quantile(values, 0.5), quantile(values, 0.95));
    let lines = [
        line("LoadTest created -> Job seen, p50 / p95 s", pair(&figures.to_job), go.to_job, at_most(to_job, job_95)),
        line("(floor: a bare client creates a Job, p50 / p95 s)", pair(&figures.floor), "", None),
        line(
            "Job finished -> LoadTest finished, p50 / p95 s",
            pair(&figures.to_finished),
            go.to_finished,
            at_most(to_finished, finished_95),
        ),
        line(
            "requests per LoadTest, besides refreshes",
            format!("{:.2}", figures.requests),
            go.requests,
            Some((requests, figures.requests)),
        ),
        line("status writes per LoadTest, with refreshes", format!("{:.2}", figures.status_writes), go.status_writes, None),
        line(
            "writes after everything has finished",
            figures.late_writes.to_string(),
            go.late_writes,
            Some((0.0, figures.late_writes as f64)),
        ),
        line("reads after everything has finished", figures.late_reads.to_string(), "", None),
        line(
            "LoadTests that lack an event",
            figures.without_all_events.to_string(),
            "",
            Some((0.0, figures.without_all_events as f64)),
        ),
        line("RSS idle, MiB", format!("{:.1}", figures.rss_idle), go.rss_idle, Some((10.0, figures.rss_idle))),
        line("RSS peak, MiB", format!("{:.1}", figures.rss_peak), go.rss_peak, at_most(peak, figures.rss_peak)),
        line("CPU, s", format!("{:.1}", figures.cpu), go.cpu, None),
        line("process start -> first look, p50 s", format!("{:.3}", quantile(&figures.start, 0.5)), "", None),
    ];
    let mut text = row(&format!("{} x {}", plan.tests, plan.count), "ours", "Go operator", "target");
    text += &row(&"-".repeat(50), &"-".repeat(16), &"-".repeat(28), &"-".repeat(20));
    for Line { what, ours, go, target } in lines {
        let target = target.map(|(limit, is)| format!("{limit}{}", if is <= limit { "" } else { "  MISSED" }));
        text += &row(what, &ours, go, target.as_deref().unwrap_or_default());
    }
    text
}

fn row(what: &str, ours: &str, go: &str, target: &str) -> String {
    format!("| {what:50} | {ours:16} | {go:28} | {target:20} |\n")
}

/// The value that this part of all values is not above.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The usual quantiles in words.
pub fn quantiles(values: &[f64]) -> String {
    let [median, most, max] = [0.5, 0.95, 1.0].map(|part| quantile(values, part));
    format!("n={} p50 {median:.3} p95 {most:.3} max {max:.3}", values.len())
}
