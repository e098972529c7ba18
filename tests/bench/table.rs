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

const GO_OTHERWISE: Go = Go {
    to_job: "",
    to_finished: "",
    requests: "",
    status_writes: "",
    late_writes: "",
    rss_idle: "30",
    rss_peak: "",
    cpu: "",
};

/// One line: what, ours, the Go operator's, and the most it may be, with what it is.
pub struct Line {
    what: String,
    ours: String,
    go: &'static str,
    target: Option<(f64, f64)>,
}

impl Line {
    /// A figure that may be at most so much, with so many places.
    pub fn at_most(what: &str, is: f64, places: usize, limit: f64) -> Self {
        Self {
            what: what.into(),
            ours: format!("{is:.places$}"),
            go: "",
            target: Some((limit, is)),
        }
    }

    /// A figure without a target.
    pub fn told(what: &str, ours: String) -> Self {
        Self {
            what: what.into(),
            ours,
            go: "",
            target: None,
        }
    }
}

/// Prints the table of a case.
pub fn print(title: &str, lines: &[Line]) {
    println!("\n{}", text(title, lines));
}

fn text(title: &str, lines: &[Line]) -> String {
    let mut text = row(title, "ours", "Go operator", "target");
    text += &row(
        &"-".repeat(56),
        &"-".repeat(16),
        &"-".repeat(28),
        &"-".repeat(16),
    );
    for Line {
        what,
        ours,
        go,
        target,
    } in lines
    {
        let target = target
            .map(|(limit, is)| format!("{limit:.3}{}", if is <= limit { "" } else { "  MISSED" }));
        text += &row(what, ours, go, target.as_deref().unwrap_or_default());
    }
    text
}

/// The table as text.
pub fn table(plan: &Plan, figures: &Figures) -> String {
    let size = (plan.tests, plan.count);
    let (go, peak) = match size {
        (100, 2) => (GO_100, None),
        (1000, 2) => (GO_1000, Some(24.0)),
        _ => (GO_OTHERWISE, None),
    };
    // One Job, three writes of the status, the events.
    let requests = plan.worker_events() as f64 + 6.0;
    let floor_95 = quantile(&figures.floor, 0.95);
    let at_most = |limit: Option<f64>, is: f64| limit.map(|limit| (limit, is));
    let line = |what: &str, ours: String, go, target| Line {
        what: what.into(),
        ours,
        go,
        target,
    };
    let (job_95, finished_95) = (
        quantile(&figures.to_job, 0.95),
        quantile(&figures.to_finished, 0.95),
    );
    let pair = |values: &[f64]| {
        format!(
            "{:.3} / {:.3}",
            quantile(values, 0.5),
            quantile(values, 0.95)
        )
    };
    let lines = [
        line(
            "LoadTest created -> Job seen, p50 / p95 s",
            pair(&figures.to_job),
            go.to_job,
            (!floor_95.is_nan()).then_some((1.5 * floor_95, job_95)),
        ),
        line(
            "  a bare client: LoadTest created -> Job seen",
            pair(&figures.floor),
            "",
            None,
        ),
        line(
            "Job finished -> LoadTest finished, p50 / p95 s",
            pair(&figures.to_finished),
            go.to_finished,
            Some((2.0, finished_95)),
        ),
        line(
            "requests per LoadTest, besides refreshes",
            format!("{:.2}", figures.requests),
            go.requests,
            Some((requests, figures.requests)),
        ),
        line(
            "status writes per LoadTest, with refreshes",
            format!("{:.2}", figures.status_writes),
            go.status_writes,
            None,
        ),
        line(
            "writes after everything has finished",
            figures.late_writes.to_string(),
            go.late_writes,
            Some((0.0, figures.late_writes as f64)),
        ),
        line(
            "reads after everything has finished",
            figures.late_reads.to_string(),
            "",
            None,
        ),
        line(
            "LoadTests that lack an event",
            figures.without_all_events.to_string(),
            "",
            Some((0.0, figures.without_all_events as f64)),
        ),
        line(
            "RSS idle, MiB",
            format!("{:.1}", figures.rss_idle),
            go.rss_idle,
            Some((8.0, figures.rss_idle)),
        ),
        line(
            "RSS peak, MiB",
            format!("{:.1}", figures.rss_peak),
            go.rss_peak,
            at_most(peak, figures.rss_peak),
        ),
        line("CPU, s", format!("{:.1}", figures.cpu), go.cpu, None),
        line(
            "process start -> first look, p50 s",
            format!("{:.3}", quantile(&figures.start, 0.5)),
            "",
            Some((0.3, quantile(&figures.start, 0.5))),
        ),
    ];
    text(&format!("{} x {}", plan.tests, plan.count), &lines)
}

fn row(what: &str, ours: &str, go: &str, target: &str) -> String {
    format!("| {what:56} | {ours:16} | {go:28} | {target:16} |\n")
}

/// The value that this part of all values is not above.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (sorted.len() as f64 * part) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The usual quantiles in words.
pub fn quantiles(values: &[f64]) -> String {
    let [median, most, max] = [0.5, 0.95, 1.0].map(|part| quantile(values, part));
    format!(
        "n={} p50 {median:.3} p95 {most:.3} max {max:.3}",
        values.len()
    )
}
