//! Writes running and finished LoadTests with their Jobs and pods directly, because simulating thousands of them from their
//! start takes too long. No controller changes them: the Jobs have a `managedBy` that no controller serves, and the pods a
//! scheduler name that no scheduler has.

use std::sync::Arc;
use std::time::Instant;

use artillery_operator::build::build_job;
use artillery_operator::config::WorkerConfig;
use artillery_operator::decide::decide;
use artillery_operator::state::{
    JobState, JobStatus, Observed, PartialJob, PartialPod, ScriptState, WorkerStatus,
};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use loadtest_script::ScriptInfo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::load_test;
use crate::support::nodes;
use crate::support::objects::from;

/// The stage of the tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    Running,
    Completed,
}

/// How many tests are written concurrently.
const CONCURRENCY: usize = 48;

/// Writes LoadTests of `count` workers, with their Jobs and pods, at one stage.
pub async fn seed(client: &Client, namespace: &str, tests: usize, count: usize, stage: Stage) {
    let begun = Instant::now();
    stream::iter(0..tests)
        .for_each_concurrent(CONCURRENCY, |i| {
            one(
                client,
                namespace,
                format!("{stage:?}-{i:05}").to_lowercase(),
                count,
                stage,
            )
        })
        .await;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "written: {tests} {stage:?} LoadTests with their Jobs and {} pods, in {took:.0} s",
        tests * count
    );
}

/// Writes `n` pods and Jobs that belong to no test.
pub async fn foreign(client: &Client, namespace: &str, n: usize) {
    let begun = Instant::now();
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let jobs = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let spec = json!({"schedulerName": "none", "restartPolicy": "Never", "containers": [{"name": "c", "image": "example.com/c"}]});
    stream::iter(0..n)
        .for_each_concurrent(CONCURRENCY, |i| {
            let (pods, jobs, spec) = (&pods, &jobs, &spec);
            async move {
                let metadata = json!({"name": format!("other-{i:06}"), "labels": {"app": "other"}});
                if i % 2 == 0 {
                    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
                    let _: Value = send(client, "POST", pods, &pod).await;
                } else {
                    let job = json!({"suspend": true, "managedBy": "bench.artillery.io/seed", "template": {"spec": spec}});
                    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job});
                    let _: Value = send(client, "POST", jobs, &job).await;
                }
            }
        })
        .await;
    println!(
        "written: {n} pods and Jobs of others, in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
}

async fn one(client: &Client, namespace: &str, name: String, count: usize, at: Stage) {
    let now = Timestamp::now();
    let (started, ended) = (time(now - SignedDuration::from_secs(2)), time(now));
    let tests = LoadTest::url_path(&(), Some(namespace));
    let jobs = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let pods = format!("/api/v1/namespaces/{namespace}/pods");

    let mut test = load_test(&name, count);
    (test["apiVersion"], test["kind"]) =
        ("loadtest.artillery.io/v1alpha1".into(), "LoadTest".into());
    let test: LoadTest = send(client, "POST", &tests, &test).await;
    let job = build_job(&test, &WorkerConfig::default(), &ScriptInfo::default());
    let mut made = serde_json::to_value(job).expect("a Job is JSON");
    made["spec"]["managedBy"] = "bench.artillery.io/seed".into();
    let template = made["spec"]["template"].clone();
    let created: PartialJob = send(client, "POST", &jobs, &made).await;

    let status = match at {
        Stage::Running => json!({"startTime": started, "active": count, "ready": count}),
        Stage::Completed => {
            json!({"startTime": started, "completionTime": ended, "succeeded": count, "ready": 0, "terminating": 0,
            "completedIndexes": if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) },
            "conditions": (["SuccessCriteriaMet", "Complete"].map(|c| json!({"type": c, "status": "True", "lastTransitionTime": ended,
                "lastProbeTime": ended, "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"})))})
        }
    };
    let made: PartialJob = send(
        client,
        "PATCH",
        &format!("{jobs}/{name}/status"),
        &json!({"status": status}),
    )
    .await;

    let mut workers = Vec::new();
    for index in 0..count {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
        pod["metadata"]["name"] = format!("{name}-{index}-abcde").into();
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] =
            index.to_string().into();
        pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = created.uid().into();
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name.as_str().into();
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": created.uid(),
            "controller": true, "blockOwnerDeletion": true}]);
        pod["spec"]["schedulerName"] = "none".into();
        let _: PartialPod = send(client, "POST", &pods, &pod).await;
        let (phase, state) = match at {
            Stage::Running => ("Running", json!({"running": {"startedAt": started}})),
            Stage::Completed => (
                "Succeeded",
                json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": nodes::results(), "startedAt": started,
                    "finishedAt": ended}}),
            ),
        };
        let container = &template["spec"]["containers"][0];
        let status = json!({"phase": phase, "startTime": started, "hostIP": "127.0.0.1", "podIP": "10.0.0.1",
            "containerStatuses": [{"name": container["name"], "image": container["image"], "imageID": "simulated",
                "started": at == Stage::Running, "ready": at == Stage::Running, "restartCount": 0, "state": state}]});
        let pod: PartialPod = send(
            client,
            "PATCH",
            &format!("{pods}/{name}-{index}-abcde/status"),
            &json!({"status": status}),
        )
        .await;
        workers.push(Arc::new(WorkerStatus::from_pod(&pod, &name)));
    }

    // The status that the operator would have written.
    let job = JobState::Owned(JobStatus::from_job(&made));
    let seen = Observed {
        job,
        workers,
        script: ScriptState::NotRead,
        worker_files: artillery_operator::state::WorkerFiles::Verified,
        ..Observed::default()
    };
    let status = decide(&test, &seen, &WorkerConfig::default(), now)
        .status
        .expect("there is a status to write");
    let _: Value = send(
        client,
        "PATCH",
        &format!("{tests}/{name}/status"),
        &json!({"status": status}),
    )
    .await;
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sends an object as JSON, which may have fields that are newer than the Rust types.
async fn send<T: DeserializeOwned>(client: &Client, method: &str, path: &str, object: &Value) -> T {
    let kind = if method == "PATCH" {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind);
    let request = request
        .body(object.to_string().into_bytes())
        .expect("this is a request");
    let answer: Value = client
        .request(request)
        .await
        .unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    from(answer)
}
