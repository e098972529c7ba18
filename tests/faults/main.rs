//! Injects faults between the operator and a real API server, one in each run, and checks the resulting history of all
//! objects. `hack/test-faults.sh` runs it.
//!
//! `plan` lists the faults, and `run` executes a run. `cluster_faults` changes the cluster, and `port_faults` the ports of the
//! workers. `proxy` and `watch_faults` inject the fault of a request. `history` records all objects, `invariants` and `end` check
//! them, and `audit_check` compares the API server's audit log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit_check;
mod cluster_faults;
mod end;
mod failing_calls;
mod history;
mod invariants;
mod permanent;
mod permanent_run;
mod plan;
mod port_faults;
mod proxy;
mod run;
mod supervisor;
mod table;
mod third_party;
mod view;
mod watch_faults;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Client;
use serde_json::Value;
use tokio::sync::Semaphore;

use plan::{Fault, Point, Run, Scenario};
use run::{RunResult, Timings, execute};
use support::audit;
use support::cluster::{client_without_retries, install_crd};

const USAGE: &str = "usage: faults [--subset | --all | --only NAME]... [--list] [--seed N] [--parallel N] [--minutes N]

Records the operator's requests in runs without a fault, and then injects one fault in each of many runs.
  --subset      some faults of every kind, without slow ones, chosen by the seed
  --all         all faults
  --only NAME   the runs whose name contains NAME, such as 'completes: create jobs 1'; may be repeated
  --list        print the names of the runs, and exit
  --seed N      choose another subset and order (1)
  --parallel N  the number of concurrent runs (8 with --subset, otherwise 24)
  --minutes N   start no run after N minutes
Environment:
  KUBECONFIG    the administrator's kubeconfig (one file); the API server's audit log is audit.log beside it";

/// The number of runs of the subset, which two processors execute within four minutes.
const SUBSET_SIZE: usize = 180;

/// How many runs exist for each busy one. Those that wait for silence cost nothing.
const RUNS_PER_PERMIT: usize = 5;

struct Options {
    subset: bool,
    all: bool,
    only: Vec<String>,
    list: bool,
    seed: u64,
    parallel: Option<usize>,
    minutes: Option<u64>,
}

impl Options {
    /// None if the arguments are invalid or choose no runs.
    fn from_args() -> Option<Self> {
        let mut options = Self {
            subset: false,
            all: false,
            only: Vec::new(),
            list: false,
            seed: 1,
            parallel: None,
            minutes: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--subset" => options.subset = true,
                "--all" => options.all = true,
                "--only" => options.only.push(args.next()?),
                "--list" => options.list = true,
                "--seed" => options.seed = args.next()?.parse().ok()?,
                "--parallel" => {
                    options.parallel = Some(args.next()?.parse().ok().filter(|n| *n > 0)?);
                }
                "--minutes" => options.minutes = Some(args.next()?.parse().ok()?),
                _ => return None,
            }
        }
        (options.subset || options.all || !options.only.is_empty()).then_some(options)
    }

    fn choose(&self, mut runs: Vec<Run>) -> Vec<Run> {
        if !self.only.is_empty() {
            runs.retain(|run| self.only.iter().any(|name| run.to_string().contains(name)));
        } else if !self.all {
            runs.retain(|run| !run.fault.is_slow());
        }
        let mut runs = plan::evenly(runs, self.seed);
        if !self.all && self.only.is_empty() {
            runs.truncate(SUBSET_SIZE);
        }
        runs
    }

    fn timings(&self) -> Timings {
        let seconds = Duration::from_secs;
        if self.subset {
            Timings {
                heal: seconds(2),
                limit: seconds(100),
                quiet: seconds(3),
            }
        } else {
            Timings {
                heal: seconds(10),
                limit: seconds(180),
                quiet: seconds(30),
            }
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Some(options) = Options::from_args() else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set"));
    let log = kubeconfig.with_file_name("audit.log");
    let client = client_without_retries(&kubeconfig).await;
    install_crd(&client).await;
    let since = audit::length(&log);
    println!("recording the requests of runs without a fault");
    let clean = execute_clean_runs(&client, options.timings()).await;
    let mut failed = 0;
    for result in clean.values() {
        failed += usize::from(table::print_violations(result));
    }
    let requests: Vec<(Scenario, Vec<Point>)> =
        clean.iter().map(|(s, v)| (*s, v.points.clone())).collect();
    let all = plan::all(&requests);
    let (planned, runs) = (all.len(), options.choose(all));
    println!(
        "{} of {planned} faults are injected; seed {}",
        runs.len(),
        options.seed
    );
    if options.list {
        for run in &runs {
            println!("{run}");
        }
        return ExitCode::SUCCESS;
    }
    if runs.is_empty() {
        println!(
            "no run has a name that contains one of {:?}; --all --list prints all names",
            options.only
        );
        return ExitCode::FAILURE;
    }
    let mut results = execute_all(&client, &options, runs, &clean).await;
    results.extend(clean.into_values());
    let unrecorded = audit_check::check(&log, since, &results);
    for line in &unrecorded {
        println!("VIOLATION of the audit log: {line}");
    }
    failed += results
        .iter()
        .filter(|v| v.run.fault != Fault::None && !v.violations.is_empty())
        .count()
        + unrecorded.len();
    println!("\n{}", table::table(&results));
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    println!(
        "{} passed, {failed} failed",
        results.iter().filter(|v| v.violations.is_empty()).count()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn namespace(number: usize) -> String {
    format!("f{}-{number}", std::process::id())
}

/// Executes the run without a fault of each scenario.
async fn execute_clean_runs(client: &Client, timings: Timings) -> BTreeMap<Scenario, RunResult> {
    let clean = Scenario::ALL
        .into_iter()
        .enumerate()
        .map(|(number, scenario)| async move {
            let run = Run {
                scenario,
                fault: Fault::None,
            };
            let result = execute(
                client,
                &format!("{}-clean", namespace(number)),
                &run,
                timings,
                None,
                (),
            )
            .await;
            println!(
                "{run}: {:.1} s, {} requests",
                result.took.as_secs_f64(),
                result.points.len()
            );
            (scenario, result)
        });
    futures::future::join_all(clean).await.into_iter().collect()
}

async fn execute_all(
    client: &Client,
    options: &Options,
    runs: Vec<Run>,
    clean: &BTreeMap<Scenario, RunResult>,
) -> Vec<RunResult> {
    let parallel = options
        .parallel
        .unwrap_or(if options.subset { 8 } else { 24 });
    let (permits, timings) = (Arc::new(Semaphore::new(parallel)), options.timings());
    let last_start = options
        .minutes
        .map(|m| Instant::now() + Duration::from_secs(60 * m));
    let total = runs.len();
    let ends: BTreeMap<Scenario, Value> = clean.iter().map(|(s, v)| (*s, v.end.clone())).collect();
    let ends = &ends;
    let mut results = Vec::new();
    let mut executed = futures::stream::iter(runs.into_iter().enumerate())
        .map(|(number, run)| {
            let permits = permits.clone();
            async move {
                let permit = permits.acquire_owned().await.unwrap();
                if last_start.is_some_and(|last| Instant::now() > last) {
                    return None;
                }
                let clean = ends.get(&run.scenario);
                Some(execute(client, &namespace(number), &run, timings, clean, permit).await)
            }
        })
        .buffer_unordered(parallel * RUNS_PER_PERMIT)
        .filter_map(futures::future::ready);
    while let Some(result) = executed.next().await {
        table::print_violations(&result);
        results.push(result);
        if !results.last().is_none_or(|v: &RunResult| v.reached) {
            println!("not reached: {}", results[results.len() - 1].run);
        }
        if results.len() % 25 == 0 {
            println!("{}/{total} runs", results.len());
        }
    }
    results
}
