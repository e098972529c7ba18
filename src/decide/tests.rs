#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use serde_json::json;

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

fn job() -> TestJob {
    TestJob {
        uid: "j".into(),
        owner_uid: Some("u".into()),
        started: Some(at(0)),
        active: 2,
        succeeded: 0,
        failed: 0,
        outcome: None,
    }
}

fn worker(index: u32, state: WorkerState) -> Worker {
    let started = !matches!(state, WorkerState::Pending { .. });
    Worker { pod: format!("t-{index}-x"), uid: format!("p{index}"), index: Some(index), started, ended: None, state }
}

fn failed(index: u32, code: i32, message: &str) -> Worker {
    worker(index, WorkerState::Failed { exit_code: Some(code), reason: "Error".into(), message: Some(message.into()) })
}

fn seen(job: SeenJob, workers: Vec<Worker>) -> Observed {
    Observed { job, workers, script: Script::Found }
}

fn plan(test: &LoadTest, observed: &Observed, seconds: i64) -> Plan {
    decide(test, observed, &WorkerSettings::default(), at(seconds))
}

/// Decides, and writes what is to be written, as the operator does.
fn step(test: &mut LoadTest, observed: &Observed, seconds: i64) -> Plan {
    let plan = plan(test, observed, seconds);
    if let Some(status) = plan.status.clone() {
        test.status = Some(status);
    }
    plan
}

fn ended(succeeded: i32, outcome: Outcome) -> SeenJob {
    SeenJob::Ours(TestJob { active: 0, succeeded, outcome: Some(outcome), ..job() })
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|e| e.reason.as_str()).collect()
}

#[test]
fn the_record_comes_before_the_job_and_is_written_again_with_every_attempt() {
    let mut test = test(2);
    let first = step(&mut test, &seen(SeenJob::None, vec![]), 0);
    assert_eq!(first.status.as_ref().unwrap().phase, Some(Phase::Starting));
    assert_eq!(first.create.as_ref().unwrap().metadata.name.as_deref(), Some("t"));
    assert!(first.events.is_empty(), "the Job is not there yet");
    // The operator ended before it created the Job: the write proves that what it sees now is not out of date.
    let again = plan(&test, &seen(SeenJob::None, vec![]), 5);
    assert!(again.status.is_some() && again.create.is_some());
}

#[test]
fn a_whole_run_takes_three_writes_besides_refreshes() {
    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let pending = || worker(0, WorkerState::Pending { obstacle: None });
    let ours = || SeenJob::Ours(job());
    let created = step(&mut test, &seen(ours(), vec![pending()]), 0);
    assert_eq!((created.status.is_some(), reasons(&created)), (false, vec!["Created"]));
    let one = step(&mut test, &seen(ours(), vec![worker(0, WorkerState::Running), pending()]), 1);
    assert_eq!((one.status.is_some(), reasons(&one)), (false, vec!["Created", "Running"]));
    let both = [0, 1].map(|i| worker(i, WorkerState::Running)).to_vec();
    let running = step(&mut test, &seen(ours(), both.clone()), 2);
    assert_eq!(running.status.as_ref().unwrap().phase, Some(Phase::Running));
    assert_eq!(reasons(&running), ["Created", "Running", "Running"]);
    assert_eq!(running.look_again, Some(at(12)));

    for seconds in 2..12 {
        let quiet = step(&mut test, &seen(ours(), both.clone()), seconds);
        assert!(quiet.status.is_none() && quiet.events.is_empty(), "at {seconds} s");
        assert_eq!(quiet.look_again, Some(at(12)));
    }
    let refresh = step(&mut test, &seen(ours(), both.clone()), 12);
    assert_eq!(refresh.status.unwrap().duration.as_deref(), Some("12s"));

    let done = step(&mut test, &seen(ended(2, Outcome::Complete { at: at(14) }), both), 15);
    let status = done.status.clone().unwrap();
    assert_eq!(reasons(&done), ["Completed"]);
    assert_eq!((status.phase, status.duration.as_deref()), (Some(Phase::Completed), Some("14s")));
    assert_eq!(status.completion_time, Some(Time(at(14))));
}

#[test]
fn the_end_is_told_by_the_workers_before_the_job_tells_it() {
    let succeeded = |index, seconds| Worker { ended: Some(at(seconds)), ..worker(index, WorkerState::Succeeded) };
    let one = plan(&test(2), &seen(SeenJob::Ours(job()), vec![succeeded(0, 7)]), 8);
    assert_eq!(one.status.unwrap().phase, Some(Phase::Starting), "not all have succeeded");
    let twice = plan(&test(2), &seen(SeenJob::Ours(job()), vec![succeeded(0, 7), succeeded(0, 8)]), 8);
    assert_ne!(twice.status.unwrap().phase, Some(Phase::Completed), "two pods of one worker are not two workers");
    let both = plan(&test(2), &seen(SeenJob::Ours(job()), vec![succeeded(0, 7), succeeded(1, 9)]), 10);
    let status = both.status.unwrap();
    assert_eq!((status.phase, status.completions.as_deref()), (Some(Phase::Completed), Some("2/2")));
    assert_eq!((status.completion_time, status.duration.as_deref(), status.active), (Some(Time(at(9))), Some("9s"), 0));
}

#[test]
fn an_ended_or_deleted_test_needs_nothing() {
    let mut test = test(1);
    step(&mut test, &seen(ended(1, Outcome::Complete { at: at(3) }), vec![]), 4);
    for job in [SeenJob::None, SeenJob::Gone(None), SeenJob::Foreign, SeenJob::Ours(job())] {
        let plan = plan(&test, &seen(job, vec![]), 100);
        assert!(plan.status.is_none() && plan.create.is_none() && plan.events.is_empty() && plan.look_again.is_none());
    }
    let mut deleted = self::test(1);
    deleted.metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(plan(&deleted, &seen(SeenJob::None, vec![]), 0).create.is_none());
}

#[test]
fn counts_and_phase_never_run_backwards() {
    let mut test = test(3);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let workers = [0, 1, 2].map(|i| worker(i, WorkerState::Running)).to_vec();
    step(&mut test, &seen(SeenJob::Ours(TestJob { succeeded: 2, ..job() }), workers), 1);
    let stale = step(&mut test, &seen(SeenJob::Ours(job()), vec![]), 20);
    let status = stale.status.unwrap();
    assert_eq!((status.succeeded, status.completions.as_deref(), status.phase), (2, Some("2/3"), Some(Phase::Running)));
}

#[test]
fn an_obstacle_is_told_at_once_and_only_when_it_changes() {
    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let stuck = |why: &str| seen(SeenJob::Ours(job()), vec![worker(0, WorkerState::Pending { obstacle: Some(why.into()) })]);
    let told = step(&mut test, &stuck("ImagePullBackOff: no such image"), 1);
    let condition = &told.status.unwrap().conditions[0];
    assert_eq!(condition.message, "starting 2 workers in the Job t; t-0-x waits: ImagePullBackOff: no such image");
    assert!(plan(&test, &stuck("ImagePullBackOff: no such image"), 2).status.is_none());
    assert!(plan(&test, &stuck("ErrImagePull: timeout"), 2).status.is_some());
}

#[test]
fn what_keeps_a_test_from_starting_is_told_once_and_waited_for() {
    let mut test = test(1);
    let missing = Observed { script: Script::NoConfigMap, ..seen(SeenJob::None, vec![]) };
    let told = step(&mut test, &missing, 0);
    assert_eq!((reasons(&told), told.wait_for.clone()), (vec!["MissingTestScript"], Some(WaitFor::ConfigMap("script".into()))));
    assert!(told.events[0].warning && told.create.is_none() && told.look_again.is_none());
    assert!(step(&mut test, &missing, 1).status.is_none(), "no write while nothing changes");
    let key = Observed { script: Script::NoKey(vec![]), ..seen(SeenJob::None, vec![]) };
    assert!(step(&mut test, &key, 2).status.unwrap().conditions[0].message.contains("(it has: none)"));
    let foreign = step(&mut test, &seen(SeenJob::Foreign, vec![]), 3);
    assert_eq!((reasons(&foreign), foreign.wait_for), (vec!["NameConflict"], Some(WaitFor::Job("t".into()))));
    assert!(foreign.create.is_none());
    let refused = step(&mut test, &seen(SeenJob::Refused("exceeded quota".into()), vec![]), 4);
    assert!(refused.status.unwrap().conditions[0].message.contains("exceeded quota"));
    assert!(step(&mut test, &seen(SeenJob::None, vec![]), 5).create.is_some(), "it starts when it can");
}

#[test]
fn a_failure_names_the_worker_and_tells_failed_from_stopped() {
    let outcome = Outcome::Failed { at: at(9), reason: "BackoffLimitExceeded".into(), message: "limit".into() };
    let workers = vec![failed(2, 11, "one\nlast words\n"), worker(0, WorkerState::Aborted), worker(1, WorkerState::Aborted)];
    let plan = plan(&test(3), &seen(ended(0, outcome), workers), 10);
    let status = plan.status.unwrap();
    assert_eq!((status.phase, status.failed, status.active), (Some(Phase::Failed), 1, 0));
    assert_eq!(
        status.conditions[2].message,
        "worker 2 (pod t-2-x) failed with exit code 11: last words; 2 workers stopped because of it; see: kubectl logs -n n t-2-x"
    );
    assert_eq!(status.conditions.iter().filter(|c| c.status == "True").count(), 1, "exactly one condition holds");
    // A failure that was over before anybody looked still tells its beginning.
    assert_eq!(plan.events.iter().map(|e| e.reason.as_str()).next(), Some("Created"));
    assert_eq!(plan.events.last().map(|e| (e.warning, e.reason)), Some((true, Reason::Failed)));
}

#[test]
fn of_many_failures_the_first_worker_speaks() {
    let outcome = Outcome::Failed { at: at(9), reason: "BackoffLimitExceeded".into(), message: "limit".into() };
    let workers = vec![failed(1, 1, "b"), failed(0, 1, "a")];
    let message = plan(&test(2), &seen(ended(0, outcome), workers), 10).status.unwrap().conditions[2].message.clone();
    assert!(message.starts_with("worker 0 (pod t-0-x) failed with exit code 1: a; 1 worker failed too; see:"), "{message}");
}

#[test]
fn a_failure_without_a_failed_pod_says_that_pods_are_gone() {
    let outcome = Outcome::Failed { at: at(9), reason: "BackoffLimitExceeded".into(), message: "limit".into() };
    let gone = ended(0, outcome);
    let SeenJob::Ours(job) = gone else { unreachable!() };
    let observed = seen(SeenJob::Ours(TestJob { failed: 2, ..job }), vec![worker(0, WorkerState::Aborted)]);
    let status = plan(&test(2), &observed, 10).status.unwrap();
    assert_eq!(status.failed, 1, "one at least has failed");
    assert!(status.conditions[2].message.contains("deleted or lost"), "{}", status.conditions[2].message);
}

#[test]
fn a_job_that_went_before_its_end_was_seen_counts_as_it_was_seen_last() {
    let SeenJob::Ours(complete) = ended(1, Outcome::Complete { at: at(3) }) else { unreachable!() };
    let done = plan(&test(1), &seen(SeenJob::Gone(Some(complete)), vec![]), 9).status.unwrap();
    assert_eq!((done.phase, done.succeeded), (Some(Phase::Completed), 1));
    let lost = plan(&test(1), &seen(SeenJob::Gone(Some(job())), vec![]), 9);
    let status = lost.status.unwrap();
    assert_eq!((status.phase, status.conditions[2].reason.as_str()), (Some(Phase::Failed), "JobDeleted"));
    assert_eq!(status.duration.as_deref(), Some("9s"));
    assert!(lost.create.is_none());
}

#[test]
fn above_fifty_workers_one_event_tells_of_all() {
    let workers = |n: u32| (0..n).map(|i| worker(i, WorkerState::Running)).collect::<Vec<_>>();
    let told = |count: i32, n: u32| reasons(&plan(&test(count), &seen(SeenJob::Ours(job()), workers(n)), 1)).len();
    assert_eq!((told(50, 50), told(51, 50), told(51, 51)), (51, 1, 2));
}
