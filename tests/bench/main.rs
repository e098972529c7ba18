//! Measures an operator against a control plane with simulated nodes: how soon a test starts and is told finished, what
//! the operator asks of the API server, whether it rests, and what it costs. `hack/bench.sh` runs it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::doc_markdown
)]

mod angry;
mod audit;
mod depth;
mod floor;
mod instructions;
mod process;
mod seed;
mod seen;
mod standing;
mod table;

#[path = "../support/nodes.rs"]
mod nodes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use artillery_operator::decide::MAX_WORKER_EVENTS;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use nodes::{Fate, Options, SimulatedNodes};
use process::Operator;
use seen::Seen;

const USAGE: &str = "usage: bench N COUNT CONCURRENCY -- operator command...
       bench --case CASE[,CASE] N CONCURRENCY -- operator command...

Creates N LoadTests of COUNT workers, CONCURRENCY at a time, and prints what the operator makes of them; or what a case says:
  depth         one LoadTest of N workers
  memory        N finished LoadTests with their Jobs and two pods each: what they take
  rest          the same: what is done about them
  restart       the same: a new operator, and one that takes over from one that was killed
  refresh       N running LoadTests of which only DURATION changes
  foreign       N pods and Jobs of others: what they take
  angry         429 for a minute, 2 s a call, and a namespace that takes no Jobs with N LoadTests in it
  instructions  the instructions that a decision and an event take, by valgrind; without a control plane
memory, rest and restart may be asked for together, by commas, of the same LoadTests.

The floor, which LoadTest -> Job is held against, is a bare client's: it creates as many LoadTests at a time, and a Job as soon
as each is there, beside the same pods, scheduler and nodes, with no status or event to write; measured after the operator.

The control plane is to be new: nothing of a former run is removed. From the environment:
  KUBECONFIG           the administrator's (one file)
  OPERATOR_KUBECONFIG  the operator's, of a user of its own
  OPERATOR_USER        this user's name (operator)
  AUDIT_LOG            the API server's audit log (audit.log beside KUBECONFIG)
  RUN_S                how long a worker runs, to which 0 to 5 s are added (30)
  QUIET_S              how long it is watched after everything has finished (20)
  LIMIT_S              how long everything may take until then (900)
  NODES                simulated nodes (20)";

/// Where the measured tests are, those that only start the operator, and the Jobs without an operator.
const NAMESPACE: &str = "bench";
const START: &str = "bench-start";
const FLOOR: &str = "bench-floor";

/// From the last test's end on, so long may what belongs to it still be written.
const SETTLE: Duration = Duration::from_secs(3);

/// How often the operator is started to see how long that takes.
const STARTS: usize = 3;

/// What is to be measured.
#[derive(Clone)]
pub struct Plan {
    /// What to do, where it is not the usual.
    cases: Vec<String>,
    tests: usize,
    count: usize,
    concurrency: usize,
    command: Vec<String>,
    operator_kubeconfig: PathBuf,
    operator_user: String,
    audit_log: PathBuf,
    run: Duration,
    quiet: Duration,
    limit: Duration,
    nodes: usize,
}

impl Plan {
    /// None where the arguments ask for nothing.
    fn from_args() -> Option<Self> {
        let mut args = std::env::args().skip(1).peekable();
        let cases = args.next_if_eq("--case").and_then(|_| args.next());
        let cases: Vec<_> = cases
            .iter()
            .flat_map(|c| c.split(','))
            .map(str::to_owned)
            .collect();
        let numbers: Vec<usize> = args
            .by_ref()
            .take_while(|a| a != "--")
            .map(|a| a.parse().ok())
            .collect::<Option<_>>()?;
        let (tests, count, concurrency) = match (cases.as_slice(), numbers.as_slice()) {
            ([], &[tests, count, concurrency]) => (tests, count, concurrency),
            ([case], &[n, concurrency]) if case == "depth" => (1, n, concurrency),
            ([_, ..], &[n, concurrency]) => (n, 2, concurrency),
            _ => return None,
        };
        let command: Vec<String> = args.collect();
        if command.is_empty() || tests == 0 || count == 0 || concurrency == 0 {
            return None;
        }
        let number = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |v| {
                v.parse()
                    .unwrap_or_else(|_| panic!("{name} is not a number: {v}"))
            })
        };
        let admin = PathBuf::from(std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set"));
        let audit_log = std::env::var_os("AUDIT_LOG")
            .map_or_else(|| admin.with_file_name("audit.log"), PathBuf::from);
        Some(Self {
            cases,
            tests,
            count,
            concurrency,
            command,
            operator_kubeconfig: std::env::var_os("OPERATOR_KUBECONFIG")
                .expect("OPERATOR_KUBECONFIG is set")
                .into(),
            operator_user: std::env::var("OPERATOR_USER").unwrap_or_else(|_| "operator".into()),
            audit_log,
            run: Duration::from_secs(number("RUN_S", 30)),
            quiet: Duration::from_secs(number("QUIET_S", 20)),
            limit: Duration::from_secs(number("LIMIT_S", 900)),
            nodes: usize::try_from(number("NODES", 20)).expect("so many nodes"),
        })
    }

    fn start_operator(&self) -> Operator {
        Operator::start(&self.command, &self.operator_kubeconfig)
    }

    /// The `Running` events that a test of so many workers has.
    fn worker_events(&self) -> usize {
        if self.count > MAX_WORKER_EVENTS {
            1
        } else {
            self.count
        }
    }
}

/// What was measured, as far as the table shows it.
#[derive(Default)]
pub struct Figures {
    start: Vec<f64>,
    to_job: Vec<f64>,
    to_finished: Vec<f64>,
    requests: f64,
    status_writes: f64,
    late_writes: usize,
    late_reads: usize,
    rss_idle: f64,
    rss_peak: f64,
    cpu: f64,
    floor: Vec<f64>,
    without_all_events: usize,
    unfinished: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if instructions::is_asked_for() {
        return instructions::measure();
    }
    let Some(plan) = Plan::from_args() else {
        println!("{USAGE}");
        return;
    };
    println!(
        "{} LoadTests of {} workers, {} at a time; load average {}",
        plan.tests,
        plan.count,
        plan.concurrency,
        load()
    );
    let client = connect().await;
    prepare(&client).await;
    let cases: Vec<&str> = plan.cases.iter().map(String::as_str).collect();
    match cases.as_slice() {
        [] => beside_the_floor(&client, &plan).await,
        ["depth"] => {
            let _nodes = start_nodes(&client, &plan).await;
            depth::measure(&client, &plan).await;
        }
        ["angry"] => {
            let _nodes = start_nodes(&client, &plan).await;
            angry::measure(&client, &plan).await;
        }
        ["foreign"] => standing::foreign(&client, &plan).await,
        ["refresh"] => standing::refresh(&client, &plan).await,
        parts
            if parts
                .iter()
                .all(|p| ["memory", "rest", "restart"].contains(p)) =>
        {
            standing::finished(&client, &plan, parts).await;
        }
        _ => println!("{USAGE}"),
    }
    println!("load average at the end {}", load());
}

async fn start_nodes(client: &Client, plan: &Plan) -> SimulatedNodes {
    let run = plan.run;
    let fate = move |pod: &nodes::BoundPod| Fate::Succeed {
        after: run + Duration::from_millis(pod.spread(5000)),
    };
    SimulatedNodes::start(client.clone(), Options::new(plan.nodes, fate)).await
}

async fn beside_the_floor(client: &Client, plan: &Plan) {
    let _nodes = start_nodes(client, plan).await;
    let mut figures = Figures {
        start: measure_starts(client, plan).await,
        ..Figures::default()
    };
    measure(client, plan, &mut figures).await;
    figures.floor = floor::measure(client, plan).await;
    println!("\n{}", table::table(plan, &figures));
    // Slow is for people to judge; wrong is not.
    assert!(
        figures.unfinished == 0 && figures.without_all_events == 0,
        "tests are unfinished, or lack events"
    );
}

async fn connect() -> Client {
    connect_as(Path::new(
        &std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set"),
    ))
    .await
}

async fn connect_as(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is usable");
    // A request that is repeated in secret would count as a slow one.
    config.default_retry = false;
    Client::try_from(config).expect("the kubeconfig is usable")
}

async fn prepare(client: &Client) {
    for name in [NAMESPACE, START, FLOOR] {
        let namespace: Namespace = from(json!({"metadata": {"name": name}}));
        let created = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await;
        created.unwrap_or_else(|e| {
            panic!("the namespace {name}, which a new control plane does not have: {e}")
        });
        let script: ConfigMap = from(
            json!({"metadata": {"name": "test-script"}, "data": {"test-script.yaml":
            "config: {target: 'http://x', phases: [{duration: 1, arrivalRate: 1}]}\nscenarios: [{flow: [{get: {url: /}}]}]\n"}}),
        );
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
        maps.create(&PostParams::default(), &script)
            .await
            .expect("the test script is created");
        // Pods are refused until it is there.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        until(
            "the default service account",
            Duration::from_secs(30),
            async || {
                accounts
                    .get_opt("default")
                    .await
                    .expect("service accounts can be read")
                    .is_some()
            },
        )
        .await;
    }
    // The API server answers a watch of a kind that it has only just learnt by asking for patience.
    let tests: Api<LoadTest> = Api::all(client.clone());
    let short = WatchParams::default().timeout(1);
    until(
        "watches of LoadTests",
        Duration::from_secs(30),
        async || tests.watch(&short, "0").await.is_ok(),
    )
    .await;
}

/// The time from the start of the operator's process to its first look at a test, for each of some starts.
async fn measure_starts(client: &Client, plan: &Plan) -> Vec<f64> {
    let tests: Api<LoadTest> = Api::namespaced(client.clone(), START);
    let (mut to_look, mut to_job) = (Vec::new(), Vec::new());
    for i in 0..STARTS {
        let seen = Seen::follow(client, START).await;
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
                    "the operator has ended by itself: {}",
                    operator.log()
                );
                seen.jobs() == 1
            },
        )
        .await;
        to_job.extend(
            seen.first_job()
                .map(|at| at.duration_since(began).as_secs_f64()),
        );
        let requests = audit::requests(&plan.audit_log, offset, &plan.operator_user);
        let look = requests
            .iter()
            .filter(|r| r.namespace == START && r.is_counted())
            .map(|r| r.received)
            .min();
        to_look.extend(
            look.and_then(|at| at.duration_since(began_at).ok())
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
            async || seen.all_jobs_are_gone(),
        )
        .await;
    }
    println!(
        "process start -> first look at a LoadTest, s: {}",
        table::quantiles(&to_look)
    );
    println!(
        "process start -> its Job seen, s: {}",
        table::quantiles(&to_job)
    );
    to_look
}

async fn measure(client: &Client, plan: &Plan, figures: &mut Figures) {
    let offset = audit::length(&plan.audit_log);
    let seen = Seen::follow(client, NAMESPACE).await;
    let mut operator = plan.start_operator();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let idle = operator.memory();
    figures.rss_idle = idle.rss;
    println!("idle: {idle}, CPU s {:.2}", operator.cpu());

    let begun = Instant::now();
    create_all(client, plan, &seen).await;
    println!(
        "created {} in {:.1} s; load average {}",
        plan.tests,
        begun.elapsed().as_secs_f64(),
        load()
    );
    let mut sockets = 0;
    while seen.finished() < plan.tests && begun.elapsed() < plan.limit && operator.is_alive() {
        sockets = sockets.max(operator.sockets());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let quiet_from = SystemTime::now();
    let cpu_before = operator.cpu();
    tokio::time::sleep(plan.quiet).await;
    assert!(
        operator.is_alive(),
        "the operator has ended by itself: {}",
        operator.log()
    );

    figures.unfinished = plan.tests - seen.finished();
    (figures.to_job, figures.to_finished) = (seen.create_to_job(), seen.job_finished_to_finished());
    println!(
        "finished {}/{} LoadTests, {took:.1} s after the first create; load average {}",
        seen.finished(),
        plan.tests,
        load()
    );
    println!(
        "LoadTest create -> Job seen, s: {}",
        table::quantiles(&figures.to_job)
    );
    println!(
        "LoadTest create -> LoadTest finished, s: {}",
        table::quantiles(&seen.create_to_finished())
    );
    println!(
        "Job finished -> LoadTest finished, s: {}",
        table::quantiles(&figures.to_finished)
    );
    let now = operator.memory();
    (figures.rss_peak, figures.cpu) = (now.peak, operator.cpu());
    println!(
        "now: {now}; sockets at most {sockets}, now {}",
        operator.sockets()
    );
    println!(
        "CPU s {:.2}, of these in the quiet {} s {:.2}",
        figures.cpu,
        plan.quiet.as_secs(),
        figures.cpu - cpu_before
    );

    let requests = audit::requests(&plan.audit_log, offset, &plan.operator_user);
    tell_requests(plan, figures, &requests, &seen);
    tell_late(plan, figures, &requests, quiet_from);
    tell_events(client, plan, figures).await;
    operator.terminate().await;
    let complaints = operator.complaints();
    println!(
        "warnings and errors in the operator's log: {}",
        complaints.len()
    );
    complaints
        .iter()
        .take(5)
        .for_each(|line| println!("  {line}"));
}

async fn create_all(client: &Client, plan: &Plan, seen: &Seen) {
    create_all_in(client, plan, seen, NAMESPACE, "lt").await;
}

/// Creates LoadTests as fast as the API server takes them, so many at a time.
async fn create_all_in(client: &Client, plan: &Plan, seen: &Seen, namespace: &str, prefix: &str) {
    let api: Api<LoadTest> = Api::namespaced(client.clone(), namespace);
    stream::iter(0..plan.tests)
        .for_each_concurrent(plan.concurrency, |i| {
            let api = api.clone();
            async move {
                let name = format!("{prefix}-{i:05}");
                let test: LoadTest = from(load_test(&name, plan.count));
                seen.note_created(&name);
                if let Err(error) = api.create(&PostParams::default(), &test).await {
                    println!("cannot create {name}: {error}");
                }
            }
        })
        .await;
}

fn tell_requests(plan: &Plan, figures: &mut Figures, requests: &[audit::Request], seen: &Seen) {
    let per_test = |n: usize| n as f64 / plan.tests as f64;
    let counted: Vec<_> = requests.iter().filter(|r| r.is_counted()).collect();
    let refreshes = seen.refreshes();
    let status_writes = counted
        .iter()
        .filter(|r| r.kind() == "patch loadtests/status" && r.code == 200)
        .count();
    let others = requests.iter().filter(|r| !r.is_lease()).count() - counted.len();
    figures.requests = per_test(counted.len().saturating_sub(refreshes));
    figures.status_writes = per_test(status_writes);
    println!(
        "requests per LoadTest {:.2}, and without {refreshes} refreshes of DURATION {:.2} (leases, and {others} watches, lists and the like, left out)",
        per_test(counted.len()),
        figures.requests,
    );
    let told = if plan.count > 1 { plan.count } else { 0 };
    println!(
        "  expected: 1 get of the ConfigMap, 1 Job, {} events, 3 writes of the status, {told} workers told when to begin = {}",
        plan.worker_events() + 2,
        plan.worker_events() + 7 + told
    );
    println!(
        "  status writes beyond intent, Running, end and refreshes: {}; writes seen, by phase: {:?}",
        status_writes.cast_signed() - (3 * plan.tests + refreshes).cast_signed(),
        seen.writes()
    );
    let mut kinds: BTreeMap<String, Vec<&audit::Request>> = BTreeMap::new();
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

fn tell_late(plan: &Plan, figures: &mut Figures, requests: &[audit::Request], from: SystemTime) {
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
        "requests in {} s after everything has finished: {} writes, {} reads {kinds:?}",
        plan.quiet.as_secs(),
        figures.late_writes,
        figures.late_reads
    );
}

async fn tell_events(client: &Client, plan: &Plan, figures: &mut Figures) {
    let wanted = BTreeMap::from([
        ("Created", 1),
        ("Running", plan.worker_events()),
        ("Completed", 1),
    ]);
    let found = seen::events(client, NAMESPACE).await;
    let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, n) in found.values().flatten() {
        *sums.entry(reason).or_default() += n;
    }
    let (mut lacking, mut besides) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for i in 0..plan.tests {
        let name = format!("lt-{i:05}");
        let has = found.get(&name).into_iter().flatten();
        let has: BTreeMap<&str, usize> = has.map(|(reason, n)| (reason.as_str(), *n)).collect();
        if wanted.iter().any(|(reason, n)| has.get(reason) != Some(n)) {
            lacking.push(format!("{name} has {has:?}"));
        }
        has.into_iter()
            .filter(|(reason, _)| !wanted.contains_key(reason))
            .for_each(|(reason, _)| {
                *besides.entry(reason).or_default() += 1;
            });
    }
    println!(
        "events {sums:?}; LoadTests without just {wanted:?}: {}; with others besides: {besides:?}",
        lacking.len()
    );
    lacking
        .iter()
        .take(10)
        .for_each(|line| println!("  {line}"));
    figures.without_all_events = lacking.len();
}

fn load_test(name: &str, count: usize) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"count": count, "environment": "bench", "testScript": {"config": {"configMap": "test-script"}}}})
}

/// Turns what is written here as JSON into an object.
fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("this is such an object")
}

async fn until(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(
            begun.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What else this machine does is in every figure.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A list in parts, each as small as it needs to be.
fn part(token: Option<String>) -> ListParams {
    ListParams {
        limit: Some(500),
        continue_token: token,
        ..ListParams::default()
    }
}
