//! Existing objects that require no action: what they cost the operator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use kube::Client;
use kube::api::{Api, PostParams};
use loadtest_api::v1alpha1::LoadTest;

use crate::plan::Plan;
use crate::resource_usage::ResourceUsage;
use crate::seed::{self, Stage, seed};
use crate::support::audit::{self, Request};
use crate::support::objects::from;
use crate::support::process::Operator;
use crate::table::{Line, print};
use crate::watch_recorder::WatchRecorder;
use crate::{BASELINE, NAMESPACE, START, load_average, load_test, until};

/// The workers of each test.
const WORKERS: usize = 2;

/// Finished tests: memory, requests and CPU time without changes, and the time until a new operator works.
pub async fn finished(client: &Client, plan: &Plan, parts: &[&str]) {
    let mut lines = Vec::new();
    if parts.contains(&"memory") {
        let mut idle = plan.start_operator();
        tokio::time::sleep(Duration::from_secs(4)).await;
        lines.push(Line::at_most("RSS idle, MiB", idle.memory().rss, 1, 8.0));
        // It releases its lease.
        idle.terminate().await;
    }
    seed(client, NAMESPACE, plan.tests, WORKERS, Stage::Completed).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut operator = plan.start_operator();
    // The first lists are complete by then.
    tokio::time::sleep(Duration::from_secs(15)).await;
    if parts.contains(&"memory") {
        let memory = operator.memory();
        println!("with {} finished LoadTests: {memory}", plan.tests);
        lines.push(Line::at_most(
            "RSS with all of them, MiB",
            memory.rss,
            1,
            64.0,
        ));
        lines.push(Line::info(
            "RSS peak, with the first lists, MiB",
            format!("{:.1}", memory.peak),
        ));
    }
    if parts.contains(&"rest") {
        rest(plan, &mut operator, &mut lines).await;
    }
    if parts.contains(&"restart") {
        restart(client, plan, operator, &mut lines).await;
    } else {
        operator.terminate().await;
    }
    print(
        &format!("{} finished LoadTests of {WORKERS} workers", plan.tests),
        &lines,
    );
}

async fn rest(plan: &Plan, operator: &mut Operator, lines: &mut Vec<Line>) {
    let (offset, cpu) = (audit::length(&plan.audit_log), operator.cpu_seconds());
    tokio::time::sleep(plan.quiet.max(Duration::from_secs(60))).await;
    let seconds = plan.quiet.max(Duration::from_secs(60)).as_secs_f64();
    let used = (operator.cpu_seconds() - cpu) / seconds * 100.0;
    assert!(
        operator.is_alive(),
        "the operator ended by itself: {}",
        operator.log()
    );
    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    println!(
        "at rest, in {seconds} s: {:?}; load average {}",
        kinds(&requests),
        load_average()
    );
    let without_leases: Vec<_> = requests.iter().filter(|r| !r.is_lease()).collect();
    let reads = without_leases
        .iter()
        .filter(|r| !r.is_write() && !r.kind().starts_with("watch"));
    let (checks, reads): (Vec<&Request>, Vec<&Request>) =
        reads.partition(|r| r.path() == "/openapi/v3");
    lines.push(Line::at_most(
        "writes at rest",
        count(without_leases.iter().filter(|r| r.is_write()).count()),
        0,
        0.0,
    ));
    lines.push(Line::at_most(
        "reads at rest, without watches",
        count(reads.len()),
        0,
        0.0,
    ));
    lines.push(Line::at_most(
        "checks of the CRD at rest",
        count(checks.len()),
        0,
        (seconds / 30.0).ceil(),
    ));
    lines.push(Line::at_most("CPU at rest, % of a core", used, 2, 0.1));
}

/// A restart after SIGTERM, and a takeover after the leader was killed.
async fn restart(client: &Client, plan: &Plan, mut operator: Operator, lines: &mut Vec<Line>) {
    operator.terminate().await;
    let recorder = WatchRecorder::follow(client, START).await;
    create(client, "restarted").await;
    let offset = audit::length(&plan.audit_log);
    let begun = Instant::now();
    let mut first = plan.start_operator();
    until(
        "the Job of a new operator",
        Duration::from_secs(60),
        async || recorder.jobs() == 1,
    )
    .await;
    lines.push(Line::at_most(
        "start -> first Job, s",
        begun.elapsed().as_secs_f64(),
        2,
        5.0,
    ));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    println!("after a restart: {:?}", kinds(&requests));
    let writes = requests
        .iter()
        .filter(|r| r.is_write() && !r.is_lease() && r.namespace == NAMESPACE)
        .count();
    lines.push(Line::at_most(
        "writes after a restart, for unchanged tests",
        count(writes),
        0,
        0.0,
    ));

    let mut second = plan.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let begun = Instant::now();
    first.kill().await;
    create(client, "taken-over").await;
    until(
        "the Job of a second operator",
        Duration::from_secs(60),
        async || recorder.jobs() == 2,
    )
    .await;
    lines.push(Line::at_most(
        "leader killed -> first Job, s",
        begun.elapsed().as_secs_f64(),
        1,
        20.0,
    ));
    second.terminate().await;
}

/// Running tests of which only the duration changes.
pub async fn refresh(client: &Client, plan: &Plan) {
    seed(client, NAMESPACE, plan.tests, 1, Stage::Running).await;
    let mut operator = plan.start_operator();
    // After a start all overdue statuses are written at once.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let (offset, cpu, from) = (
        audit::length(&plan.audit_log),
        operator.cpu_seconds(),
        SystemTime::now(),
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    let used = (operator.cpu_seconds() - cpu) / 60.0 * 100.0;
    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    let mut by_second = [0_usize; 60];
    for request in requests
        .iter()
        .filter(|r| r.kind() == "patch loadtests/status")
    {
        let second = request
            .received
            .duration_since(from)
            .unwrap_or_default()
            .as_secs();
        if let Some(n) = usize::try_from(second)
            .ok()
            .and_then(|s| by_second.get_mut(s))
        {
            *n += 1;
        }
    }
    println!(
        "status writes in each second: {by_second:?}; load average {}",
        load_average()
    );
    operator.terminate().await;
    let all: usize = by_second.iter().sum();
    let lines = [
        Line::at_most("status writes per second", count(all) / 60.0, 1, 50.0),
        Line::at_most(
            "maximum in one second",
            count(by_second.iter().copied().max().unwrap_or_default()),
            0,
            75.0,
        ),
        Line::info("CPU, % of a core", format!("{used:.1}")),
    ];
    print(
        &format!(
            "{} running LoadTests of which only DURATION changes",
            plan.tests
        ),
        &lines,
    );
}

async fn create(client: &Client, name: &str) {
    let test: LoadTest = from(load_test(name, 1));
    Api::namespaced(client.clone(), START)
        .create(&PostParams::default(), &test)
        .await
        .expect("a LoadTest is created");
}

/// Pods and Jobs of others, half of each.
pub async fn foreign(client: &Client, plan: &Plan) {
    let mut operator = plan.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (idle, cpu) = (operator.memory(), operator.cpu_seconds());
    seed::foreign(client, BASELINE, plan.tests).await;
    let (beside, used) = (operator.memory(), operator.cpu_seconds() - cpu);
    println!("idle: {idle}; with them: {beside}");
    operator.terminate().await;
    let recorder = WatchRecorder::follow(client, START).await;
    create(client, "beside").await;
    let begun = Instant::now();
    let mut operator = plan.start_operator();
    until(
        "the Job of a new operator",
        Duration::from_secs(60),
        async || recorder.jobs() == 1,
    )
    .await;
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let started = operator.memory();
    operator.terminate().await;
    let lines = [
        Line::at_most("RSS that they add, MiB", beside.rss - idle.rss, 1, 0.5),
        Line::at_most("CPU while they are created, s", used, 2, 0.1),
        Line::at_most("start of a new operator -> first Job, s", took, 2, 5.0),
        Line::info(
            "RSS of the new operator with one test, MiB",
            format!("{:.1}", started.rss),
        ),
    ];
    print(&format!("{} pods and Jobs of others", plan.tests), &lines);
}

/// The number of requests of each kind.
pub fn kinds(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in requests {
        let status = if request.code >= 400 {
            format!(" {}", request.code)
        } else {
            String::new()
        };
        *kinds.entry(request.kind() + &status).or_default() += 1;
    }
    kinds
}

pub fn count(n: usize) -> f64 {
    n as f64
}
