//! The table of the measurements, their targets, and those of the Go operator.

use crate::life::Figures;
use crate::plan::Plan;

/// The same measurements of the Go operator: Kubernetes 1.34, simulated nodes, two cores.
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

/// One line of a table. The target is an upper limit and the value.
pub struct Line {
    what: String,
    ours: String,
    go: &'static str,
    target: Option<(f64, f64)>,
}

impl Line {
    /// A figure with an upper limit, printed with `places` decimals.
    pub fn at_most(what: &str, value: f64, places: usize, limit: f64) -> Self {
        Self {
            what: what.into(),
            ours: format!("{value:.places$}"),
            go: "",
            target: Some((limit, value)),
        }
    }

    /// A figure without a target.
    pub fn info(what: &str, ours: String) -> Self {
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
        let target = target.map(|(limit, value)| {
            format!("{limit:.3}{}", if value <= limit { "" } else { "  MISSED" })
        });
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
    // One Job, three status writes, the events.
    let requests = plan.worker_events() as f64 + 6.0;
    let baseline_95 = quantile(&figures.baseline, 0.95);
    let at_most = |limit: Option<f64>, value: f64| limit.map(|limit| (limit, value));
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
            "LoadTest created -> Job, p50 / p95 s",
            pair(&figures.to_job),
            go.to_job,
            (!baseline_95.is_nan()).then_some((1.5 * baseline_95, job_95)),
        ),
        line(
            "  baseline of a bare client",
            pair(&figures.baseline),
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
            "requests per LoadTest, without refreshes",
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
            "writes after the end",
            figures.late_writes.to_string(),
            go.late_writes,
            Some((0.0, figures.late_writes as f64)),
        ),
        line(
            "reads after the end",
            figures.late_reads.to_string(),
            "",
            None,
        ),
        line(
            "LoadTests with missing events",
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
            "process start -> first request, p50 s",
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

/// A quantile: `part` of all values are not above it.
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

/// The usual quantiles as text.
pub fn quantiles(values: &[f64]) -> String {
    let [median, p95, max] = [0.5, 0.95, 1.0].map(|part| quantile(values, part));
    format!(
        "n={} p50 {median:.3} p95 {p95:.3} max {max:.3}",
        values.len()
    )
}
