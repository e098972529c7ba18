//! What is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::history;
use crate::world::Verdict;

/// Tells the violations of a run, with what is needed to understand and repeat it; whether there are any.
pub fn tell_violations(verdict: &Verdict) -> bool {
    for violation in &verdict.violations {
        println!(
            "VIOLATION {}: {}: {}",
            violation.invariant, verdict.run, violation.what
        );
    }
    if verdict.violations.is_empty() {
        return false;
    }
    println!("  again: hack/test-faults.sh --only '{}'", verdict.run);
    println!(
        "  the history of its objects:\n{}",
        history::tell(&verdict.history)
    );
    println!("  requests that reached the API server:");
    let first = verdict.sent.first().map(|s| s.at);
    for sent in &verdict.sent {
        println!(
            "  {:7.3} {}: {}",
            first.map_or(0.0, |f| (sent.at - f).as_secs_f64()),
            sent.point,
            sent.code
        );
    }
    println!("  the operator's log:");
    verdict.log.lines().for_each(|line| println!("  {line}"));
    true
}

/// A row for each kind of fault.
pub fn table(verdicts: &[Verdict]) -> String {
    #[derive(Default)]
    struct Row {
        faults: usize,
        not_reached: usize,
        violations: usize,
        longest: f64,
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for verdict in verdicts {
        for kind in [verdict.run.fault.kind(), "~all".into()] {
            let row = rows.entry(kind).or_default();
            row.faults += 1;
            row.not_reached += usize::from(!verdict.reached);
            row.violations += usize::from(!verdict.violations.is_empty());
            row.longest = row.longest.max(verdict.took.as_secs_f64());
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
