//! One test with many workers.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use kube::Client;

use crate::existing_load::{count, kinds};
use crate::plan::Plan;
use crate::resource_usage::ResourceUsage;
use crate::support::audit;
use crate::table::{Line, print};
use crate::watch_recorder::WatchRecorder;
use crate::{NAMESPACE, create_all, load_average};

pub async fn measure(client: &Client, plan: &Plan) {
    let offset = audit::length(&plan.audit_log);
    let recorder = WatchRecorder::follow(client, NAMESPACE).await;
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
        &recorder,
    )
    .await;
    let mut max_rss: f64 = 0.0;
    while recorder.finished() < 1 && begun.elapsed() < plan.limit && operator.is_alive() {
        max_rss = max_rss.max(operator.memory().rss);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(plan.quiet).await;
    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    println!(
        "ended {took:.0} s after its creation; load average {}; {:?}; {:?}",
        load_average(),
        kinds(&requests),
        recorder.writes()
    );
    let mut writes: Vec<_> = requests
        .iter()
        .filter(|r| r.kind() == "patch loadtests/status")
        .map(|r| r.received)
        .collect();
    writes.sort();
    let in_quick_succession = writes
        .windows(2)
        .filter(|w| w[1].duration_since(w[0]).unwrap_or_default() < Duration::from_secs(2))
        .count();
    let reported = recorder
        .job_finished_to_finished()
        .first()
        .copied()
        .unwrap_or(f64::NAN);
    let mut start_patches: Vec<_> = requests
        .iter()
        .filter(|r| r.kind() == "patch pods")
        .map(|r| r.received)
        .collect();
    start_patches.sort();
    let first = start_patches
        .first()
        .copied()
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let ready = pod_status_writes(&plan.audit_log, offset)
        .into_iter()
        .filter(|at| *at < first)
        .max();
    // A lower bound if some patches are repeated before the last worker is patched.
    let last = start_patches.get(plan.count.saturating_sub(1)).copied();
    let all_sent = ready
        .zip(last)
        .and_then(|(ready, last)| last.duration_since(ready).ok())
        .map_or(f64::NAN, |d| d.as_secs_f64());
    let cpu = operator.cpu_seconds();
    operator.terminate().await;
    print(
        &format!("one LoadTest of {} workers", plan.count),
        &[
            // Besides refreshes: the status before the Job, with the Job, with all workers running, and at the end.
            Line::at_most("status writes", count(writes.len()), 0, 4.0 + took / 2.0),
            Line::info(
                "of which less than 2 s after another",
                in_quick_succession.to_string(),
            ),
            Line::at_most(
                "RSS per pod, at most, KiB",
                (max_rss - idle.rss) * 1024.0 / count(plan.count),
                2,
                2.0,
            ),
            Line::at_most("Job finished -> LoadTest finished, s", reported, 2, 2.0),
            Line::at_most(
                "last worker ready -> start time sent to all, s",
                all_sent,
                2,
                5.0,
            ),
            Line::info(
                "repeated start times",
                start_patches.len().saturating_sub(plan.count).to_string(),
            ),
            Line::info(
                "CPU, ms per worker",
                format!("{:.2}", cpu * 1000.0 / count(plan.count)),
            ),
        ],
    );
    assert!(recorder.finished() == 1, "the test is unfinished");
}

/// When the simulated nodes wrote the status of a pod.
fn pod_status_writes(log: &Path, since: u64) -> Vec<SystemTime> {
    audit::requests(log, since, r#""subresource":"status""#)
        .filter(|r| r.kind() == "patch pods/status" && r.code == 200)
        .map(|r| r.received)
        .collect()
}
