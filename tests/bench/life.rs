//! The life of many LoadTests: how soon they start and are reported as finished, and what they cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use loadtest_api::v1alpha1::LoadTest;

use crate::plan::Plan;
use crate::resource_usage::ResourceUsage;
use crate::support::audit::{self, Request};
use crate::support::objects::from;
use crate::watch_recorder::{self, WatchRecorder};
use crate::{
    NAMESPACE, START, baseline, create_all, is_for_one_test, load_average, load_test, start_nodes,
    table, until,
};

/// How long writes that belong to the last test may still arrive after its end.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// How often the start of the operator is measured.
const STARTS: usize = 3;

/// The measurements of the table.
#[derive(Default)]
pub struct Figures {
    pub start: Vec<f64>,
    pub to_job: Vec<f64>,
    pub to_finished: Vec<f64>,
    pub requests: f64,
    pub status_writes: f64,
    pub late_writes: usize,
    pub late_reads: usize,
    pub rss_idle: f64,
    pub rss_peak: f64,
    pub cpu: f64,
    pub baseline: Vec<f64>,
    pub without_all_events: usize,
    pub unfinished: usize,
}

/// Measures the operator, and then the baseline.
pub async fn measure(client: &Client, plan: &Plan) {
    let _nodes = start_nodes(client, plan).await;
    let mut figures = Figures {
        start: measure_starts(client, plan).await,
        ..Figures::default()
    };
    measure_tests(client, plan, &mut figures).await;
    figures.baseline = baseline::measure(client, plan).await;
    println!("\n{}", table::table(plan, &figures));
    // Only wrong results fail the run, slow ones do not.
    assert!(
        figures.unfinished == 0 && figures.without_all_events == 0,
        "tests are unfinished, or events are missing"
    );
}

/// The seconds from the start of the operator's process to its first request for a test, for each start.
async fn measure_starts(client: &Client, plan: &Plan) -> Vec<f64> {
    let tests: Api<LoadTest> = Api::namespaced(client.clone(), START);
    let (mut to_request, mut to_job) = (Vec::new(), Vec::new());
    for i in 0..STARTS {
        let recorder = WatchRecorder::follow(client, START).await;
        let test: LoadTest = from(load_test(&format!("start-{i}"), 1));
        tests
            .create(&PostParams::default(), &test)
            .await
            .expect("a LoadTest is created");
        let offset = audit::length(&plan.audit_log);
        let (began, began_at) = (Instant::now(), SystemTime::now());
        let mut operator = plan.start_operator();
        until(
            "the first Job of a new operator",
            Duration::from_secs(60),
            async || {
                assert!(
                    operator.is_alive(),
                    "the operator ended by itself: {}",
                    operator.log()
                );
                recorder.jobs() == 1
            },
        )
        .await;
        to_job.extend(
            recorder
                .first_job()
                .map(|at| at.duration_since(began).as_secs_f64()),
        );
        let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
        let first_request = requests
            .iter()
            .filter(|r| r.namespace == START && is_for_one_test(r))
            .map(|r| r.received)
            .min();
        to_request.extend(
            first_request
                .and_then(|at| at.duration_since(began_at).ok())
                .map(|d| d.as_secs_f64()),
        );
        operator.terminate().await;
        tests
            .delete(&format!("start-{i}"), &DeleteParams::background())
            .await
            .expect("a LoadTest is deleted");
        until(
            "the deletion of a Job",
            Duration::from_secs(60),
            async || recorder.all_jobs_are_deleted(),
        )
        .await;
    }
    println!(
        "process start -> first request for a LoadTest, s: {}",
        table::quantiles(&to_request)
    );
    println!("process start -> its Job, s: {}", table::quantiles(&to_job));
    to_request
}

async fn measure_tests(client: &Client, plan: &Plan, figures: &mut Figures) {
    let offset = audit::length(&plan.audit_log);
    let recorder = WatchRecorder::follow(client, NAMESPACE).await;
    let mut operator = plan.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let idle = operator.memory();
    figures.rss_idle = idle.rss;
    println!("idle: {idle}, CPU s {:.2}", operator.cpu_seconds());

    let begun = Instant::now();
    create_all(client, plan, &recorder).await;
    println!(
        "created {} in {:.1} s; load average {}",
        plan.tests,
        begun.elapsed().as_secs_f64(),
        load_average()
    );
    let mut sockets = 0;
    while recorder.finished() < plan.tests && begun.elapsed() < plan.limit && operator.is_alive() {
        sockets = sockets.max(operator.sockets());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE_TIME).await;
    let quiet_from = SystemTime::now();
    let cpu_before = operator.cpu_seconds();
    tokio::time::sleep(plan.quiet).await;
    assert!(
        operator.is_alive(),
        "the operator ended by itself: {}",
        operator.log()
    );

    figures.unfinished = plan.tests - recorder.finished();
    (figures.to_job, figures.to_finished) = (
        recorder.create_to_job(),
        recorder.job_finished_to_finished(),
    );
    println!(
        "finished {}/{} LoadTests in {took:.1} s; load average {}",
        recorder.finished(),
        plan.tests,
        load_average()
    );
    println!(
        "LoadTest create -> Job, s: {}",
        table::quantiles(&figures.to_job)
    );
    println!(
        "LoadTest create -> LoadTest finished, s: {}",
        table::quantiles(&recorder.create_to_finished())
    );
    println!(
        "Job finished -> LoadTest finished, s: {}",
        table::quantiles(&figures.to_finished)
    );
    let now = operator.memory();
    (figures.rss_peak, figures.cpu) = (now.peak, operator.cpu_seconds());
    println!(
        "now: {now}; at most {sockets} sockets, now {}",
        operator.sockets()
    );
    println!(
        "CPU s {:.2}, of which {:.2} in the last {} s",
        figures.cpu,
        figures.cpu - cpu_before,
        plan.quiet.as_secs()
    );

    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    print_requests(plan, figures, &requests, &recorder);
    print_late_requests(plan, figures, &requests, quiet_from);
    check_events(client, plan, figures).await;
    operator.terminate().await;
    let warnings = operator.warnings();
    println!(
        "warnings and errors in the operator's log: {}",
        warnings.len()
    );
    warnings
        .iter()
        .take(5)
        .for_each(|line| println!("  {line}"));
}

fn print_requests(
    plan: &Plan,
    figures: &mut Figures,
    requests: &[Request],
    recorder: &WatchRecorder,
) {
    let per_test = |n: usize| n as f64 / plan.tests as f64;
    let counted: Vec<_> = requests.iter().filter(|r| is_for_one_test(r)).collect();
    let refreshes = recorder.refreshes();
    let status_writes = counted
        .iter()
        .filter(|r| r.kind() == "patch loadtests/status" && r.code == 200)
        .count();
    let others = requests.iter().filter(|r| !r.is_lease()).count() - counted.len();
    figures.requests = per_test(counted.len().saturating_sub(refreshes));
    figures.status_writes = per_test(status_writes);
    println!(
        "requests per LoadTest {:.2}, without {refreshes} refreshes of DURATION {:.2} (without leases and {others} watches, lists and the like)",
        per_test(counted.len()),
        figures.requests,
    );
    let start_times = if plan.count > 1 { plan.count } else { 0 };
    println!(
        "  expected: 1 get of the ConfigMap, 1 Job, {} events, 3 writes of the status, {start_times} start times = {}",
        plan.worker_events() + 2,
        plan.worker_events() + 7 + start_times
    );
    println!(
        "  status writes besides Starting, Running, end and refreshes: {}; writes by phase: {:?}",
        status_writes.cast_signed() - (3 * plan.tests + refreshes).cast_signed(),
        recorder.writes()
    );
    let mut kinds: BTreeMap<String, Vec<&Request>> = BTreeMap::new();
    for request in requests {
        kinds.entry(request.kind()).or_default().push(request);
    }
    for (kind, requests) in kinds {
        let mut codes: BTreeMap<u16, usize> = BTreeMap::new();
        for request in requests.iter().filter(|r| !matches!(r.code, 200 | 201)) {
            *codes.entry(request.code).or_default() += 1;
        }
        let codes = if codes.is_empty() {
            String::new()
        } else {
            format!("  {codes:?}")
        };
        let took: Vec<f64> = requests.iter().filter_map(|r| r.took).collect();
        let took = if took.is_empty() {
            String::new()
        } else {
            format!("  server s {}", table::quantiles(&took))
        };
        println!(
            "  {:8} {:7.2}/LoadTest {kind}{codes}{took}",
            requests.len(),
            per_test(requests.len())
        );
    }
}

fn print_late_requests(plan: &Plan, figures: &mut Figures, requests: &[Request], from: SystemTime) {
    let late: Vec<_> = requests
        .iter()
        .filter(|r| !r.is_lease() && r.received >= from && r.received <= from + plan.quiet)
        .collect();
    figures.late_writes = late.iter().filter(|r| r.is_write()).count();
    figures.late_reads = late.len() - figures.late_writes;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for request in late {
        *kinds.entry(request.kind()).or_default() += 1;
    }
    println!(
        "requests in {} s after the end: {} writes, {} reads {kinds:?}",
        plan.quiet.as_secs(),
        figures.late_writes,
        figures.late_reads
    );
}

async fn check_events(client: &Client, plan: &Plan, figures: &mut Figures) {
    let wanted = BTreeMap::from([
        ("Created", 1),
        ("Running", plan.worker_events()),
        ("Completed", 1),
    ]);
    let found = watch_recorder::events(client, NAMESPACE).await;
    let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, n) in found.values().flatten() {
        *sums.entry(reason).or_default() += n;
    }
    let (mut incomplete, mut unexpected) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for i in 0..plan.tests {
        let name = format!("lt-{i:05}");
        let has = found.get(&name).into_iter().flatten();
        let has: BTreeMap<&str, usize> = has.map(|(reason, n)| (reason.as_str(), *n)).collect();
        if wanted.iter().any(|(reason, n)| has.get(reason) != Some(n)) {
            incomplete.push(format!("{name} has {has:?}"));
        }
        has.into_iter()
            .filter(|(reason, _)| !wanted.contains_key(reason))
            .for_each(|(reason, _)| {
                *unexpected.entry(reason).or_default() += 1;
            });
    }
    println!(
        "events {sums:?}; LoadTests without exactly {wanted:?}: {}; other events: {unexpected:?}",
        incomplete.len()
    );
    incomplete
        .iter()
        .take(10)
        .for_each(|line| println!("  {line}"));
    figures.without_all_events = incomplete.len();
}
