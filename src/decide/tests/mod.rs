#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use super::*;
use crate::state::{
    ConfigMapFiles, JobOutcome, JobStatus, ScriptState, StartBlocker, StartHandshake, StartState,
    WorkerFiles, WorkerState, WorkerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadtest_script::{Analysis, FilesHash};
use serde_json::json;

mod coordinated_start;
mod delivery;
mod failures;
mod finished;
mod pending;
mod readiness;
mod running;
mod starting;
mod verdict;

/// The deadline of a Job whose test sets none and has a script of unknown length.
const NO_DEADLINE: i64 = 600 + 7 * 24 * 3600;

const BEGIN: &str = "2026-01-01T00:00:00Z";

fn at(seconds: i64) -> Timestamp {
    BEGIN.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn test(count: i32) -> LoadTest {
    serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": "t", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1"},
        "spec": {"count": count, "testScript": {"config": {"configMap": "script"}}}}))
    .unwrap()
}

fn job() -> JobStatus {
    JobStatus {
        uid: "j".into(),
        owner_uid: Some("u".into()),
        created: Some(at(0)),
        started: Some(at(0)),
        active: 2,
        succeeded: 0,
        failed: 0,
        suspended: false,
        parallelism: i32::MAX,
        requested_deadline: Some(NO_DEADLINE),
        deadline: Some(NO_DEADLINE),
        deleting: false,
        ttl: None,
        failing: false,
        outcome: None,
    }
}

fn worker(index: u32, state: WorkerState) -> WorkerStatus {
    let started = !matches!(state, WorkerState::Pending { .. });
    WorkerStatus {
        ip: None,
        pod: format!("t-{index}-x"),
        uid: format!("p{index}"),
        index: Some(index),
        node: None,
        started,
        running_since: (state == WorkerState::Running).then(|| at(0)),
        ended: None,
        start: StartHandshake {
            state: if started {
                StartState::Acknowledged
            } else {
                StartState::Loading
            },
            instant: started.then(|| at(0)),
            attempt: u8::MAX,
            sent_at: None,
            ack_deadline: Some(at(0)),
        },
        snapshot: None,
        clock_offset: 0,
        has_sidecars: false,
        pod_outlives_worker: false,
        deleted: None,
        state,
    }
}

fn failed(index: u32, code: i32, message: &str) -> WorkerStatus {
    worker(
        index,
        WorkerState::Failed {
            exit_code: Some(code),
            reason: "Error".into(),
            message: Some(message.into()),
            container: None,
        },
    )
}

fn seen(job: JobState, workers: Vec<WorkerStatus>) -> Observed {
    let workers = workers.into_iter().map(Arc::new).collect();
    Observed {
        job,
        workers,
        script: ScriptState::NotRead,
        worker_files: WorkerFiles::Verified,
        blocker: None,
        ..Observed::default()
    }
}

/// A script in the test's `ConfigMap`.
fn read_script(analysis: Analysis) -> ScriptState {
    ScriptState::Read {
        config_maps: vec![ConfigMapFiles {
            name: "script".into(),
            keys: vec!["test-script.yaml".into()],
        }],
        analysis: Arc::new(analysis),
        files_hash: FilesHash::default(),
    }
}

fn plan(test: &LoadTest, observed: &Observed, seconds: i64) -> Plan {
    decide(test, observed, &WorkerConfig::default(), at(seconds))
}

/// Decides, and writes the status, as the operator does.
fn step(test: &mut LoadTest, observed: &Observed, seconds: i64) -> Plan {
    let plan = plan(test, observed, seconds);
    if let Some(status) = plan.status.clone() {
        test.status = Some(status);
    }
    plan
}

fn ended(succeeded: i32, outcome: JobOutcome) -> JobState {
    JobState::Owned(JobStatus {
        active: 0,
        succeeded,
        outcome: Some(outcome),
        ..job()
    })
}

fn creates(plan: &Plan) -> bool {
    matches!(plan.action, Some(Action::CreateJob(_)))
}

fn patched_field(plan: &Plan) -> Option<JobField> {
    match &plan.action {
        Some(Action::PatchJob(patch)) => Some(patch.field),
        _ => None,
    }
}

/// Sets fields of the spec.
fn with(mut test: LoadTest, spec: &serde_json::Value) -> LoadTest {
    let mut whole = serde_json::to_value(&test.spec).unwrap();
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    test.spec = serde_json::from_value(whole).unwrap();
    test
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|e| e.reason.as_str()).collect()
}
