//! The CPU instructions of a decision and of an event, which do not depend on the machine and its load. This program runs
//! itself under valgrind, with few and with many repetitions; the difference is the repeated work alone.

use std::process::{Command, Stdio};
use std::sync::Arc;

use artillery_operator::cache::NamespacedName;
use artillery_operator::cache::store::Store;
use artillery_operator::config::WorkerConfig;
use artillery_operator::decide::decide;
use artillery_operator::state::{
    JobState, JobStatus, Observed, PartialJob, PartialPod, ScriptState, WorkerStatus,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::existing_load::count;
use crate::load_test;
use crate::support::objects::from;
use crate::table::{Line, print};

/// The repetitions of the short run, and the additional ones of the long run.
const FEW: usize = 3;
const MORE: usize = 50;

pub fn is_requested() -> bool {
    std::env::args().nth(1).is_some_and(|a| a == "work")
        || std::env::args().nth(2).is_some_and(|a| a == "instructions")
}

/// Measures all kinds of work. Under valgrind, does one of them.
pub fn measure() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, work, what, size, times] = args.as_slice()
        && work == "work"
    {
        let number = |text: &str| text.parse().expect("a number");
        return do_work(what, number(size), number(times));
    }
    let decisions = [2, 100, 1000].map(|workers| {
        (
            format!("decide, a running test of {workers} workers"),
            "decide",
            workers,
        )
    });
    let events = [0, 1000, 10_000].map(|others| {
        (
            format!("event of a pod, {others} other tests"),
            "event",
            others,
        )
    });
    let mut lines = Vec::new();
    let mut by_work = Vec::new();
    for (what, work, size) in decisions.into_iter().chain(events) {
        let instructions = (run(work, size, FEW + MORE) - run(work, size, FEW)) / count(MORE);
        by_work.push(instructions);
        lines.push(Line::info(
            &format!("{what}, instructions"),
            format!("{instructions:.0}"),
        ));
    }
    let [few_workers, _, many_workers, alone, _, among_many] = by_work[..] else {
        return;
    };
    lines.push(Line::at_most(
        "one more worker, relative to a decision on two",
        (many_workers - few_workers) / 998.0 / few_workers,
        3,
        1.0,
    ));
    lines.push(Line::at_most(
        "an event among 10,000 tests, relative to one alone",
        among_many / alone,
        2,
        1.1,
    ));
    print("instructions", &lines);
}

/// The instructions of this program while it repeats a kind of work.
fn run(work: &str, size: usize, times: usize) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["work", work, &size.to_string(), &times.to_string()])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind is installed: Debian has it in valgrind");
    let output = String::from_utf8_lossy(&output.stderr);
    let collected = output
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    collected
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or_else(|| panic!("valgrind reports no count:\n{output}"))
}

fn do_work(what: &str, size: usize, times: usize) {
    let now = Timestamp::from_second(1_767_225_660).expect("a time");
    if what == "decide" {
        let mut test: LoadTest = from(with_metadata(load_test("t-0", size)));
        let workers = (0..size)
            .map(|i| Arc::new(WorkerStatus::from_pod(&pod(0, i, 1), "t-0")))
            .collect();
        let seen = Observed {
            job: JobState::Owned(JobStatus::from_job(&job(0))),
            workers,
            script: ScriptState::NotRead,
            worker_files: artillery_operator::state::WorkerFiles::Verified,
            ..Observed::default()
        };
        let settings = WorkerConfig::default();
        test.status = decide(&test, &seen, &settings, now).status;
        for _ in 0..times {
            std::hint::black_box(decide(std::hint::black_box(&test), &seen, &settings, now));
        }
        return;
    }
    let mut store = Store::default();
    for i in 0..=size {
        store.apply_job_event(Event::Apply(job(i)));
        store.apply_pod_event(Event::Apply(pod(i, 0, 0)), now);
    }
    let events: Vec<_> = (1..=times).map(|second| pod(0, 0, second)).collect();
    let key = Arc::new(NamespacedName {
        namespace: "bench".into(),
        name: "t-0".into(),
    });
    for event in events {
        std::hint::black_box(store.apply_pod_event(Event::Apply(event), now));
        std::hint::black_box(store.job(&key, "u-0"));
        std::hint::black_box(store.workers(&key, "j-0"));
    }
}

fn with_metadata(mut test: Value) -> Value {
    (test["apiVersion"], test["kind"]) =
        ("loadtest.artillery.io/v1alpha1".into(), "LoadTest".into());
    test["metadata"] = json!({"name": "t-0", "namespace": "bench", "uid": "u-0", "resourceVersion": "1", "generation": 1});
    test
}

fn job(test: usize) -> PartialJob {
    from(
        json!({"metadata": {"name": format!("t-{test}"), "namespace": "bench", "uid": format!("j-{test}"), "ownerReferences": [
        {"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "name": format!("t-{test}"), "uid": format!("u-{test}"), "controller": true}]},
        "status": {"active": 2, "startTime": "2026-01-01T00:00:00Z"}}),
    )
}

fn pod(test: usize, index: usize, second: usize) -> PartialPod {
    let job = format!("t-{test}");
    from(
        json!({"metadata": {"name": format!("{job}-{index}-abcde"), "namespace": "bench", "uid": format!("p-{test}-{index}"),
        "annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()},
        "labels": {"batch.kubernetes.io/controller-uid": format!("j-{test}"), "batch.kubernetes.io/job-name": job},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": format!("j-{test}"), "controller": true}]},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "containerStatuses": [{"name": job,
            "state": {"running": {"startedAt": format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)}}}]}}),
    )
}
