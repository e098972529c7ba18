#![allow(clippy::unwrap_used)]

use loadtest_results::Generator;

use super::*;

/// A worker that took 57.4 s instead of 20 s for 8000 virtual users, with a CPU limit of 300m.
fn throttled() -> WorkerLoad {
    WorkerLoad {
        index: 0,
        generator: Generator {
            threads: Some(1.0),
            utilization: Some(0.99),
            loop_delay_ms: Some(182.0),
            throttled: Some(315.0),
            periods: Some(323.0),
            throttled_ms: Some(41_200.0),
            cpu_ms: Some(17_100.0),
            cpu_limit: Some(300.0),
            memory: Some(143.0),
            memory_limit: Some(512.0),
        },
        planned_seconds: 20.0,
        actual_seconds: 57.4,
        sent: 2787.0,
        planned_rate: 400.0,
        arrival_rate: 8000.0 / 57.4,
        delay_seconds: 36.6,
        is_overdue: true,
        is_saturated: true,
    }
}

/// The same worker with other measurements.
fn with(change: impl FnOnce(&mut WorkerLoad)) -> WorkerLoad {
    let mut worker = throttled();
    change(&mut worker);
    worker
}

/// A worker whose event loop is always busy, and that no limit throttles.
fn busy(threads: f64, cpu_ms: Option<f64>) -> WorkerLoad {
    with(|worker| {
        worker.generator.throttled = Some(0.0);
        worker.generator.cpu_limit = None;
        worker.generator.threads = Some(threads);
        worker.generator.cpu_ms = cpu_ms;
    })
}

fn figures<'a>(
    facts: &'a Facts,
    worst: &'a WorkerLoad,
    workers: u32,
    divides: bool,
) -> Figures<'a> {
    Figures {
        facts,
        planned_seconds: Some(20.0),
        delay_ms: None,
        session_ms: None,
        workers,
        known_workers: workers,
        divides,
        worst: Some(worst),
    }
}

#[test]
fn size_of_a_saturated_worker_follows_from_its_measurements() {
    let divide =
        "with load: Divide and a script of 4 times the load (more workers alone multiply the load)";
    let cases = [
        (
            throttled(),
            1,
            false,
            "One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 3 workers with load: Divide.".to_owned(),
        ),
        (
            throttled(),
            4,
            true,
            "One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 12 workers.".to_owned(),
        ),
        (
            throttled(),
            4,
            false,
            format!("One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 12 workers {divide}."),
        ),
        // Late arrivals that were caught up.
        (
            with(|w| {
                w.actual_seconds = 20.0;
                w.arrival_rate = 400.0;
                w.delay_seconds = 4.0;
            }),
            1,
            true,
            "One worker with 300m CPU sent 400 virtual users/s; 400/s needs 400m, or 2 workers.".to_owned(),
        ),
        (
            with(|w| {
                w.generator.cpu_limit = Some(700.0);
                w.arrival_rate = 140.0;
            }),
            1,
            true,
            "One worker with 700m CPU sent 140 virtual users/s; 400/s needs 2, or 3 workers.".to_owned(),
        ),
        (
            with(|w| w.generator.cpu_limit = None),
            1,
            true,
            "One worker sent 139 virtual users/s; 400/s needs 2.9 times its CPU limit, or 3 workers.".to_owned(),
        ),
        (
            busy(1.0, Some(54_000.0)),
            1,
            true,
            "One worker with 1 thread sent 139 virtual users/s; 400/s needs a CPU limit of 3 (Artillery runs one thread per CPU), or \
             3 workers."
                .to_owned(),
        ),
        (
            busy(2.0, None),
            1,
            false,
            "One worker with 2 threads sent 139 virtual users/s; 400/s needs a CPU limit of 6 (Artillery runs one thread per CPU), or \
             3 workers with load: Divide."
                .to_owned(),
        ),
        (
            busy(1.0, Some(17_220.0)),
            1,
            true,
            "One worker that received 300m CPU from its node sent 139 virtual users/s; 400/s needs a CPU request of 900m, and nodes \
             with this much free CPU."
                .to_owned(),
        ),
        // Phases of different rates: the event loop was busy only for a part of the time.
        (
            with(|w| {
                w.generator.throttled = Some(1.0);
                w.generator.utilization = Some(0.5);
                w.generator.loop_delay_ms = Some(250.0);
                w.generator.cpu_ms = Some(28_700.0);
            }),
            1,
            true,
            "One worker with 1 thread sent 139 virtual users/s; 400/s needs a CPU limit of 3 (Artillery runs one thread per CPU), or \
             3 workers."
                .to_owned(),
        ),
        (
            with(|w| w.generator = Generator::default()),
            1,
            true,
            "One worker sent 139 virtual users/s instead of 400/s, and neither its CPU limit nor its event loop explains this: check \
             the load of its node."
                .to_owned(),
        ),
        (
            with(|w| w.generator.memory = Some(480.0)),
            1,
            true,
            "One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 3 workers; its memory reached 480Mi of 512Mi, so \
             it also needs more memory."
                .to_owned(),
        ),
    ];
    for (worker, workers, divides, expected) in cases {
        let facts = Facts {
            saturated_workers: 1,
            ..Facts::default()
        };
        let figures = figures(&facts, &worker, workers, divides);
        assert_eq!(
            advice(Reason::WorkersSaturated, &figures),
            Some(expected),
            "{worker:?}"
        );
    }
}

#[test]
fn a_worker_without_arrivals_has_finite_advice() {
    let worker = with(|w| w.arrival_rate = 0.0);
    let facts = Facts::default();
    let advice = advice(Reason::WorkersSaturated, &figures(&facts, &worker, 1, true)).unwrap();
    assert!(advice.contains("needs 300, or 1000 workers"), "{advice}");
}

#[test]
fn limit_of_virtual_users_follows_from_rate_and_session_length() {
    let facts = Facts {
        planned: Some(400.0),
        created: 24.0,
        skipped: 376.0,
        ..Facts::default()
    };
    let worker = throttled();
    for (workers, divides, session_ms, expected) in [
        (
            1,
            false,
            Some(2000.0),
            "20 virtual users/s with sessions of 2s need a maxVusers of about 48, more in phases with a higher rate: raise it, or \
             accept this with spec.loadTolerance.skippedPercent: 94.",
        ),
        // Each worker has the limit of the script.
        (
            4,
            false,
            Some(2000.0),
            "5 virtual users/s with sessions of 2s need a maxVusers of about 12, more in phases with a higher rate: raise it, or \
             accept this with spec.loadTolerance.skippedPercent: 94.",
        ),
        // The workers share the limit of the script.
        (
            4,
            true,
            Some(2000.0),
            "20 virtual users/s with sessions of 2s need a maxVusers of about 48, more in phases with a higher rate: raise it, or \
             accept this with spec.loadTolerance.skippedPercent: 94.",
        ),
        (
            1,
            true,
            None,
            "Raise maxVusers, or accept this with spec.loadTolerance.skippedPercent: 94.",
        ),
    ] {
        let figures = Figures {
            session_ms,
            ..figures(&facts, &worker, workers, divides)
        };
        assert_eq!(
            advice(Reason::VusersSkipped, &figures).as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn saturated_workers_are_counted_in_words() {
    let caught_up = with(|w| {
        w.actual_seconds = 20.0;
        w.is_overdue = false;
        w.delay_seconds = 3.21;
    });
    // Within its error, the delay can exceed the time that the phases took too long.
    let delayed = with(|w| w.delay_seconds = 38.0);
    for (saturated, known, worker, expected) in [
        (
            1,
            1,
            &throttled(),
            "the worker was saturated: the load took 57.4s instead of 20s",
        ),
        (
            1,
            1,
            &delayed,
            "the worker was saturated: the load took 57.4s instead of 20s",
        ),
        (
            1,
            4,
            &throttled(),
            "1 of 4 workers was saturated: the load took 57.4s instead of 20s",
        ),
        (
            2,
            4,
            &caught_up,
            "2 of 4 workers were saturated: 1% of the virtual users arrived at least 3.2s late",
        ),
        (
            4,
            4,
            &caught_up,
            "all 4 workers were saturated: 1% of the virtual users arrived at least 3.2s late",
        ),
    ] {
        let facts = Facts {
            saturated_workers: saturated,
            ..Facts::default()
        };
        assert_eq!(
            shortfall(
                Reason::WorkersSaturated,
                &figures(&facts, worker, known, false)
            ),
            expected
        );
    }
}

#[test]
fn quantities_are_written_as_in_manifests() {
    assert_eq!(
        [
            millicores(299.6),
            millicores(999.7),
            millicores(1700.0),
            millicores(2000.0),
            mebibytes(143.4),
            percent(0.975),
            seconds(57.36),
            seconds(20.0),
            milliseconds(182.04)
        ],
        [
            "300m", "1", "1700m", "2", "143Mi", "98%", "57.4s", "20s", "182ms"
        ]
    );
}
