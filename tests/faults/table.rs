//! What is printed of runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::history;
use crate::run::RunResult;

/// Prints the violations of a run, with what is needed to understand and repeat it. Returns whether there are any.
pub fn print_violations(result: &RunResult) -> bool {
    for violation in &result.violations {
        println!(
            "VIOLATION {}: {}: {}",
            violation.invariant, result.run, violation.what
        );
    }
    if result.violations.is_empty() {
        return false;
    }
    println!("  repeat: hack/test-faults.sh --only '{}'", result.run);
    println!(
        "  the history of its objects:\n{}",
        history::format(&result.history)
    );
    println!("  requests that reached the API server:");
    let first = result.sent.first().map(|s| s.at);
    for sent in &result.sent {
        println!(
            "  {:7.3} {}: {}",
            first.map_or(0.0, |f| (sent.at - f).as_secs_f64()),
            sent.point,
            sent.code
        );
    }
    println!("  the operator's log:");
    result.log.lines().for_each(|line| println!("  {line}"));
    true
}

/// A row for each kind of fault.
pub fn table(results: &[RunResult]) -> String {
    #[derive(Default)]
    struct Row {
        faults: usize,
        not_reached: usize,
        violations: usize,
        longest: f64,
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for result in results {
        for kind in [result.run.fault.kind(), "~all".into()] {
            let row = rows.entry(kind).or_default();
            row.faults += 1;
            row.not_reached += usize::from(!result.reached);
            row.violations += usize::from(!result.violations.is_empty());
            row.longest = row.longest.max(result.took.as_secs_f64());
        }
    }
    let mut text = format!(
        "{:34} {:>6} {:>12} {:>11} {:>11}\n",
        "fault", "runs", "not reached", "violations", "longest, s"
    );
    for (kind, row) in rows {
        let kind = kind.trim_start_matches('~');
        writeln!(
            text,
            "{kind:34} {:6} {:12} {:11} {:11.1}",
            row.faults, row.not_reached, row.violations, row.longest
        )
        .unwrap();
    }
    text
}
