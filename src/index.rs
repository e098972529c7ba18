//! The tests in the cluster, with their Jobs and workers: pure. Fed by watches, read by `controller` and `observe`.
//!
//! It keeps the tests itself: the store of kube-runtime has four strings more for each, and during a list all of them twice.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use crate::api::v1alpha1::LoadTest;
use crate::decide::{SeenJob, is_over};
use crate::progress::{TestJob, Worker, WorkerJob, WorkerPod, controller};

/// The namespace and name of a test, and so of its Job. Those who keep one of a test share it with the [`Index`].
pub type Key = Arc<(String, String)>;

/// The tests in the cluster, with their Jobs and workers.
#[derive(Debug, Default)]
pub struct Index {
    tests: HashMap<Key, Arc<LoadTest>>,
    /// In boxes: half of a map's places may be empty.
    jobs: HashMap<Key, Box<Entry>>,
    /// By the UID of their Job.
    workers: HashMap<String, Workers>,
    /// Tests, Jobs, and pods by their Job's UID, not yet seen again since their watch began anew.
    unseen_tests: HashSet<Key>,
    unseen_jobs: HashSet<Key>,
    unseen_pods: HashSet<(String, String)>,
}

#[derive(Debug)]
struct Workers {
    test: Key,
    /// In the order of their pods' names.
    all: Vec<Arc<Worker>>,
}

impl Workers {
    /// Where the worker with this pod is, or else would be.
    fn place(&self, pod: &str) -> Result<usize, usize> {
        self.all
            .binary_search_by(|worker| worker.pod.as_str().cmp(pod))
    }

    fn of_pod(&mut self, pod: &str) -> Option<&mut Arc<Worker>> {
        let place = self.place(pod).ok()?;
        self.all.get_mut(place)
    }
}

#[derive(Debug)]
struct Entry {
    job: TestJob,
    /// Its Job is gone from the cluster; kept, so that the test can be told how it ended.
    gone: bool,
    /// Its test has ended, and so has the Job: nothing is asked of its workers any more, and they are not kept.
    settled: bool,
}

impl Entry {
    fn new(job: TestJob) -> Box<Self> {
        Box::new(Self {
            job,
            gone: false,
            settled: false,
        })
    }
}

impl Index {
    /// The test of this key.
    #[must_use]
    pub fn test(&self, key: &Key) -> Option<Arc<LoadTest>> {
        self.tests.get(key).cloned()
    }

    /// All tests.
    #[must_use]
    pub fn tests(&self) -> Vec<Arc<LoadTest>> {
        self.tests.values().cloned().collect()
    }

    /// The key as it is kept already, if it is.
    fn shared(&self, key: Key) -> Key {
        let of_test = self.tests.get_key_value(&key).map(|(kept, _)| kept);
        of_test
            .or_else(|| self.jobs.get_key_value(&key).map(|(kept, _)| kept))
            .cloned()
            .unwrap_or(key)
    }

    /// How many Jobs there are that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.jobs
            .values()
            .filter(|e| !e.gone && e.job.outcome.is_none())
            .count()
    }

    /// Drops the workers of a test that has ended, if its Job has ended too. They are most of what is kept of it.
    pub fn settle(&mut self, key: &Key) {
        let Some(entry) = self.jobs.get_mut(key).filter(|e| e.job.outcome.is_some()) else {
            return;
        };
        entry.settled = true;
        self.workers.remove(&entry.job.uid);
        give_back(&mut self.workers);
    }

    /// Whether there is a Job of this key, whosoever it is.
    #[must_use]
    pub fn has_job(&self, key: &Key) -> bool {
        self.jobs.contains_key(key)
    }

    /// What is known of the Job of the test with this key and UID.
    #[must_use]
    pub fn job(&self, key: &Key, test_uid: &str) -> Option<SeenJob> {
        let entry = self.jobs.get(key)?;
        let ours = entry.job.owner_uid.as_deref() == Some(test_uid);
        match (ours, entry.gone) {
            (true, false) => Some(SeenJob::Ours(entry.job.clone())),
            (true, true) => Some(SeenJob::Gone(Some(entry.job.clone()))),
            (false, false) => Some(SeenJob::Foreign),
            (false, true) => None,
        }
    }

    /// The workers of the Job with this UID.
    #[must_use]
    pub fn workers(&self, job_uid: &str) -> Vec<Arc<Worker>> {
        self.workers
            .get(job_uid)
            .map(|w| w.all.clone())
            .unwrap_or_default()
    }

    /// Takes in a Job read or created otherwise than by the watch. The watch may be ahead of it: it never replaces.
    pub fn note_job(&mut self, key: Key, job: TestJob) {
        match self.jobs.get(&key) {
            Some(entry) if entry.job.uid == job.uid => {}
            _ => {
                self.jobs.insert(self.shared(key), Entry::new(job));
            }
        }
    }

    /// Takes in that a worker of a test was told when to begin. The watch may be seconds behind: who goes by it would tell
    /// workers again, and even another instant.
    pub fn note_told(&mut self, key: &Key, pod: &str, at: Timestamp, times: u8, now: Timestamp) {
        let Some(entry) = self.jobs.get(key) else {
            return;
        };
        let Some(worker) = self
            .workers
            .get_mut(&entry.job.uid)
            .and_then(|w| w.of_pod(pod))
        else {
            return;
        };
        let worker = Arc::make_mut(worker);
        (worker.start_at, worker.told) = (Some(at), worker.told.max(times));
        worker.told_at = worker.told_at.or(Some(now));
    }

    /// Forgets what is kept of a test only for its sake.
    pub fn forget_test(&mut self, key: &Key) {
        if self.jobs.get(key).is_some_and(|entry| entry.gone) {
            self.jobs.remove(key);
        }
    }

    /// Takes in an event of the watch of tests; gives those that it concerns: after a list all, and those that it lacks.
    pub fn test_event(&mut self, event: Event<LoadTest>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.unseen_tests = self.tests.keys().cloned().collect();
                Vec::new()
            }
            Event::InitApply(test) => {
                let key = key(&test.metadata);
                self.unseen_tests.remove(&key);
                self.tests.insert(self.shared(key), Arc::new(test));
                Vec::new()
            }
            Event::Apply(test) => {
                let key = self.shared(key(&test.metadata));
                self.tests.insert(key.clone(), Arc::new(test));
                vec![key]
            }
            Event::Delete(test) => {
                let key = key(&test.metadata);
                self.tests.remove(&key);
                vec![key]
            }
            Event::InitDone => {
                let gone: Vec<Key> = std::mem::take(&mut self.unseen_tests).into_iter().collect();
                for key in &gone {
                    self.tests.remove(key);
                }
                // Nothing is asked of their workers any more, which may be listed next.
                let ended: Vec<Key> = self
                    .tests
                    .iter()
                    .filter(|(_, test)| is_over(test))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in &ended {
                    self.settle(key);
                }
                self.tests.keys().cloned().chain(gone).collect()
            }
        }
    }

    /// Takes in an event of the watch of Jobs; gives the tests that it concerns.
    pub fn job_event(&mut self, event: Event<WorkerJob>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.unseen_jobs = self
                    .jobs
                    .iter()
                    .filter(|(_, e)| !e.gone)
                    .map(|(k, _)| k.clone())
                    .collect();
                Vec::new()
            }
            Event::InitApply(job) | Event::Apply(job) => {
                let key = self.shared(key(&job.metadata));
                self.unseen_jobs.remove(&key);
                let job = TestJob::from_job(&job);
                match self.jobs.get(&key) {
                    Some(entry) if !entry.gone && entry.job == job => Vec::new(),
                    _ => {
                        self.jobs.insert(key.clone(), Entry::new(job));
                        vec![key]
                    }
                }
            }
            Event::Delete(job) => {
                let key = key(&job.metadata);
                let job = TestJob::from_job(&job);
                match self.jobs.get(&key) {
                    // The deletion of an older Job of the same name, told late.
                    Some(entry) if entry.job.uid != job.uid => Vec::new(),
                    _ => {
                        self.forget_gone_pods(&job.uid);
                        let (key, mut entry) = (self.shared(key), Entry::new(job));
                        entry.gone = true;
                        self.jobs.insert(key.clone(), entry);
                        vec![key]
                    }
                }
            }
            Event::InitDone => {
                let gone: Vec<Key> = std::mem::take(&mut self.unseen_jobs).into_iter().collect();
                for key in &gone {
                    let Some(entry) = self.jobs.get_mut(key) else {
                        continue;
                    };
                    entry.gone = true;
                    let uid = entry.job.uid.clone();
                    self.forget_gone_pods(&uid);
                }
                gone
            }
        }
    }

    /// Takes in an event of the watch of pods; gives the tests that it concerns.
    pub fn pod_event(&mut self, event: Event<WorkerPod>, now: Timestamp) -> Vec<Key> {
        match event {
            Event::Init => {
                let pods = |(job, workers): (&String, &Workers)| -> Vec<(String, String)> {
                    workers
                        .all
                        .iter()
                        .map(|worker| (job.clone(), worker.pod.clone()))
                        .collect()
                };
                self.unseen_pods = self.workers.iter().flat_map(pods).collect();
                Vec::new()
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some(job) = controller(&pod.metadata).filter(|o| o.kind == "Job") else {
                    return Vec::new();
                };
                let test = self.shared(Arc::new((
                    pod.namespace().unwrap_or_default(),
                    job.name.clone(),
                )));
                if self
                    .jobs
                    .get(&test)
                    .is_some_and(|e| e.settled && e.job.uid == job.uid)
                {
                    return Vec::new();
                }
                let worker = Worker::from_pod(&pod, &job.name);
                if !self.unseen_pods.is_empty() {
                    self.unseen_pods
                        .remove(&(job.uid.clone(), worker.pod.clone()));
                }
                let workers = self
                    .workers
                    .entry(job.uid.clone())
                    .or_insert_with(|| Workers {
                        test,
                        all: Vec::new(),
                    });
                match workers.place(&worker.pod) {
                    Ok(place) => {
                        let earlier = &mut workers.all[place];
                        let worker = worker.seen_after(Some(&**earlier), now);
                        if **earlier == worker {
                            return Vec::new();
                        }
                        *earlier = Arc::new(worker);
                    }
                    Err(place) => workers
                        .all
                        .insert(place, Arc::new(worker.seen_after(None, now))),
                }
                vec![workers.test.clone()]
            }
            Event::Delete(pod) => {
                let Some(job) = controller(&pod.metadata).filter(|o| o.kind == "Job") else {
                    return Vec::new();
                };
                // What is told with the deletion is the newest there is of the pod.
                let last = Worker::from_pod(&pod, &job.name);
                if let Some(earlier) = self
                    .workers
                    .get_mut(&job.uid)
                    .and_then(|w| w.of_pod(&last.pod))
                {
                    *earlier = Arc::new(last.clone().seen_after(Some(&**earlier), now));
                }
                let version = pod
                    .resource_version()
                    .and_then(|v| v.parse().ok())
                    .unwrap_or_default();
                self.remove_pod(&job.uid, &last.pod, version, now)
                    .into_iter()
                    .collect()
            }
            Event::InitDone => {
                let gone = std::mem::take(&mut self.unseen_pods);
                gone.iter()
                    .filter_map(|(job, pod)| self.remove_pod(job, pod, u64::MAX, now))
                    .collect()
            }
        }
    }

    /// While its Job is there, a pod that is gone is remembered: how the Job ends may be its doing.
    fn remove_pod(
        &mut self,
        job_uid: &str,
        pod: &str,
        version: u64,
        now: Timestamp,
    ) -> Option<Key> {
        let workers = self.workers.get_mut(job_uid)?;
        let place = workers.place(pod).ok()?;
        let test = workers.test.clone();
        if self
            .jobs
            .get(&test)
            .is_some_and(|entry| !entry.gone && entry.job.uid == job_uid)
        {
            let worker = &mut workers.all[place];
            *worker = Arc::new((**worker).clone().gone(version, now));
        } else {
            workers.all.remove(place);
            if workers.all.is_empty() {
                self.workers.remove(job_uid);
            }
        }
        Some(test)
    }

    /// Forgets the pods that were remembered only for the sake of their Job.
    fn forget_gone_pods(&mut self, job_uid: &str) {
        if let Some(workers) = self.workers.get_mut(job_uid) {
            workers
                .all
                .retain(|worker| !worker.deleted.as_ref().is_some_and(|d| d.gone));
            if workers.all.is_empty() {
                self.workers.remove(job_uid);
            }
        }
    }
}

/// The key of a test, or of its Job, by the metadata of either.
#[must_use]
pub fn key(meta: &ObjectMeta) -> Key {
    Arc::new((
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    ))
}

/// Gives back what a map had to take for far more than it holds now.
pub(crate) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests;
