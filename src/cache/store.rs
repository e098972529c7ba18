//! The store that the watches fill: LoadTests with their Jobs and workers. Pure.
//!
//! It keeps the LoadTests itself: kube-runtime's reflector store needs more strings for each, and twice the memory during a list.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use loadtest_api::v1alpha1::{LoadTest, Phase};

use super::key::{NamespacedName, ObjectRef, object_ref, shrink_if_sparse};
use super::stored_test::StoredTest;
use crate::state::{JobState, JobStatus, PartialJob, PartialPod, WorkerStatus, owning_job};

/// The LoadTests in the cluster, with their Jobs and workers.
#[derive(Debug, Default)]
pub struct Store {
    tests: HashMap<ObjectRef, StoredTest>,
    // Boxed: half of a map's slots may be empty.
    jobs: HashMap<ObjectRef, Box<JobEntry>>,
    workers: HashMap<JobRef, Workers>,
    tests_relist: Relist<ObjectRef>,
    jobs_relist: Relist<ObjectRef>,
    /// By the Job and the name of the pod.
    pods_relist: Relist<(JobRef, String)>,
}

/// What identifies a Job. The UID alone would not do: a pod in another namespace may claim it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct JobRef {
    /// Its namespace and name, which are those of its test.
    test: ObjectRef,
    uid: String,
}

/// The objects that a new list of a watch has not shown yet. Those that remain at its end were deleted meanwhile.
#[derive(Debug)]
struct Relist<K> {
    stale: HashSet<K>,
}

impl<K> Default for Relist<K> {
    fn default() -> Self {
        Self {
            stale: HashSet::new(),
        }
    }
}

impl<K: Eq + Hash> Relist<K> {
    fn begin(&mut self, known: impl Iterator<Item = K>) {
        self.stale = known.collect();
    }

    /// Marks an object as listed. The key is only made while a list is received.
    fn seen(&mut self, key: impl FnOnce() -> K) {
        if !self.stale.is_empty() {
            self.stale.remove(&key());
        }
    }

    fn finish(&mut self) -> Vec<K> {
        std::mem::take(&mut self.stale).into_iter().collect()
    }
}

/// The workers of a Job, sorted by the names of their pods.
#[derive(Debug, Default)]
struct Workers(Vec<Arc<WorkerStatus>>);

impl Workers {
    /// The position of the worker with this pod, or where it belongs.
    fn position(&self, pod: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|worker| worker.pod.as_str().cmp(pod))
    }

    fn by_pod_mut(&mut self, pod: &str) -> Option<&mut Arc<WorkerStatus>> {
        let position = self.position(pod).ok()?;
        self.0.get_mut(position)
    }
}

#[derive(Debug)]
struct JobEntry {
    job: JobStatus,
    /// The Job no longer exists. Kept until its test has recorded how it ended.
    deleted: bool,
    /// The test and its Job have ended, so no decision needs the workers.
    workers_evicted: bool,
}

impl JobEntry {
    fn new(job: JobStatus) -> Box<Self> {
        Box::new(Self {
            job,
            deleted: false,
            workers_evicted: false,
        })
    }
}

impl Store {
    /// The test.
    #[must_use]
    pub(crate) fn test(&self, key: &ObjectRef) -> Option<Arc<LoadTest>> {
        self.tests.get(key)?.unpack()
    }

    /// Whether the test has started; None if there is no such test.
    #[must_use]
    pub(crate) fn has_started(&self, key: &ObjectRef) -> Option<bool> {
        let test = self.tests.get(key)?;
        Some(test.phase().is_some_and(Phase::has_started))
    }

    /// All tests and their phases.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (&ObjectRef, Option<Phase>)> {
        self.tests.iter().map(|(key, test)| (key, test.phase()))
    }

    /// The tests that have started, which includes those that have finished.
    pub(crate) fn started_tests(&self) -> impl Iterator<Item = &Arc<LoadTest>> {
        self.tests.values().filter_map(StoredTest::started)
    }

    /// The copy of a reference that is already kept, if there is one.
    fn intern(&self, key: ObjectRef) -> ObjectRef {
        let of_test = self.tests.get_key_value(&key).map(|(kept, _)| kept);
        of_test
            .or_else(|| self.jobs.get_key_value(&key).map(|(kept, _)| kept))
            .cloned()
            .unwrap_or(key)
    }

    /// The number of Jobs that have not ended.
    #[must_use]
    pub(crate) fn running_jobs(&self) -> usize {
        self.jobs
            .values()
            .filter(|e| !e.deleted && e.job.outcome.is_none())
            .count()
    }

    /// Drops the workers of a finished test, if its Job has ended too. They are most of what is kept of it.
    pub(crate) fn evict_workers(&mut self, key: &ObjectRef) {
        let Some(entry) = self.jobs.get_mut(key).filter(|e| e.job.outcome.is_some()) else {
            return;
        };
        entry.workers_evicted = true;
        let job = JobRef {
            test: key.clone(),
            uid: entry.job.uid.clone(),
        };
        self.workers.remove(&job);
        shrink_if_sparse(&mut self.workers);
    }

    /// Whether a Job of this name exists, whoever owns it.
    #[must_use]
    pub(crate) fn has_job(&self, key: &ObjectRef) -> bool {
        self.jobs.contains_key(key)
    }

    /// The state of the Job of the test with this reference and UID, if the store knows it.
    #[must_use]
    pub fn job(&self, key: &ObjectRef, test_uid: &str) -> Option<JobState> {
        let entry = self.jobs.get(key)?;
        let owned = entry.job.owner_uid.as_deref() == Some(test_uid);
        match (owned, entry.deleted) {
            (true, false) => Some(JobState::Owned(entry.job.clone())),
            (true, true) => Some(JobState::Deleted(Some(entry.job.clone()))),
            (false, false) => Some(JobState::NotOwned),
            (false, true) => None,
        }
    }

    /// The workers of the Job of a test, by the Job's UID.
    #[must_use]
    pub fn workers(&self, test: &ObjectRef, job_uid: &str) -> Vec<Arc<WorkerStatus>> {
        let job = JobRef {
            test: test.clone(),
            uid: job_uid.to_owned(),
        };
        let workers = self.workers.get(&job);
        workers.map(|w| w.0.clone()).unwrap_or_default()
    }

    /// Records a Job that this process created or read. Never replaces what the watch has shown, which may be newer.
    pub(crate) fn record_own_job(&mut self, key: ObjectRef, job: JobStatus) {
        match self.jobs.get(&key) {
            Some(entry) if entry.job.uid == job.uid => {}
            _ => {
                self.jobs.insert(self.intern(key), JobEntry::new(job));
            }
        }
    }

    /// Records that the start instant was sent to a worker. The watch may be seconds behind; without this record the operator
    /// would send it again, or even a different one.
    pub(crate) fn record_start_sent(
        &mut self,
        key: &ObjectRef,
        pod: &str,
        instant: Timestamp,
        attempt: u8,
        now: Timestamp,
    ) {
        let Some(entry) = self.jobs.get(key) else {
            return;
        };
        let job = JobRef {
            test: key.clone(),
            uid: entry.job.uid.clone(),
        };
        let workers = self.workers.get_mut(&job);
        let Some(worker) = workers.and_then(|w| w.by_pod_mut(pod)) else {
            return;
        };
        let start = &mut Arc::make_mut(worker).start;
        if start.instant != Some(instant) {
            start.instant = Some(instant);
            (start.sent_at, start.ack_deadline) = (Some(now), None);
        }
        start.attempt = start.attempt.max(attempt);
    }

    /// Forgets a deleted Job whose test no longer exists.
    pub(crate) fn forget_test(&mut self, key: &ObjectRef) {
        if self.jobs.get(key).is_some_and(|entry| entry.deleted) {
            self.jobs.remove(key);
        }
    }

    /// Applies an event of the watch of LoadTests. Returns the tests to reconcile: after a list all, deleted ones included.
    pub(crate) fn apply_load_test_event(&mut self, event: Event<LoadTest>) -> Vec<ObjectRef> {
        match event {
            Event::Init => {
                self.tests_relist.begin(self.tests.keys().cloned());
                Vec::new()
            }
            Event::InitApply(test) => {
                let key = object_ref(&test.metadata);
                self.tests_relist.seen(|| key.clone());
                self.tests.insert(self.intern(key), test.into());
                Vec::new()
            }
            Event::Apply(test) => {
                let key = self.intern(object_ref(&test.metadata));
                self.tests.insert(key.clone(), test.into());
                vec![key]
            }
            Event::Delete(test) => {
                let key = object_ref(&test.metadata);
                self.tests.remove(&key);
                vec![key]
            }
            Event::InitDone => {
                let deleted = self.tests_relist.finish();
                for key in &deleted {
                    self.tests.remove(key);
                }
                // Before the pods are listed: no decision needs the workers of finished tests whose events are recorded.
                let finished: Vec<ObjectRef> = self
                    .tests
                    .iter()
                    .filter_map(|(key, test)| Some((key, test.started()?)))
                    .filter(|(_, test)| test.is_finished() && !test.misses_events())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in &finished {
                    self.evict_workers(key);
                }
                self.tests.keys().cloned().chain(deleted).collect()
            }
        }
    }

    /// Applies an event of the watch of Jobs. Returns the tests to reconcile.
    pub fn apply_job_event(&mut self, event: Event<PartialJob>) -> Vec<ObjectRef> {
        match event {
            Event::Init => {
                let known = self.jobs.iter().filter(|(_, e)| !e.deleted);
                self.jobs_relist.begin(known.map(|(key, _)| key.clone()));
                Vec::new()
            }
            Event::InitApply(job) | Event::Apply(job) => {
                let key = self.intern(object_ref(&job.metadata));
                self.jobs_relist.seen(|| key.clone());
                let job = JobStatus::from_job(&job);
                match self.jobs.get(&key) {
                    Some(entry) if !entry.deleted && entry.job == job => Vec::new(),
                    _ => {
                        self.jobs.insert(key.clone(), JobEntry::new(job));
                        vec![key]
                    }
                }
            }
            Event::Delete(job) => {
                let key = object_ref(&job.metadata);
                let job = JobStatus::from_job(&job);
                match self.jobs.get(&key) {
                    // A late event about an older Job of the same name.
                    Some(entry) if entry.job.uid != job.uid => Vec::new(),
                    _ => {
                        let key = self.intern(key);
                        self.forget_deleted_pods(JobRef {
                            test: key.clone(),
                            uid: job.uid.clone(),
                        });
                        let mut entry = JobEntry::new(job);
                        entry.deleted = true;
                        self.jobs.insert(key.clone(), entry);
                        vec![key]
                    }
                }
            }
            Event::InitDone => {
                let deleted = self.jobs_relist.finish();
                for key in &deleted {
                    let Some(entry) = self.jobs.get_mut(key) else {
                        continue;
                    };
                    entry.deleted = true;
                    let job = JobRef {
                        test: key.clone(),
                        uid: entry.job.uid.clone(),
                    };
                    self.forget_deleted_pods(job);
                }
                deleted
            }
        }
    }

    /// Applies an event of the watch of pods. Returns the tests to reconcile.
    pub fn apply_pod_event(&mut self, event: Event<PartialPod>, now: Timestamp) -> Vec<ObjectRef> {
        match event {
            Event::Init => {
                let pods = self.workers.iter().flat_map(|(job, workers)| {
                    let pod = |worker: &Arc<WorkerStatus>| (job.clone(), worker.pod.clone());
                    workers.0.iter().map(pod)
                });
                self.pods_relist.begin(pods);
                Vec::new()
            }
            Event::InitApply(pod) | Event::Apply(pod) => self.upsert_pod(&pod, now),
            Event::Delete(pod) => {
                let Some(job) = self.owning_job(&pod) else {
                    return Vec::new();
                };
                // The deletion event carries the last state of the pod.
                let last = WorkerStatus::from_pod(&pod, &job.test.name);
                let workers = self.workers.get_mut(&job);
                if let Some(earlier) = workers.and_then(|w| w.by_pod_mut(&last.pod)) {
                    *earlier = Arc::new(last.clone().merge_earlier(Some(&**earlier), now));
                }
                let version = pod.resource_version().and_then(|v| v.parse().ok());
                self.remove_pod(&job, &last.pod, version.unwrap_or_default(), now)
                    .into_iter()
                    .collect()
            }
            Event::InitDone => self
                .pods_relist
                .finish()
                .iter()
                .filter_map(|(job, pod)| self.remove_pod(job, pod, u64::MAX, now))
                .collect(),
        }
    }

    fn upsert_pod(&mut self, pod: &PartialPod, now: Timestamp) -> Vec<ObjectRef> {
        let Some(job) = self.owning_job(pod) else {
            return Vec::new();
        };
        let entry = self.jobs.get(&job.test);
        if entry.is_some_and(|e| e.workers_evicted && e.job.uid == job.uid) {
            return Vec::new();
        }
        let worker = WorkerStatus::from_pod(pod, &job.test.name);
        self.pods_relist.seen(|| (job.clone(), worker.pod.clone()));
        let test = job.test.clone();
        let workers = self.workers.entry(job).or_default();
        match workers.position(&worker.pod) {
            Ok(position) => {
                let earlier = &mut workers.0[position];
                let worker = worker.merge_earlier(Some(&**earlier), now);
                if **earlier == worker {
                    return Vec::new();
                }
                *earlier = Arc::new(worker);
            }
            Err(position) => workers
                .0
                .insert(position, Arc::new(worker.merge_earlier(None, now))),
        }
        vec![test]
    }

    /// While the Job exists, a removed pod is remembered: it may be the reason why the Job fails.
    fn remove_pod(
        &mut self,
        job: &JobRef,
        pod: &str,
        version: u64,
        now: Timestamp,
    ) -> Option<ObjectRef> {
        let workers = self.workers.get_mut(job)?;
        let position = workers.position(pod).ok()?;
        let entry = self.jobs.get(&job.test);
        if entry.is_some_and(|entry| !entry.deleted && entry.job.uid == job.uid) {
            let worker = &mut workers.0[position];
            *worker = Arc::new((**worker).clone().mark_deleted(version, now));
        } else {
            workers.0.remove(position);
            if workers.0.is_empty() {
                self.workers.remove(job);
            }
        }
        Some(job.test.clone())
    }

    /// Forgets the removed pods that were remembered only for their Job.
    fn forget_deleted_pods(&mut self, job: JobRef) {
        if let Entry::Occupied(mut workers) = self.workers.entry(job) {
            let is_removed =
                |worker: &WorkerStatus| worker.deleted.as_ref().is_some_and(|d| d.removed);
            workers.get_mut().0.retain(|worker| !is_removed(worker));
            if workers.get().0.is_empty() {
                workers.remove();
            }
        }
    }

    /// The Job of a worker's pod, in the pod's own namespace.
    fn owning_job(&self, pod: &PartialPod) -> Option<JobRef> {
        let owner = owning_job(&pod.metadata)?;
        let test = NamespacedName {
            namespace: pod.namespace().unwrap_or_default(),
            name: owner.name.clone(),
        };
        Some(JobRef {
            test: self.intern(Arc::new(test)),
            uid: owner.uid.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
