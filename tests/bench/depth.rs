//! One test of many workers.

use std::time::{Duration, Instant, SystemTime};

use kube::Client;

use crate::seen::Seen;
use crate::standing::{count, kinds};
use crate::table::{Line, print};
use crate::{NAMESPACE, Plan, audit, create_all, load};

pub async fn measure(client: &Client, plan: &Plan) {
    let offset = audit::length(&plan.audit_log);
    let seen = Seen::follow(client, NAMESPACE).await;
    let mut operator = plan.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let idle = operator.memory();
    let begun = Instant::now();
    create_all(
        client,
        &Plan {
            tests: 1,
            ..plan.clone()
        },
        &seen,
    )
    .await;
    let mut most: f64 = 0.0;
    while seen.finished() < 1 && begun.elapsed() < plan.limit && operator.is_alive() {
        most = most.max(operator.memory().rss);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(plan.quiet).await;
    let requests = audit::requests(&plan.audit_log, offset, &plan.operator_user);
    println!(
        "ended {took:.0} s after its creation; load average {}; {:?}; {:?}",
        load(),
        kinds(&requests),
        seen.writes()
    );
    let mut writes: Vec<_> = requests
        .iter()
        .filter(|r| r.kind() == "patch loadtests/status")
        .map(|r| r.received)
        .collect();
    writes.sort();
    let close = writes
        .windows(2)
        .filter(|w| w[1].duration_since(w[0]).unwrap_or_default() < Duration::from_secs(2))
        .count();
    let told = seen
        .job_finished_to_finished()
        .first()
        .copied()
        .unwrap_or(f64::NAN);
    let mut tellings: Vec<_> = requests
        .iter()
        .filter(|r| r.kind() == "patch pods")
        .map(|r| r.received)
        .collect();
    tellings.sort();
    let first = tellings.first().copied().unwrap_or(SystemTime::UNIX_EPOCH);
    let ready = audit::pod_statuses(&plan.audit_log, offset)
        .into_iter()
        .filter(|at| *at < first)
        .max();
    // At the earliest, where some are told again before the last is told.
    let last = tellings.get(plan.count.saturating_sub(1)).copied();
    let all_told = ready
        .zip(last)
        .and_then(|(ready, last)| last.duration_since(ready).ok())
        .map_or(f64::NAN, |d| d.as_secs_f64());
    let cpu = operator.cpu();
    operator.terminate().await;
    print(
        &format!("one LoadTest of {} workers", plan.count),
        &[
            // The phases are told at once: its intent, its Job, all of its workers running, its end.
            Line::at_most("status writes", count(writes.len()), 0, 4.0 + took / 2.0),
            Line::told("of these less than 2 s after another", close.to_string()),
            Line::at_most(
                "RSS a pod, at most, KiB",
                (most - idle.rss) * 1024.0 / count(plan.count),
                2,
                2.0,
            ),
            Line::at_most("Job finished -> LoadTest finished, s", told, 2, 2.0),
            Line::at_most(
                "last worker ready -> all told when to begin, s",
                all_told,
                2,
                5.0,
            ),
            Line::told(
                "workers told again",
                tellings.len().saturating_sub(plan.count).to_string(),
            ),
            Line::told(
                "CPU, ms a worker",
                format!("{:.2}", cpu * 1000.0 / count(plan.count)),
            ),
        ],
    );
    assert!(seen.finished() == 1, "the test is unfinished");
}
