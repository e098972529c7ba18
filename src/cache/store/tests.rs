#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn job(uid: &str, owner: &str, succeeded: i32) -> PartialJob {
    serde_json::from_value(
        json!({"metadata": {"name": "t", "namespace": "n", "uid": uid, "ownerReferences": [
        {"apiVersion": "v", "kind": "LoadTest", "name": "t", "uid": owner, "controller": true}]},
        "status": {"succeeded": succeeded}}),
    )
    .unwrap()
}

fn load_test(name: &str, version: &str) -> LoadTest {
    serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": version}, "spec": {"testScript": {}}}))
    .unwrap()
}

fn pod(name: &str, phase: &str) -> PartialPod {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name, "ownerReferences": [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "j", "controller": true}]}, "status": {"phase": phase}}))
    .unwrap()
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn key() -> ObjectRef {
    Arc::new(NamespacedName {
        namespace: "n".into(),
        name: "t".into(),
    })
}

#[test]
fn after_a_list_of_tests_all_are_looked_at_and_those_that_it_lacks_are_gone() {
    let mut store = Store::default();
    for (name, version) in [("t", "1"), ("gone", "2")] {
        store.apply_load_test_event(Event::Apply(load_test(name, version)));
    }
    assert!(
        store.apply_load_test_event(Event::Init).is_empty() && store.test(&key()).is_some(),
        "it is there while others are listed"
    );
    assert!(
        store
            .apply_load_test_event(Event::InitApply(load_test("t", "3")))
            .is_empty()
    );
    let mut concerned = store.apply_load_test_event(Event::InitDone);
    concerned.sort();
    assert_eq!(
        concerned,
        [
            Arc::new(NamespacedName {
                namespace: "n".into(),
                name: "gone".into()
            }),
            key()
        ]
    );
    assert_eq!(
        store
            .tests()
            .iter()
            .map(|t| t.resource_version())
            .collect::<Vec<_>>(),
        [Some("3".into())]
    );
    assert_eq!(
        store.apply_load_test_event(Event::Delete(load_test("t", "4"))),
        [key()]
    );
    assert!(store.tests().is_empty());
}

#[test]
fn the_key_of_a_test_is_kept_once() {
    let mut store = Store::default();
    let of_test = store
        .apply_load_test_event(Event::Apply(load_test("t", "1")))
        .remove(0);
    let of_job = store
        .apply_job_event(Event::Apply(job("j", "t", 0)))
        .remove(0);
    let of_pod = store
        .apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW)
        .remove(0);
    let newer = store
        .apply_load_test_event(Event::Apply(load_test("t", "2")))
        .remove(0);
    assert!(
        [of_job, of_pod, newer]
            .iter()
            .all(|key| Arc::ptr_eq(key, &of_test))
    );
}

#[test]
fn maps_do_not_keep_the_room_of_what_they_hold_no_more() {
    let mut map: HashMap<_, _> = (0..10_000).map(|n| (n, n)).collect();
    for n in 0..9_000 {
        map.remove(&n);
        shrink_if_sparse(&mut map);
    }
    assert!(
        map.len() == 1000 && map.capacity() < 5000,
        "{}",
        map.capacity()
    );
}

#[test]
fn a_job_belongs_to_the_test_whose_uid_it_names() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    assert!(matches!(
        store.job(&key(), "test-1"),
        Some(JobState::Owned(_))
    ));
    assert_eq!(store.job(&key(), "test-2"), Some(JobState::NotOwned));
}

#[test]
fn a_deleted_job_is_remembered_for_its_test_alone() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 1)));
    assert_eq!(
        store.apply_job_event(Event::Delete(job("j", "test-1", 2))),
        [key()]
    );
    assert!(
        matches!(store.job(&key(), "test-1"), Some(JobState::Deleted(Some(j))) if j.succeeded == 2)
    );
    assert_eq!(
        store.job(&key(), "test-2"),
        None,
        "a test created anew under the name may have its own Job"
    );
    store.forget_test(&key());
    assert_eq!(store.job(&key(), "test-1"), None);
}

#[test]
fn what_a_new_list_lacks_is_gone() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    store.apply_pod_event(Event::Apply(pod("t-0", "Running")), NOW);
    store.apply_pod_event(Event::Apply(pod("t-1", "Running")), NOW);
    store.apply_pod_event(Event::Init, NOW);
    store.apply_pod_event(Event::InitApply(pod("t-1", "Running")), NOW);
    assert_eq!(store.apply_pod_event(Event::InitDone, NOW), [key()]);
    let gone = |store: &Store| {
        store
            .workers("j")
            .iter()
            .filter(|w| w.deleted.as_ref().is_some_and(|d| d.removed))
            .count()
    };
    assert_eq!(gone(&store), 1, "remembered while its Job is there");
    store.apply_job_event(Event::Init);
    assert_eq!(store.apply_job_event(Event::InitDone), [key()]);
    assert!(matches!(
        store.job(&key(), "test-1"),
        Some(JobState::Deleted(_))
    ));
    assert_eq!((store.workers("j").len(), gone(&store)), (1, 0));
}

#[test]
fn an_event_that_changes_nothing_concerns_no_test() {
    let mut store = Store::default();
    assert_eq!(
        store
            .apply_job_event(Event::Apply(job("j", "test-1", 0)))
            .len(),
        1
    );
    assert!(
        store
            .apply_job_event(Event::Apply(job("j", "test-1", 0)))
            .is_empty()
    );
    assert_eq!(
        store
            .apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW)
            .len(),
        1
    );
    assert!(
        store
            .apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW)
            .is_empty()
    );
}

#[test]
fn what_a_worker_was_told_is_known_before_the_watch_tells_of_it() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    store.apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW);
    store.record_start_sent(&key(), "t-0", NOW, 1, NOW);
    store.record_start_sent(&key(), "t-1", NOW, 1, NOW);
    store.apply_pod_event(Event::Apply(pod("t-0", "Running")), NOW);
    let told: Vec<_> = store
        .workers("j")
        .iter()
        .map(|w| (w.start.instant, w.start.attempt))
        .collect();
    assert_eq!(
        told,
        [(Some(NOW), 1)],
        "an event from before it says nothing else"
    );
}

#[test]
fn an_answer_is_due_when_the_watch_has_shown_what_was_told_and_later_where_that_took_long() {
    let told = |annotation: &str| {
        let mut pod = pod("t-0", "Running");
        let start = (
            loadtest_api::labels::START_ANNOTATION.to_owned(),
            annotation.to_owned(),
        );
        pod.metadata.annotations = Some([start].into());
        pod
    };
    let at = |ms| Timestamp::from_millisecond(ms).unwrap();
    let due = |store: &Store| {
        store.workers("j")[0]
            .start
            .ack_deadline
            .map(Timestamp::as_millisecond)
    };
    for (shown, answer) in [(100, 1350), (2000, 6000)] {
        let mut store = Store::default();
        store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
        store.apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW);
        store.record_start_sent(&key(), "t-0", at(5000), 1, NOW);
        store.apply_pod_event(Event::Apply(pod("t-0", "Running")), at(50));
        assert_eq!(due(&store), None, "this is from before it was told");
        store.apply_pod_event(Event::Apply(told("1970-01-01T00:00:05.000Z")), at(shown));
        assert_eq!(due(&store), Some(answer));
        store.apply_pod_event(
            Event::Apply(told("1970-01-01T00:00:05.000Z")),
            at(shown + 500),
        );
        assert_eq!(due(&store), Some(answer), "more news makes it no later");
    }
    let mut restarted = Store::default();
    restarted.apply_pod_event(Event::InitApply(told("1970-01-01T00:00:05.000Z")), at(7000));
    assert_eq!(due(&restarted), Some(8250));
}

#[test]
fn of_a_test_that_has_ended_with_its_job_no_workers_are_kept() {
    let mut store = Store::default();
    let ended = |uid: &str| {
        let mut job = job(uid, "test-1", 1);
        job.status.conditions =
            serde_json::from_value(json!([{"type": "Complete", "status": "True"}])).unwrap();
        job
    };
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    store.apply_pod_event(Event::Apply(pod("t-0", "Succeeded")), NOW);
    assert_eq!(store.running_jobs(), 1);
    store.evict_workers(&key());
    assert_eq!(
        store.workers("j").len(),
        1,
        "the Job goes on, and is looked after"
    );
    store.apply_job_event(Event::Apply(ended("j")));
    store.evict_workers(&key());
    assert!(
        store
            .apply_pod_event(Event::Apply(pod("t-1", "Succeeded")), NOW)
            .is_empty()
    );
    assert!(
        store
            .apply_pod_event(Event::Delete(pod("t-0", "Succeeded")), NOW)
            .is_empty()
    );
    assert!(store.workers.is_empty());
    assert_eq!(store.running_jobs(), 0);
    store.apply_job_event(Event::Apply(job("new", "test-2", 0)));
    let of_new = |name| {
        let mut pod = pod(name, "Running");
        pod.metadata.owner_references.as_mut().unwrap()[0].uid = "new".into();
        pod
    };
    assert_eq!(
        store
            .apply_pod_event(Event::Apply(of_new("t-9")), NOW)
            .len(),
        1,
        "another Job of this name is another matter"
    );
}

#[test]
fn of_tests_that_had_ended_before_they_were_listed_no_workers_are_kept() {
    let mut store = Store::default();
    let mut done = job("j", "t", 1);
    done.status.conditions =
        serde_json::from_value(json!([{"type": "Complete", "status": "True"}])).unwrap();
    store.apply_job_event(Event::InitApply(done));
    let mut ended = load_test("t", "1");
    ended.status = serde_json::from_value(json!({"phase": "Completed"})).unwrap();
    store.apply_load_test_event(Event::InitApply(ended));
    store.apply_load_test_event(Event::InitDone);
    assert!(
        store
            .apply_pod_event(Event::InitApply(pod("t-0", "Succeeded")), NOW)
            .is_empty()
            && store.workers.is_empty()
    );
}

#[test]
fn a_late_deletion_of_an_older_job_leaves_the_newer_one() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("new", "test-2", 0)));
    assert!(
        store
            .apply_job_event(Event::Delete(job("old", "test-1", 0)))
            .is_empty()
    );
    assert!(matches!(
        store.job(&key(), "test-2"),
        Some(JobState::Owned(_))
    ));
}
