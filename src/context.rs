//! What every reconcile needs: the client, the configuration, and what this process knows.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{LoadTest, Phase};
use loadtest_results::series::MIN_STEP_SECONDS;
use loadtest_script::{Analysis, FilesHash};
use tokio::sync::{Semaphore, watch};

use crate::cache::TtlCache;
use crate::cache::live::{LiveStore, Target, TargetWorker};
use crate::cache::object_ref;
use crate::cache::own_writes::OwnWrites;
use crate::cache::store::Store;
use crate::cache::turns::Turns;
use crate::cache::warnings::WarningsCache;
use crate::config::WorkerConfig;
use crate::runtime::lock;
use crate::runtime::metrics::Metrics;
use crate::state::{JobState, WorkerState, WorkerStatus};

/// How long a script is kept: many tests of one script that are created at once read it once. Not longer, because a test that is
/// created after its script was edited must find the edit.
const SCRIPT_CACHE_TTL: Duration = Duration::from_millis(500);

/// How long a namespace is assumed to have the worker files. The kubelet mounts them later still: whoever may delete and create
/// ConfigMaps can replace them after any check.
const WORKER_FILES_CACHE_TTL: Duration = Duration::from_secs(60);

/// How many tests that are too large for the store may start at a time.
const MAX_LARGE_TESTS: usize = 2;

/// How many `ConfigMap`s are read at a time.
const MAX_CONFIG_MAP_READS: usize = 4;

/// How long the number of running Jobs is kept: counting them visits all.
const RUNNING_COUNT_TTL: Duration = Duration::from_secs(5);

/// The fields of the status that the installed CRD does not have.
pub type MissingStatusFields = Arc<[String]>;

/// What every reconcile needs.
pub(crate) struct Context {
    /// The client. It does not retry.
    pub client: Client,
    /// The configuration of all workers.
    pub config: WorkerConfig,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What this process wrote and the watch may not show yet.
    pub own_writes: OwnWrites,
    /// The `ConfigMap`s of scripts.
    pub scripts: TtlCache<ScriptKey, Arc<CachedConfigMap>>,
    /// How many large tests may start at a time. Each is held several times over: as read, as a Job, and as responses.
    pub large_tests: Arc<Semaphore>,
    /// How many `ConfigMap`s are read at a time. Each may have a megabyte.
    pub config_map_reads: Semaphore,
    /// The namespaces whose worker files this process created or verified.
    pub worker_files: TtlCache<String, ()>,
    /// Whose turn it is to verify or create the worker files of a namespace.
    pub worker_files_turns: Turns,
    /// What the workers of running tests reported last.
    pub live: LiveStore,
    /// The warnings that the cluster's controllers recorded.
    pub warnings: WarningsCache,
    /// What the API server would drop of a status.
    pub missing_fields: watch::Receiver<MissingStatusFields>,
    store: Mutex<Store>,
    running_jobs: TtlCache<(), usize>,
    synced: watch::Sender<HasSynced>,
}

/// What identifies a cached `ConfigMap`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScriptKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The key of the script and its environment, where this `ConfigMap` holds the script.
    pub script: Option<(String, Option<String>)>,
}

/// What is kept of a `ConfigMap`.
#[derive(Debug, Default)]
pub(crate) struct CachedConfigMap {
    /// Its keys.
    pub keys: Vec<String>,
    /// The analysis of the script, where this `ConfigMap` holds it.
    pub analysis: Arc<Analysis>,
    /// The hash of its files.
    pub hash: FilesHash,
}

/// Which watches have delivered their first complete list.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HasSynced {
    /// The watch of LoadTests.
    pub tests: bool,
    /// The watch of Jobs.
    pub jobs: bool,
    /// The watch of pods.
    pub pods: bool,
}

impl Context {
    /// A context that knows nothing yet.
    #[must_use]
    pub(crate) fn new(
        client: Client,
        config: WorkerConfig,
        metrics: Arc<Metrics>,
        missing_fields: watch::Receiver<MissingStatusFields>,
    ) -> Self {
        Self {
            client,
            config,
            metrics,
            own_writes: OwnWrites::default(),
            scripts: TtlCache::new(SCRIPT_CACHE_TTL),
            large_tests: Arc::new(Semaphore::new(MAX_LARGE_TESTS)),
            config_map_reads: Semaphore::new(MAX_CONFIG_MAP_READS),
            worker_files: TtlCache::new(WORKER_FILES_CACHE_TTL),
            worker_files_turns: Turns::default(),
            live: LiveStore::default(),
            warnings: WarningsCache::default(),
            missing_fields,
            store: Mutex::default(),
            running_jobs: TtlCache::new(RUNNING_COUNT_TTL),
            synced: watch::Sender::default(),
        }
    }

    /// The store, locked. Do not hold it across an `await`.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// How many Jobs run, as of a few seconds ago.
    pub(crate) fn running_jobs(&self, now: Instant) -> usize {
        self.running_jobs.get(&(), now).unwrap_or_else(|| {
            let running = self.store().running_jobs();
            self.running_jobs.insert((), running, now);
            running
        })
    }

    /// The running tests whose workers are due.
    pub(crate) fn targets_due(&self, now: Timestamp) -> Vec<Target> {
        let store = self.store();
        let target = |test: &Arc<LoadTest>| self.target(&store, test, now);
        store.started_tests().filter_map(target).collect()
    }

    fn target(&self, store: &Store, test: &LoadTest, now: Timestamp) -> Option<Target> {
        let status = test.status.as_ref()?;
        if !self.config.has_live_results(&test.spec)
            || test.is_finished()
            || status.phase != Some(Phase::Running)
        {
            return None;
        }
        let key = object_ref(&test.metadata);
        let Some(JobState::Owned(job)) = store.job(&key, test.metadata.uid.as_deref()?) else {
            return None;
        };
        let started = match &status.load_start_time {
            Some(at) => at.0,
            None => status.start_time.as_ref()?.0,
        };
        // Periods begin with the load, so that the workers of one test are read in the rhythm of its series.
        let period = |at: Timestamp| at.duration_since(started).as_secs() / MIN_STEP_SECONDS;
        let is_due = match self.live.read_at(&key, &job.uid) {
            Some(at) => period(now) > period(at),
            None => period(now) > 0,
        };
        if !is_due {
            return None;
        }
        let workers = store.workers(&key, &job.uid);
        let worker = |worker: &Arc<WorkerStatus>| {
            Some(TargetWorker {
                pod: worker.pod.clone(),
                index: i32::try_from(worker.index?).ok()?,
                ip: worker.ip.filter(|_| worker.state == WorkerState::Running)?,
            })
        };
        let expected = status
            .expected_duration
            .as_deref()
            .and_then(duration::parse);
        let workers: Vec<_> = workers.iter().filter_map(worker).collect();
        if workers.is_empty() {
            return None;
        }
        Some(Target {
            workers,
            job_uid: job.uid,
            started,
            expected_seconds: expected.map(|expected| expected.as_secs_f64()),
            abort: test.spec.abort.clone(),
            key,
        })
    }

    /// Records that a watch has delivered its first complete list.
    pub(crate) fn mark_synced(&self, mark: impl FnOnce(&mut HasSynced)) {
        self.synced.send_modify(mark);
    }

    /// Which watches have delivered their first complete list.
    pub(crate) fn has_synced(&self) -> HasSynced {
        *self.synced.borrow()
    }

    /// Waits until certain watches have delivered their first complete list.
    pub(crate) async fn wait_for_sync(&self, enough: fn(&HasSynced) -> bool) {
        // Fails only when the context is dropped, and with it whoever waits.
        let _ = self.synced.subscribe().wait_for(enough).await;
    }
}
