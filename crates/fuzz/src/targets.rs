//! What the fuzz test runs.

use loadtest_api::v1alpha1::Threshold;
use loadtest_results::testing::message;
use loadtest_results::{Snapshot, log_tail, summarize, thresholds};

/// Code that reads text of users or workers.
pub(crate) struct Target {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// Runs it with a text.
    pub(crate) run: fn(&str),
    /// The steps that any text may take. Aliases repeat values up to a fixed size.
    pub(crate) base_steps: usize,
    /// The steps that each byte may take in addition.
    pub(crate) steps_per_byte: usize,
}

pub(crate) const TARGETS: [Target; 4] = [
    Target {
        name: "script",
        run: script,
        base_steps: 8 << 20,
        steps_per_byte: 60,
    },
    Target {
        name: "snapshot",
        run: snapshot,
        base_steps: 0,
        steps_per_byte: 0,
    },
    Target {
        name: "thresholds",
        run: evaluate,
        base_steps: 0,
        steps_per_byte: 0,
    },
    Target {
        name: "message",
        run: termination_message,
        base_steps: 0,
        steps_per_byte: 0,
    },
];

fn script(text: &str) {
    let analysis = loadtest_script::analyze(text, "a.yaml", Some("e"));
    let length = |text: &String| text.len();
    let problem = analysis.problem.map_or(0, |problem| problem.message.len());
    let warnings = analysis.warnings.iter().map(length).max().unwrap_or(0);
    let rules = analysis.ensure.into_iter().flatten();
    let rules: usize = rules.map(|rule| rule.expression.len()).sum();
    assert!(problem < 50_000 && warnings < 50_000, "a message is long");
    // Translation can lengthen a rule.
    assert!(rules < 256 << 10, "the rules are long");
}

/// The JSON of a snapshot.
fn snapshot(text: &str) {
    termination_message(&message(text));
}

fn termination_message(text: &str) {
    let _ = log_tail(text);
    let Some(Ok(measured)) = Snapshot::from_message(text).map(|snapshot| snapshot.decode()) else {
        return;
    };
    let mut all = measured.clone();
    all.merge(&measured);
    let results = summarize(&all, 2, 0);
    assert!(results.request_rate >= 0.0, "a rate is negative");
    let p95 = results.p95.unwrap_or_default();
    assert!(
        !p95.contains("inf") && !p95.contains("NaN"),
        "not finite: {p95}"
    );
}

/// The first line is the JSON of a snapshot, and each other line is a threshold.
fn evaluate(text: &str) {
    let (json, expressions) = text.split_once('\n').unwrap_or(("{}", text));
    let measured = Snapshot::from_message(&message(json))
        .and_then(|snapshot| snapshot.decode().ok())
        .unwrap_or_default();
    let all: Vec<_> = expressions.lines().map(Threshold::strict).collect();
    for threshold in all.iter().take(100) {
        let _ = thresholds::check(
            threshold
                .expression
                .get(..1000)
                .unwrap_or(&threshold.expression),
        );
    }
    let evaluations = thresholds::evaluate(&all, &measured);
    let longest = evaluations.iter().map(|one| one.observed_values().len());
    assert!(longest.max().unwrap_or(0) < 5000, "a message is long");
    let _ = thresholds::summarize_failures(&evaluations, 5);
}
