//! The rule that judges the load of a test, as tables.

use loadtest_api::v1alpha1::{LoadTestSpec, LoadTolerance};

use super::*;
use crate::decide::delivery::{Facts, Tolerance, WorkerLoad, judge};

fn tolerance(users: i32, time: i32, skipped: i32) -> Tolerance {
    let tolerance = LoadTolerance {
        users_percent: Some(users),
        time_percent: Some(time),
        skipped_percent: Some(skipped),
    };
    Tolerance::of(&LoadTestSpec {
        load_tolerance: Some(tolerance),
        ..test(1).spec
    })
}

/// How the rule judges a load of 1000 virtual users after this change.
fn judged(change: fn(&mut Facts), accepted: Option<[i32; 3]>) -> (Option<bool>, Reason) {
    let mut facts = Facts {
        is_completed: true,
        missing_workers: 0,
        saturated_workers: 0,
        planned: Some(1000.0),
        due: 1000.0,
        random: 0.0,
        created: 1000.0,
        skipped: 0.0,
    };
    change(&mut facts);
    let [users, time, skipped] = accepted.unwrap_or([1, 10, 1]);
    let tolerance = match accepted {
        Some(_) => tolerance(users, time, skipped),
        None => Tolerance::of(&test(1).spec),
    };
    judge(&facts, tolerance)
}

/// A change of the facts, the tolerances, and the judgement.
type Case = (fn(&mut Facts), Option<[i32; 3]>, Option<bool>, Reason);

#[test]
fn first_rule_that_applies_judges_the_load_of_a_completed_test() {
    let cases: [Case; 19] = [
        (|_| {}, None, Some(true), Reason::AsPlanned),
        (
            |f| f.saturated_workers = 1,
            None,
            Some(false),
            Reason::WorkersSaturated,
        ),
        // Saturation explains skipped virtual users.
        (
            |f| (f.saturated_workers, f.created, f.skipped) = (1, 500.0, 500.0),
            None,
            Some(false),
            Reason::WorkersSaturated,
        ),
        (
            |f| (f.created, f.skipped) = (990.0, 10.0),
            None,
            Some(true),
            Reason::AsPlanned,
        ),
        (
            |f| (f.created, f.skipped) = (989.0, 11.0),
            None,
            Some(false),
            Reason::VusersSkipped,
        ),
        (
            |f| (f.created, f.skipped) = (6.0, 994.0),
            Some([1, 10, 100]),
            Some(true),
            Reason::AsPlanned,
        ),
        (
            |f| (f.created, f.skipped) = (999.0, 1.0),
            Some([1, 10, 0]),
            Some(false),
            Reason::VusersSkipped,
        ),
        // Skipping needs no plan.
        (
            |f| (f.planned, f.created, f.skipped) = (None, 6.0, 94.0),
            None,
            Some(false),
            Reason::VusersSkipped,
        ),
        (|f| f.planned = None, None, None, Reason::PlanUnknown),
        (
            |f| f.missing_workers = 1,
            None,
            Some(false),
            Reason::WorkersMissing,
        ),
        (
            |f| (f.missing_workers, f.planned) = (1, None),
            None,
            Some(false),
            Reason::WorkersMissing,
        ),
        (|f| f.created = 990.0, None, Some(true), Reason::AsPlanned),
        (
            |f| f.created = 989.0,
            None,
            Some(false),
            Reason::WorkersMissing,
        ),
        (
            |f| f.created = 900.0,
            Some([10, 10, 1]),
            Some(true),
            Reason::AsPlanned,
        ),
        // A Poisson process: four standard deviations of 31.6 virtual users, and 1 %.
        (
            |f| (f.random, f.created) = (1000.0, 864.0),
            None,
            Some(true),
            Reason::AsPlanned,
        ),
        (
            |f| (f.random, f.created) = (1000.0, 863.0),
            None,
            Some(false),
            Reason::WorkersMissing,
        ),
        (
            |f| (f.random, f.created) = (1000.0, 1200.0),
            None,
            Some(true),
            Reason::AsPlanned,
        ),
        (
            |f| (f.planned, f.due, f.created) = (Some(0.0), 0.0, 0.0),
            None,
            Some(true),
            Reason::AsPlanned,
        ),
        // Surplus virtual users are no shortfall.
        (|f| f.created = 2000.0, None, Some(true), Reason::AsPlanned),
    ];
    for (row, (change, accepted, delivered, reason)) in cases.into_iter().enumerate() {
        assert_eq!(judged(change, accepted), (delivered, reason), "row {row}");
    }
}

#[test]
fn test_that_did_not_complete_is_compared_with_what_was_due() {
    let cases: [Case; 4] = [
        (|f| f.created = 480.0, None, None, Reason::NotCompleted),
        (|f| f.missing_workers = 1, None, None, Reason::NotCompleted),
        (
            |f| (f.created, f.skipped) = (494.0, 6.0),
            None,
            Some(false),
            Reason::VusersSkipped,
        ),
        (
            |f| f.saturated_workers = 1,
            None,
            Some(false),
            Reason::WorkersSaturated,
        ),
    ];
    for (row, (change, accepted, delivered, reason)) in cases.into_iter().enumerate() {
        let mut facts = Facts {
            planned: Some(1000.0),
            due: 500.0,
            created: 500.0,
            ..Facts::default()
        };
        change(&mut facts);
        assert_eq!(accepted, None);
        let judgement = judge(&facts, Tolerance::of(&test(1).spec));
        assert_eq!(judgement, (delivered, reason), "row {row}");
    }
}

#[test]
fn worker_is_saturated_only_if_it_is_late_beyond_the_tolerance() {
    for (planned_ms, actual_ms, delay_ms, time_percent, expected) in [
        // A short test on a busy node.
        (1000.0, 2900.0, 1800.0, 10, false),
        (1000.0, 3100.0, 10.0, 10, true),
        // A very busy node: the first virtual users are late, and the last ones are not.
        (10_000.0, 11_700.0, 4500.0, 10, false),
        (10_000.0, 11_700.0, 5500.0, 10, true),
        (5000.0, 6900.0, 10.0, 10, false),
        // Half the CPU that the load needs.
        (5000.0, 10_000.0, 4900.0, 10, true),
        (20_000.0, 21_900.0, 1800.0, 10, false),
        (60_000.0, 65_900.0, 10.0, 10, false),
        (60_000.0, 66_100.0, 10.0, 10, true),
        (60_000.0, 66_100.0, 10.0, 20, false),
        // Arrivals that were caught up before the end.
        (60_000.0, 60_000.0, 5000.0, 10, false),
        (60_000.0, 60_000.0, 7000.0, 10, true),
        (60_000.0, 61_900.0, 10.0, 0, false),
        // The load ran shorter than planned.
        (60_000.0, 50_000.0, 1.0, 10, false),
        (0.0, 0.0, 1.0, 10, false),
    ] {
        let reported = Reported {
            load: [10.0, 10.0, planned_ms, actual_ms, 0.0],
            delay_ms,
            ..HEALTHY
        };
        let load = WorkerLoad::new(0, &reported.measured(), tolerance(1, time_percent, 1)).unwrap();
        assert_eq!(load.is_saturated, expected, "{reported:?} {time_percent}%");
    }
}
