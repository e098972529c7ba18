//! Everything a decision is made from.

use std::sync::Arc;

use loadtest_script::{Analysis, FilesHash};

use super::{JobStatus, LiveResults, StartBlocker, WorkerStatus};

/// What was read about a test. Everything a decision needs besides the test itself.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The state of the test's Job.
    pub job: JobState,
    /// The test's workers.
    pub workers: Vec<Arc<WorkerStatus>>,
    /// The test's script. Read only while no Job exists.
    pub script: ScriptState,
    /// The `ConfigMap` of the worker files in the test's namespace.
    pub worker_files: WorkerFiles,
    /// What events report about workers that do not start, where neither Job nor pods explain it.
    pub blocker: Option<StartBlocker>,
    /// What the running workers reported, if they were read.
    pub live: Option<Arc<LiveResults>>,
    /// The call that failed in this reconcile, if one did. Reads come before writes, and the first counts.
    pub failed_call: Option<FailedCall>,
    /// Why events could not be recorded in this reconcile.
    pub failed_events: Option<String>,
    /// The fields of the status that the installed CRD does not have.
    pub missing_fields: Arc<[String]>,
    /// How many Jobs run. The more there are, the less often the progress of each is written.
    pub running_jobs: usize,
}

/// A call to the API server that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCall {
    /// What could not be done, such as `create the Job`.
    pub what: &'static str,
    /// The API server's message, or how the request failed.
    pub error: String,
}

/// The `ConfigMap` of the worker files in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkerFiles {
    /// It was not read, or does not exist.
    #[default]
    Unknown,
    /// It has the contents of this version, and is immutable.
    Verified,
    /// It has other contents, which would run in the workers, or can change.
    Foreign,
}

/// The state of a test's Job.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum JobState {
    /// No Job exists, and as far as the cluster can show, none ever did.
    #[default]
    Absent,
    /// The Job could not be read: it may exist.
    Unknown,
    /// The Job exists and is controlled by the test.
    Owned(JobStatus),
    /// The Job was deleted; with its last known state, where that is known.
    Deleted(Option<JobStatus>),
    /// A Job of this name exists that the test does not control. It is never touched.
    NotOwned,
    /// The API server rejected the Job, with this message.
    Rejected(String),
}

/// What was read of a test's script.
#[derive(Clone, Debug, Default)]
pub enum ScriptState {
    /// The script was not read.
    #[default]
    NotRead,
    /// A `ConfigMap` does not exist.
    ConfigMapMissing {
        /// Its name.
        name: String,
        /// A `ConfigMap` whose name only has another beginning or end, as kustomize gives it.
        similar: Option<String>,
    },
    /// All `ConfigMap`s were read. Files in volumes only the workers see.
    Read {
        /// The `ConfigMap`s of the test, in the order of their mounts.
        config_maps: Vec<ConfigMapFiles>,
        /// The analysis of the script; empty where the script is in a volume.
        analysis: Arc<Analysis>,
        /// The hash of all these files and of an inline script.
        files_hash: FilesHash,
    },
}

/// A `ConfigMap` whose keys are files of the workers.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigMapFiles {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keys: Vec<String>,
}
