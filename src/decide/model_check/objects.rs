//! Converts the objects of the model to those of Kubernetes.

use std::sync::LazyLock;

use loadtest_results::Snapshot;
use loadtest_results::testing::message;

use super::*;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
}

pub(super) fn load_test(test: Test, workers: usize, names: &Names) -> LoadTest {
    let mut object: LoadTest = serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": "t", "namespace": "n", "uid": format!("{}", test.uid), "generation": 1},
        "spec": {"count": workers, "stop": test.stop, "testScript": {"config": {"configMap": "s"}}}}))
    .unwrap();
    object.status = test
        .status
        .map(|id| names.statuses[usize::from(id)].clone());
    object
}

/// The deadline of a Job whose test sets none and has a script of unknown length.
const NO_DEADLINE: i64 = 600 + 7 * 24 * 3600;

pub(super) fn test_job(job: Job, pods: &[Pod]) -> JobStatus {
    let count = |is_wanted: fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|p| is_wanted(p)).count()).unwrap()
    };
    let outcome = job.outcome.map(|end| match end {
        End::Complete => JobOutcome::Complete { at: at(20) },
        End::Workers => failed("BackoffLimitExceeded"),
        End::Deadline => failed("DeadlineExceeded"),
    });
    let deadline = if job.at_once {
        TERMINATE_NOW_SECONDS
    } else {
        NO_DEADLINE
    };
    JobStatus {
        uid: job.uid.to_string(),
        owner_uid: Some(job.owner.to_string()),
        created: Some(at(1)),
        started: job.started.then(|| at(1)),
        active: count(|p| matches!(p, Pod::Running | Pod::StartSent(_) | Pod::Pending)),
        succeeded: count(|p| *p == Pod::Succeeded),
        failed: i32::from(job.failing.is_some()),
        suspended: job.suspended,
        parallelism: if job.emptied { 0 } else { i32::MAX },
        requested_deadline: Some(deadline),
        deadline: Some(deadline),
        ttl: None,
        deleting: false,
        failing: job.failing.is_some(),
        outcome,
    }
}

pub(super) fn failed(reason: &str) -> JobOutcome {
    JobOutcome::Failed {
        at: at(20),
        reason: reason.into(),
        message: "m".into(),
    }
}

/// What a worker leaves: the first one sent its load as planned, and the others were late.
fn snapshot(index: usize) -> Arc<Snapshot> {
    static SNAPSHOTS: LazyLock<[Arc<Snapshot>; 2]> = LazyLock::new(|| {
        [20_000, 60_000].map(|actual_ms| {
            let json = format!(
                r#"{{"final":true,"load":[9,9,20000,{actual_ms},0],"counters":{{"vusers.created":9,"vusers.completed":9}},"histograms":{{}}}}"#
            );
            Arc::new(Snapshot::from_message(&message(&json)).unwrap())
        })
    });
    SNAPSHOTS[usize::from(index > 0)].clone()
}

pub(super) fn worker((index, pod): (usize, &Pod)) -> WorkerStatus {
    let (state, started, deleted) = match *pod {
        Pod::Pending => (WorkerState::Pending { blocker: None }, false, None),
        Pod::Running | Pod::StartSent(_) => (WorkerState::Running, true, None),
        Pod::Succeeded => (WorkerState::Succeeded, true, None),
        Pod::Failed => (
            WorkerState::Failed {
                exit_code: Some(1),
                reason: "Error".into(),
                message: None,
                container: None,
            },
            true,
            None,
        ),
        Pod::Gone { ran, by_hand } => (
            WorkerState::Aborted,
            ran,
            Some(Deletion {
                grace_deadline: at(20),
                version: if by_hand { 1 } else { 2 },
                removed: true,
            }),
        ),
    };
    WorkerStatus {
        ip: None,
        pod: format!("t-{index}"),
        uid: format!("p{index}"),
        index: u32::try_from(index).ok(),
        node: None,
        started,
        clock_offset: 0,
        has_sidecars: false,
        running_since: None,
        ended: (state == WorkerState::Succeeded).then(|| at(20)),
        start: StartHandshake {
            state: match pod {
                Pod::Running => StartState::Ready,
                Pod::StartSent(_) => StartState::Acknowledged,
                _ => StartState::Loading,
            },
            instant: match pod {
                Pod::StartSent(at) => Some(*at),
                _ => None,
            },
            attempt: u8::MAX,
            sent_at: None,
            ack_deadline: Some(Timestamp::MIN),
        },
        snapshot: (*pod == Pod::Succeeded).then(|| snapshot(index)),
        pod_outlives_worker: false,
        deleted: deleted.map(Box::new),
        state,
    }
}
