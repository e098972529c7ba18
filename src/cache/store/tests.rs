#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn job(uid: &str, owner: &str, succeeded: i32) -> PartialJob {
    serde_json::from_value(
        json!({"metadata": {"name": "t", "namespace": "n", "uid": uid, "ownerReferences": [
        {"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "name": "t", "uid": owner, "controller": true}]},
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
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name,
        "labels": {"batch.kubernetes.io/controller-uid": "j", "batch.kubernetes.io/job-name": "t"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "j", "controller": true}]},
        "status": {"phase": phase}}))
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
fn relist_returns_all_tests_and_removes_missing_ones() {
    let mut store = Store::default();
    for (name, version) in [("t", "1"), ("gone", "2")] {
        store.apply_load_test_event(Event::Apply(load_test(name, version)));
    }
    assert!(
        store.apply_load_test_event(Event::Init).is_empty() && store.test(&key()).is_some(),
        "the test is kept during a relist"
    );
    assert!(
        store
            .apply_load_test_event(Event::InitApply(load_test("t", "3")))
            .is_empty()
    );
    let mut affected = store.apply_load_test_event(Event::InitDone);
    affected.sort();
    assert_eq!(
        affected,
        [
            Arc::new(NamespacedName {
                namespace: "n".into(),
                name: "gone".into()
            }),
            key()
        ]
    );
    assert_eq!(store.phases().count(), 1);
    let version = store.test(&key()).unwrap().resource_version();
    assert_eq!(version.as_deref(), Some("3"));
    assert_eq!(
        store.apply_load_test_event(Event::Delete(load_test("t", "4"))),
        [key()]
    );
    assert_eq!(store.phases().count(), 0);
}

#[test]
fn keys_are_interned() {
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
fn sparse_maps_shrink() {
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
fn job_belongs_to_the_test_with_its_owner_uid() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    assert!(matches!(
        store.job(&key(), "test-1"),
        Some(JobState::Owned(_))
    ));
    assert_eq!(store.job(&key(), "test-2"), Some(JobState::NotOwned));
}

#[test]
fn job_belongs_only_to_a_load_test_of_its_name() {
    for (field, value) in [
        ("kind", json!("CronJob")),
        ("apiVersion", json!("batch/v1")),
        (
            "apiVersion",
            json!("loadtest.artillery.io.example.org/v1alpha1"),
        ),
        ("name", json!("other")),
        ("controller", json!(false)),
    ] {
        let mut owner = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "name": "t", "uid": "test-1",
            "controller": true});
        owner[field] = value;
        let mut forged = job("j", "test-1", 0);
        forged.metadata.owner_references = serde_json::from_value(json!([owner])).unwrap();
        let mut store = Store::default();
        store.apply_job_event(Event::Apply(forged));
        let state = store.job(&key(), "test-1");
        assert_eq!(state, Some(JobState::NotOwned), "{owner}");
    }
}

#[test]
fn pod_that_the_job_controller_did_not_create_is_no_worker() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    for (pointer, value) in [
        ("/namespace", json!("other")),
        ("/labels", json!({})),
        (
            "/labels",
            json!({"batch.kubernetes.io/controller-uid": "j"}),
        ),
        (
            "/labels",
            json!({"batch.kubernetes.io/controller-uid": "k", "batch.kubernetes.io/job-name": "t"}),
        ),
        ("/ownerReferences/0/kind", json!("ReplicaSet")),
        (
            "/ownerReferences/0/apiVersion",
            json!("batch.example.org/v1"),
        ),
        ("/ownerReferences/0/controller", json!(false)),
        ("/ownerReferences/0/name", json!("other")),
        ("/ownerReferences/0/uid", json!("k")),
    ] {
        let mut metadata = serde_json::to_value(pod("t-0", "Running").metadata).unwrap();
        *metadata.pointer_mut(pointer).unwrap() = value;
        let forged = json!({"metadata": metadata, "status": {"phase": "Running"}});
        let forged: PartialPod = serde_json::from_value(forged).unwrap();
        let affected = store.apply_pod_event(Event::Apply(forged.clone()), NOW);
        assert!(!affected.contains(&key()), "{metadata}");
        assert!(store.workers(&key(), "j").is_empty(), "{metadata}");
        store.apply_pod_event(Event::Delete(forged), NOW);
        assert!(store.workers.is_empty(), "{metadata}");
    }
    store.apply_pod_event(Event::Apply(pod("t-0", "Running")), NOW);
    assert_eq!(store.workers(&key(), "j").len(), 1);
}

#[test]
fn deleted_job_is_remembered_only_for_its_own_test() {
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
        "a recreated test can have its own Job"
    );
    store.forget_test(&key());
    assert_eq!(store.job(&key(), "test-1"), None);
}

#[test]
fn objects_missing_from_a_relist_are_deleted() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    store.apply_pod_event(Event::Apply(pod("t-0", "Running")), NOW);
    store.apply_pod_event(Event::Apply(pod("t-1", "Running")), NOW);
    store.apply_pod_event(Event::Init, NOW);
    store.apply_pod_event(Event::InitApply(pod("t-1", "Running")), NOW);
    assert_eq!(store.apply_pod_event(Event::InitDone, NOW), [key()]);
    let removed = |store: &Store| {
        store
            .workers(&key(), "j")
            .iter()
            .filter(|w| w.deleted.as_ref().is_some_and(|d| d.removed))
            .count()
    };
    assert_eq!(
        removed(&store),
        1,
        "a removed worker is kept while its Job exists"
    );
    store.apply_job_event(Event::Init);
    assert_eq!(store.apply_job_event(Event::InitDone), [key()]);
    assert!(matches!(
        store.job(&key(), "test-1"),
        Some(JobState::Deleted(_))
    ));
    assert_eq!((store.workers(&key(), "j").len(), removed(&store)), (1, 0));
}

#[test]
fn unchanged_objects_trigger_no_reconcile() {
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
fn sent_start_is_recorded_before_the_watch_shows_it() {
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    store.apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW);
    store.record_start_sent(&key(), "t-0", NOW, 1, NOW);
    store.record_start_sent(&key(), "t-1", NOW, 1, NOW);
    store.apply_pod_event(Event::Apply(pod("t-0", "Running")), NOW);
    let sent: Vec<_> = store
        .workers(&key(), "j")
        .iter()
        .map(|w| (w.start.instant, w.start.attempt))
        .collect();
    assert_eq!(
        sent,
        [(Some(NOW), 1)],
        "an older event does not overwrite the record"
    );
}

#[test]
fn changed_annotation_replaces_what_was_sent_once_the_watch_has_shown_that() {
    let annotated = |instant: &str| {
        let mut pod = pod("t-0", "Running");
        let name = loadtest_api::labels::START_ANNOTATION.to_owned();
        pod.metadata.annotations = Some([(name, instant.to_owned())].into());
        pod
    };
    let [foreign, own] = ["1970-01-01T00:00:01.000Z", "1970-01-01T00:00:05.000Z"];
    let mut store = Store::default();
    store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
    let instant_after = |store: &mut Store, annotation: &str| {
        store.apply_pod_event(Event::Apply(annotated(annotation)), NOW);
        store.workers(&key(), "j")[0].start.instant
    };
    assert_eq!(instant_after(&mut store, foreign), foreign.parse().ok());
    store.record_start_sent(&key(), "t-0", own.parse().unwrap(), 1, NOW);
    assert_eq!(instant_after(&mut store, foreign), own.parse().ok());
    assert_eq!(instant_after(&mut store, own), own.parse().ok());
    assert_eq!(instant_after(&mut store, foreign), foreign.parse().ok());
}

#[test]
fn ack_deadline_starts_at_the_watched_annotation_and_grows_with_its_delay() {
    let annotated = |annotation: &str| {
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
        store.workers(&key(), "j")[0]
            .start
            .ack_deadline
            .map(Timestamp::as_millisecond)
    };
    for (shown, deadline) in [(100, 1350), (2000, 6000)] {
        let mut store = Store::default();
        store.apply_job_event(Event::Apply(job("j", "test-1", 0)));
        store.apply_pod_event(Event::Apply(pod("t-0", "Pending")), NOW);
        store.record_start_sent(&key(), "t-0", at(5000), 1, NOW);
        store.apply_pod_event(Event::Apply(pod("t-0", "Running")), at(50));
        assert_eq!(due(&store), None, "the annotation is not visible yet");
        store.apply_pod_event(
            Event::Apply(annotated("1970-01-01T00:00:05.000Z")),
            at(shown),
        );
        assert_eq!(due(&store), Some(deadline));
        store.apply_pod_event(
            Event::Apply(annotated("1970-01-01T00:00:05.000Z")),
            at(shown + 500),
        );
        assert_eq!(
            due(&store),
            Some(deadline),
            "later events do not extend the deadline"
        );
    }
    let mut restarted = Store::default();
    restarted.apply_pod_event(
        Event::InitApply(annotated("1970-01-01T00:00:05.000Z")),
        at(7000),
    );
    assert_eq!(due(&restarted), Some(8250));
}

#[test]
fn workers_of_a_finished_test_and_job_are_evicted() {
    let mut store = Store::default();
    let finished = |uid: &str| {
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
        store.workers(&key(), "j").len(),
        1,
        "workers are kept while the Job runs"
    );
    store.apply_job_event(Event::Apply(finished("j")));
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
        let label = "batch.kubernetes.io/controller-uid".to_owned();
        pod.metadata
            .labels
            .as_mut()
            .unwrap()
            .insert(label, "new".into());
        pod
    };
    assert_eq!(
        store
            .apply_pod_event(Event::Apply(of_new("t-9")), NOW)
            .len(),
        1,
        "another Job of the same name is not affected"
    );
}

#[test]
fn workers_of_tests_that_finished_before_the_list_are_not_kept() {
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
fn late_deletion_of_an_older_job_keeps_the_newer_one() {
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
