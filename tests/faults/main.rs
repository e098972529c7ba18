//! Lets one fault after another befall the operator's program, between a real API server and itself, and judges what
//! comes of it by what others see. `hack/test-faults.sh` runs it.
//!
//! `plan` lists the faults, `world` carries out a run, `proxy` and `stream` let a request's fault happen, `history` sees
//! what comes of it, `judge` and `end` judge that, and `audit` asks the API server's own record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod end;
mod history;
mod judge;
mod others;
mod plan;
mod process;
mod proxy;
mod stream;
mod table;
mod view;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use loadtest_api::{crd::crd, v1alpha1::LoadTest};
use serde_json::Value;
use tokio::sync::Semaphore;

use plan::{Fault, Point, Run, Scenario};
use world::{Pace, Verdict, carry_out};

const USAGE: &str = "usage: faults [--subset | --all | --only NAME]... [--list] [--seed N] [--parallel N] [--minutes N]

Learns the operator's requests by runs without a fault, and then lets one fault befall each of many runs.
  --subset      some faults of every kind that does not take long, chosen by the seed
  --all         all of them
  --only NAME   those whose name contains NAME, such as 'completes: create jobs 1'; can be given more than once
  --list        say which they would be, and end
  --seed N      another subset, and another order
  --parallel N  so many runs at a time (8 of a subset, else 24)
  --minutes N   begin no run after so many minutes
From the environment:
  KUBECONFIG    the administrator's (one file); the API server's audit log is audit.log beside it";

/// How many runs the subset has: what is done within four minutes on two processors.
const SUBSET: usize = 150;

/// The runs that wait for silence cost nothing: there may be many more of these.
const WAITING: usize = 5;

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
    /// None where the arguments ask for nothing.
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
            runs.truncate(SUBSET);
        }
        runs
    }

    fn pace(&self) -> Pace {
        let seconds = Duration::from_secs;
        if self.subset {
            Pace {
                heal: seconds(2),
                limit: seconds(100),
                quiet: seconds(3),
            }
        } else {
            Pace {
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
    let (client, since) = (connect(&kubeconfig).await, audit::length(&log));
    let clean = learn(&client, options.pace()).await;
    let mut failed = 0;
    for verdict in clean.values() {
        failed += usize::from(table::tell_violations(verdict));
    }
    let learned: Vec<(Scenario, Vec<Point>)> =
        clean.iter().map(|(s, v)| (*s, v.points.clone())).collect();
    let all = plan::all(&learned);
    let (planned, runs) = (all.len(), options.choose(all));
    println!(
        "{planned} faults are known; {} are tried; seed {}",
        runs.len(),
        options.seed
    );
    if options.list {
        for run in &runs {
            println!("{run}");
        }
        return ExitCode::SUCCESS;
    }
    let mut verdicts = carry_out_all(&client, &options, runs, &clean).await;
    verdicts.extend(clean.into_values());
    let by_audit = audit::judge(&log, since, &verdicts);
    for line in &by_audit {
        println!("VIOLATION by the audit log: {line}");
    }
    failed += verdicts
        .iter()
        .filter(|v| v.run.fault != Fault::None && !v.violations.is_empty())
        .count()
        + by_audit.len();
    println!("\n{}", table::table(&verdicts));
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    println!(
        "{} passed, {failed} failed",
        verdicts.iter().filter(|v| v.violations.is_empty()).count()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn connect(kubeconfig: &std::path::Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is usable");
    // What is repeated in secret would be a fault that nobody has asked for.
    config.default_retry = false;
    let client = Client::try_from(config).expect("the kubeconfig is usable");
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crd();
    crds.patch(
        &crd.name_any(),
        &PatchParams::apply("tests").force(),
        &Patch::Apply(&crd),
    )
    .await
    .expect("the CRD is accepted");
    await_condition(crds, &crd.name_any(), conditions::is_crd_established())
        .await
        .unwrap();
    // The API server answers a watch of a kind that it has only just learnt by asking for patience.
    let tests: Api<LoadTest> = Api::all(client.clone());
    let short = WatchParams::default().timeout(1);
    while tests.watch(&short, "0").await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client
}

fn namespace(number: usize) -> String {
    format!("f{}-{number}", std::process::id())
}

/// The clean run of each scenario.
async fn learn(client: &Client, pace: Pace) -> BTreeMap<Scenario, Verdict> {
    let clean = Scenario::ALL
        .into_iter()
        .enumerate()
        .map(|(number, scenario)| async move {
            let run = Run {
                scenario,
                fault: Fault::None,
            };
            let verdict = carry_out(
                client,
                &format!("{}-clean", namespace(number)),
                &run,
                pace,
                None,
                (),
            )
            .await;
            println!(
                "{run}: {:.1} s, {} requests",
                verdict.took.as_secs_f64(),
                verdict.points.len()
            );
            (scenario, verdict)
        });
    futures::future::join_all(clean).await.into_iter().collect()
}

async fn carry_out_all(
    client: &Client,
    options: &Options,
    runs: Vec<Run>,
    clean: &BTreeMap<Scenario, Verdict>,
) -> Vec<Verdict> {
    let parallel = options
        .parallel
        .unwrap_or(if options.subset { 8 } else { 24 });
    let (busy, pace) = (Arc::new(Semaphore::new(parallel)), options.pace());
    let last_begin = options
        .minutes
        .map(|m| Instant::now() + Duration::from_secs(60 * m));
    let total = runs.len();
    let ends: BTreeMap<Scenario, Value> = clean.iter().map(|(s, v)| (*s, v.end.clone())).collect();
    let ends = &ends;
    let mut verdicts = Vec::new();
    let mut carried_out = futures::stream::iter(runs.into_iter().enumerate())
        .map(|(number, run)| {
            let busy = busy.clone();
            async move {
                let turn = busy.acquire_owned().await.unwrap();
                if last_begin.is_some_and(|last| Instant::now() > last) {
                    return None;
                }
                let clean = ends.get(&run.scenario);
                Some(carry_out(client, &namespace(number), &run, pace, clean, turn).await)
            }
        })
        .buffer_unordered(parallel * WAITING)
        .filter_map(futures::future::ready);
    while let Some(verdict) = carried_out.next().await {
        table::tell_violations(&verdict);
        verdicts.push(verdict);
        if !verdicts.last().is_none_or(|v: &Verdict| v.reached) {
            println!("not reached: {}", verdicts[verdicts.len() - 1].run);
        }
        if verdicts.len() % 25 == 0 {
            println!("{}/{total} runs", verdicts.len());
        }
    }
    verdicts
}
