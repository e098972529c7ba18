//! The lifecycle of a test: creation, start, end, deletion and recreation.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, control_plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_that_no_operator_has_processed_is_not_ready_by_the_rules_of_kstatus() {
    let env = TestEnv::new(control_plane()).await;
    env.load_test("unprocessed", 1).await;
    let test = env.api::<LoadTest>().get("unprocessed").await.unwrap();
    // kstatus compares the two, and calls an object without conditions ready if they are equal.
    let observed = test.status.as_ref().and_then(|s| s.observed_generation);
    assert_eq!((observed, test.metadata.generation), (Some(-1), Some(1)));
    assert_eq!(test.phase(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completed_test_reports_counts_conditions_and_events() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("basic", 2).await;
    let pods = env.pods("basic", 2).await;
    let starting = env.until_phase("basic", "Starting").await;
    assert_eq!(condition(&starting, "Progressing").0, "True");
    assert_eq!(starting.status.unwrap().completions.as_deref(), Some("0/2"));

    env.set_running(&pods[0]).await;
    env.set_running(&pods[1]).await;
    let running = env.until_phase("basic", "Running").await;
    assert_eq!(
        condition(&running, "Progressing"),
        (
            "True".into(),
            "Running".into(),
            "All 2 workers are running.".into()
        )
    );
    assert_eq!(running.status.as_ref().unwrap().active, 2);

    env.set_exited(&pods[0], 0, "").await;
    env.set_exited(&pods[1], 0, "").await;
    let done = env.until_phase("basic", "Completed").await;
    let status = done.status.as_ref().unwrap();
    let shown: Vec<_> = status
        .conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    let expected = [
        "Progressing",
        "Completed",
        "Failed",
        "Ready",
        "Passed",
        "ResultsComplete",
        "LoadDelivered",
    ]
    .into_iter()
    .zip(["False", "True", "False", "True", "True", "True", "Unknown"]);
    assert_eq!(shown, expected.collect::<Vec<_>>());
    assert_eq!((status.active, status.succeeded, status.failed), (0, 2, 0));
    assert_eq!(status.completions.as_deref(), Some("2/2"));
    assert_eq!(status.observed_generation, Some(1));
    let (start, end) = (
        status.start_time.as_ref().unwrap(),
        status.completion_time.as_ref().unwrap(),
    );
    assert_eq!(
        status.duration,
        Some(format!("{}s", end.0.duration_since(start.0).as_secs()))
    );

    let events = env.events("basic").await;
    let normal = |reason: &str, message: String| ("Normal".to_owned(), reason.to_owned(), message);
    let running = |i: usize| {
        normal(
            "Running",
            format!("Running Load Test worker pod: {}", pods[i].name_any()),
        )
    };
    assert_eq!(
        events[0],
        normal(
            "Created",
            "Created Load Test worker master job: basic".into()
        )
    );
    assert!(
        events[1..3].contains(&running(0)) && events[1..3].contains(&running(1)),
        "{events:?}"
    );
    assert_eq!(
        events[3],
        normal(
            "Completed",
            "Completed Load Test: all 2 workers succeeded.".into()
        )
    );
    assert_eq!(events.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_worker_is_named_with_the_last_line_of_its_log() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("broken", 2).await;
    let pods = env.pods("broken", 2).await;
    env.set_running(&pods[0]).await;
    env.set_running(&pods[1]).await;
    env.until_phase("broken", "Running").await;
    env.set_exited(
        &pods[1],
        11,
        "some lines\nError: Cannot find module './processor.js'\n",
    )
    .await;
    let failed = env.until_phase("broken", "Failed").await;
    let (status, reason, message) = condition(&failed, "Failed");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WorkerFailed"));
    let name = pods[1].name_any();
    assert!(
        message
            .starts_with(&format!("Worker 1 (pod {name}) failed with exit code 11: Error: Cannot find module './processor.js'")),
        "{message}"
    );
    assert!(
        message.ends_with(&format!("See: kubectl logs -n {} {name}", env.namespace)),
        "{message}"
    );
    let status = failed.status.unwrap();
    assert_eq!(
        (status.failed, status.succeeded, status.active),
        (1, 0, 0),
        "the stopped worker is not counted as failed"
    );
    assert!(status.completion_time.is_some());
    assert_eq!(
        condition(&env.until_phase("broken", "Failed").await, "Completed").0,
        "False"
    );
    let events = env.events("broken").await;
    let last = events.last().unwrap();
    assert_eq!((last.0.as_str(), last.1.as_str()), ("Warning", "Failed"));
    assert!(last.2.contains(&name), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_event_requires_a_running_container() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("pull", 2).await;
    let pods = env.pods("pull", 2).await;
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    env.set_pod(&pods[0], "Pending", waiting).await;
    env.set_running(&pods[1]).await;
    let blocked = env
        .until_test("pull", "the waiting pod is reported", |t| {
            t.status.as_ref().is_some_and(|s| {
                s.conditions[0]
                    .message
                    .contains("ImagePullBackOff: no such image")
            })
        })
        .await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains(&pods[0].name_any())
    );
    env.until("the running worker has an event", async || {
        let events = env.events("pull").await;
        (events.iter().filter(|e| e.1 == "Running").count() == 1).then_some(())
    })
    .await;
    let is_about_waiting_pod =
        |e: &(String, String, String)| e.1 == "Running" && e.2.contains(&pods[0].name_any());
    assert!(!env.events("pull").await.iter().any(is_about_waiting_pod));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_event_covers_all_workers_above_fifty() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("many", 51).await;
    for pod in env.pods("many", 51).await {
        env.set_running(&pod).await;
    }
    env.until_phase("many", "Running").await;
    let running: Vec<_> = env
        .events("many")
        .await
        .into_iter()
        .filter(|e| e.1 == "Running")
        .map(|e| e.2)
        .collect();
    assert_eq!(running, ["Running 51 Load Test worker pods"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_job_fails_the_test_and_is_not_recreated() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("lost", 1).await;
    let pods = env.pods("lost", 1).await;
    env.set_running(&pods[0]).await;
    env.until_phase("lost", "Running").await;
    env.delete::<Job>("lost").await;
    let failed = env.until_phase("lost", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobDeleted");
    env.until_none::<Pod>("artillery.io/test-name=lost").await;
    // Another test runs to its end. By then the operator would have recreated the deleted Job.
    env.load_test("next", 1).await;
    env.set_exited(&env.pods("next", 1).await[0], 0, "").await;
    env.until_phase("next", "Completed").await;
    assert!(env.api::<Job>().get_opt("lost").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_test_is_never_written_again() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("done", 1).await;
    env.set_exited(&env.pods("done", 1).await[0], 0, "").await;
    let done = env.until_phase("done", "Completed").await;
    env.delete::<Job>("done").await;
    env.until_none::<Pod>("artillery.io/test-name=done").await;
    env.operator(0).kill().await;
    env.start_operator(&[]).await;
    env.load_test("next", 1).await;
    env.set_exited(&env.pods("next", 1).await[0], 0, "").await;
    env.until_phase("next", "Completed").await;
    let after = env.api::<LoadTest>().get("done").await.unwrap();
    assert_eq!(
        after.resource_version(),
        done.resource_version(),
        "the finished test is not written again"
    );
    assert!(env.api::<Job>().get_opt("done").await.unwrap().is_none());
    assert_eq!(
        env.event_reasons("done").await,
        ["Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_running_test_removes_its_job_and_pods() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("gone", 2).await;
    for pod in env.pods("gone", 2).await {
        env.set_running(&pod).await;
    }
    env.until_phase("gone", "Running").await;
    env.delete::<LoadTest>("gone").await;
    env.until_none::<Job>("artillery.io/test-name=gone").await;
    env.until_none::<Pod>("artillery.io/test-name=gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreated_test_takes_over_nothing_of_its_predecessor() {
    let env = TestEnv::with_operator(control_plane()).await;
    let first = env.load_test("again", 1).await;
    env.set_exited(&env.pods("again", 1).await[0], 1, "boom")
        .await;
    env.until_phase("again", "Failed").await;
    env.delete::<LoadTest>("again").await;
    let second = env.load_test("again", 1).await;
    assert_ne!(first.uid(), second.uid());
    let pod = env
        .until("the new test has a pod", async || {
            let jobs = env.api::<Job>().get_opt("again").await.unwrap()?;
            (jobs.owner_references()[0].uid == second.uid().unwrap()).then_some(())?;
            let pods = env
                .api::<Pod>()
                .list(&kube::api::ListParams::default())
                .await
                .unwrap()
                .items;
            pods.into_iter()
                .find(|p| p.owner_references()[0].uid == jobs.uid().unwrap())
        })
        .await;
    env.set_exited(&pod, 0, "").await;
    let done = env.until_phase("again", "Completed").await;
    assert_eq!(
        done.status.unwrap().failed,
        0,
        "failures of the deleted test are not counted"
    );
}
