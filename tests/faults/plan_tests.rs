//! Which faults are tried, and in which order.

use super::*;

fn point(verb: &str, resource: &str, occurrence: usize) -> Point {
    Point {
        verb: verb.into(),
        resource: resource.into(),
        occurrence,
    }
}

fn plan() -> Vec<Run> {
    let points = vec![
        point("create", "jobs", 1),
        point("watch", "pods", 1),
        point("patch", "loadtests/status", 2),
    ];
    all(&[
        (Scenario::Completes, points.clone()),
        (Scenario::Fails, points),
    ])
}

#[test]
fn run_names_are_unique_and_contain_place_and_fault() {
    let names: Vec<String> = plan().iter().map(ToString::to_string).collect();
    let unique: std::collections::HashSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert!(names.contains(&"completes: create jobs 1: KilledBefore".to_owned()));
    assert!(names.contains(
        &"fails: patch loadtests/status 2: 429 (Retry-After 3600) UntilHealed".to_owned()
    ));
    assert!(names.contains(&"fails: Running: cluster JobDeleted".to_owned()));
    assert!(names.contains(&"completes: port HighCounts".to_owned()));
}

#[test]
fn only_writes_are_sent_twice() {
    let twice = |verb, resource| {
        faults_of(&point(verb, resource, 1))
            .iter()
            .any(|f| matches!(f, Fault::Request(_, RequestFault::SentTwice)))
    };
    assert!(twice("create", "jobs"));
    assert!(!twice("get", "configmaps") && !twice("watch", "jobs"));
}

#[test]
fn first_runs_cover_every_kind_and_depend_only_on_the_seed() {
    let kinds: std::collections::BTreeSet<String> = plan().iter().map(|r| r.fault.kind()).collect();
    let chosen = evenly(plan(), 7);
    let first = &chosen[..kinds.len()];
    assert_eq!(
        first
            .iter()
            .map(|r| r.fault.kind())
            .collect::<std::collections::BTreeSet<_>>(),
        kinds
    );
    assert_eq!(chosen, evenly(plan(), 7));
    assert_ne!(chosen, evenly(plan(), 8));
}
