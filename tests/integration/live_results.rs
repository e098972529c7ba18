//! Results of running workers.

use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::Pod;
use loadtest_api::v1alpha1::{LoadTest, Results};
use serde_json::json;

use crate::support::audit;
use crate::support::live_worker::{Behavior, Worker, final_message};
use crate::support::{TestEnv, condition, control_plane};

/// A worker that runs, and serves its results.
async fn start_worker(env: &TestEnv, pod: &Pod, behavior: Behavior) -> Worker {
    env.set_running(pod).await;
    Worker::start(&env.api(), pod, behavior).await
}

fn results(test: &LoadTest) -> Option<&Results> {
    test.status.as_ref()?.results.as_deref()
}

async fn until_live(
    env: &TestEnv,
    name: &str,
    what: &str,
    check: impl Fn(&Results) -> bool,
) -> LoadTest {
    env.until_test(name, what, |test| results(test).is_some_and(&check))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_running_workers_are_shown_and_add_up_to_the_final_ones() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("live", 2, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("live", 2).await;
    let workers = [
        start_worker(&env, &pods[0], Behavior::Normal).await,
        start_worker(&env, &pods[1], Behavior::Normal).await,
    ];
    let first = until_live(&env, "live", "live results", |r| r.live && r.requests > 0).await;
    let shown = results(&first).unwrap();
    assert_eq!(shown.workers_reporting, "2 of 2");
    assert!(shown.as_of.is_some() && shown.p95.is_some());
    assert!(first.status.as_ref().unwrap().verdict.is_none());
    let requests = shown.requests;
    until_live(&env, "live", "newer results", |r| r.requests > requests).await;

    // Another process continues the series.
    env.operator(0).terminate().await;
    env.start_operator(&[]).await;
    let before = results(&env.api::<LoadTest>().get("live").await.unwrap())
        .unwrap()
        .clone();
    let later = until_live(&env, "live", "results after a restart", |r| {
        r.as_of > before.as_of
    })
    .await;
    let series = results(&later).unwrap().series.clone().unwrap();
    let recorded = before.series.unwrap();
    assert!(
        series.requests.starts_with(&recorded.requests),
        "{series:?} {recorded:?}"
    );

    let sent = [workers[0].sent(), workers[1].sent()].map(|sent| u32::try_from(sent).unwrap());
    for (pod, sent) in pods.iter().zip(sent) {
        env.set_exited(pod, 0, &final_message(sent)).await;
    }
    let ended = env.until_phase("live", "Completed").await;
    let ended = results(&ended).unwrap();
    assert!(!ended.live && ended.as_of.is_none());
    let series = ended.series.clone().unwrap();
    assert_eq!(ended.requests, i64::from(sent[0] + sent[1]));
    assert_eq!(series.requests.iter().sum::<i64>(), ended.requests);
    assert_eq!(
        series.vusers_created.iter().sum::<i64>(),
        ended.vusers_created
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_workers_that_end_while_no_operator_runs_adds_up() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("gap", 2, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("gap", 2).await;
    let _workers = [
        start_worker(&env, &pods[0], Behavior::Normal).await,
        start_worker(&env, &pods[1], Behavior::Normal).await,
    ];
    let live = until_live(&env, "gap", "live results", |r| r.requests > 0).await;
    let recorded = results(&live).unwrap();
    assert!(recorded.p95.is_some());
    env.operator(0).terminate().await;
    env.set_exited(&pods[0], 0, &final_message(1000)).await;
    env.set_exited(&pods[1], 1, "Error: out of sockets").await;

    env.start_operator(&[]).await;
    let ended = env.until_phase("gap", "Failed").await;
    let ended = results(&ended).unwrap();
    assert_eq!(
        (ended.requests, ended.live, &ended.as_of),
        (1000, false, &None)
    );
    let series = ended.series.as_ref().unwrap();
    assert_eq!(series.requests.iter().sum::<i64>(), 1000, "{series:?}");
    assert_eq!(series.vusers_created.iter().sum::<i64>(), 1000);
    assert!(
        series
            .requests
            .starts_with(&recorded.series.as_ref().unwrap().requests)
    );
    // The results of the worker that failed are lost.
    assert_eq!(ended.workers_reporting, "1 of 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_were_read_do_not_remain_where_the_workers_leave_none() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("lost", 1, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("lost", 1).await;
    let _worker = start_worker(&env, &pods[0], Behavior::Normal).await;
    until_live(&env, "lost", "live results", |r| r.p95.is_some()).await;
    env.set_exited(&pods[0], 137, "").await;
    let ended = env.until_phase("lost", "Failed").await;
    let ended = results(&ended).unwrap();
    assert_eq!(ended.workers_reporting, "0 of 1");
    assert_eq!(
        (ended.requests, &ended.p95, ended.histograms.len()),
        (0, &None, 0)
    );
    let series = ended.series.as_ref().unwrap();
    assert!(series.requests.iter().all(|n| *n == 0), "{series:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_workers_affect_only_their_own_contribution() {
    let env = TestEnv::with_operator(control_plane()).await;
    let behaviors = [
        Behavior::Normal,
        Behavior::Silent,
        Behavior::Slow,
        Behavior::Endless,
        Behavior::Garbage,
        Behavior::OtherPod,
        Behavior::Redirect,
        Behavior::ManyMetrics,
    ];
    let count = i32::try_from(behaviors.len()).unwrap();
    env.load_test_with("hostile", count, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("hostile", behaviors.len()).await;
    let mut workers = Vec::new();
    for (pod, behavior) in pods.iter().zip(behaviors) {
        workers.push(start_worker(&env, pod, behavior).await);
    }
    let shown = until_live(&env, "hostile", "live results", |r| r.requests > 0).await;
    let shown = results(&shown).unwrap();
    assert_eq!(shown.workers_reporting, "1 of 8");
    assert!(shown.requests <= workers[0].sent(), "{}", shown.requests);
    for worker in &workers {
        assert!(worker.asked.load(Ordering::Relaxed) >= 1);
    }
    for pod in &pods {
        env.set_exited(pod, 0, "").await;
    }
    env.until_phase("hostile", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_cannot_be_read_are_reported_and_run_to_their_end() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("closed", 1, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("closed", 1).await;
    let _worker = start_worker(&env, &pods[0], Behavior::Closed).await;
    let reported = env
        .until_test("closed", "that the worker cannot be read", |test| {
            let conditions = test.status.iter().flat_map(|s| &s.conditions);
            conditions
                .into_iter()
                .any(|c| c.type_ == "LiveResultsAvailable")
        })
        .await;
    let (status, reason, message) = condition(&reported, "LiveResultsAvailable");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "WorkersUnreachable")
    );
    assert!(
        message.contains("port 8899: Connection refused"),
        "{message}"
    );
    env.set_exited(&pods[0], 0, "").await;
    let ended = env.until_phase("closed", "Completed").await;
    let conditions = &ended.status.as_ref().unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "LiveResultsAvailable"));
}

/// The operator of `make run` may be on a machine from which no pod can be reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_that_cannot_reach_pods_reports_it_once_for_each_test() {
    let log = control_plane().with_file_name("audit.log");
    let since = audit::length(&log);
    let mut env = TestEnv::with_operator(control_plane()).await;
    for (name, reads) in [("outside", true), ("off", false)] {
        // No worker may run longer than its script.
        let script = "config: {target: x, phases: [{duration: 600, arrivalRate: 1}]}\nscenarios: [{flow: []}]";
        let spec =
            json!({"start": "Immediate", "liveResults": reads, "testScript": {"inline": script}});
        env.load_test_with(name, 1, spec).await;
    }
    let pods = [env.pods("outside", 1).await, env.pods("off", 1).await].concat();
    let mut workers = Vec::new();
    for pod in &pods {
        workers.push(start_worker(&env, pod, Behavior::Closed).await);
    }
    let is_reported = |test: &LoadTest| {
        let mut conditions = test.status.iter().flat_map(|s| &s.conditions);
        conditions.any(|c| c.type_ == "LiveResultsAvailable")
    };
    let reported = env.until_test("outside", "the report", is_reported).await;
    let namespace = env.namespace.clone();
    let writes = |name: &str| {
        let of_test =
            |r: &audit::Request| r.is_write() && r.name == name && r.resource == "loadtests/status";
        audit::requests(&log, since, &namespace)
            .filter(of_test)
            .count()
    };
    let before = writes("off");
    env.until("three refreshes", async || {
        (writes("off") >= before + 3).then_some(())
    })
    .await;
    // The condition, and a refresh that falls into the same second.
    assert!(
        writes("outside") <= writes("off") + 2,
        "{} {}",
        writes("outside"),
        writes("off")
    );
    let log = env.operator(0).log();
    let lines = |name: &str| log.lines().filter(|line| line.contains(name)).count();
    assert_eq!(lines("\"outside\""), lines("\"off\""), "{log}");
    assert_eq!(lines("WARN"), 0, "{log}");
    assert_eq!(
        env.event_reasons("outside").await,
        env.event_reasons("off").await
    );
    let later = env.api::<LoadTest>().get("outside").await.unwrap();
    let find = |test: &LoadTest| {
        let mut conditions = test.status.as_ref().unwrap().conditions.iter();
        conditions
            .find(|c| c.type_ == "LiveResultsAvailable")
            .cloned()
    };
    assert_eq!(find(&later), find(&reported));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_whose_abort_condition_holds_is_ended_with_the_value() {
    let env = TestEnv::with_operator(control_plane()).await;
    let abort = json!([{"when": "http.response_time.p99 > 500"}]);
    env.load_test_with("slow", 1, json!({"start": "Immediate", "abort": abort}))
        .await;
    let pods = env.pods("slow", 1).await;
    let worker = start_worker(&env, &pods[0], Behavior::Normal).await;
    until_live(&env, "slow", "live results", |r| r.live).await;
    worker.latency.store(2000, Ordering::Relaxed);
    let stopping = env.until_phase("slow", "Stopping").await;
    let (_, reason, message) = condition(&stopping, "Progressing");
    assert_eq!(reason, "AbortConditionMet");
    assert!(
        message.contains("http.response_time.p99 > 500") && message.contains("p99 is 2"),
        "{message}"
    );
    let ended = env.until_phase("slow", "Failed").await;
    assert_eq!(condition(&ended, "Failed").1, "AbortConditionMet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_condition_without_live_results_keeps_the_test_from_starting() {
    let env = TestEnv::with_operator(control_plane()).await;
    for (name, spec, problem) in [
        (
            "off",
            json!({"liveResults": false, "abort": [{"when": "http.requests > 1"}]}),
            "needs live results",
        ),
        (
            "invalid",
            json!({"abort": [{"when": "p95 > 1"}]}),
            "did you mean http.response_time.p95?",
        ),
    ] {
        env.load_test_with(name, 1, spec).await;
        let pending = env.until_phase(name, "Pending").await;
        let (_, reason, message) = condition(&pending, "Progressing");
        assert_eq!(reason, "InvalidThreshold");
        assert!(message.contains(problem), "{message}");
    }
}
