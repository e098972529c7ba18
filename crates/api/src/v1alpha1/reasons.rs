//! Phases, verdicts, condition types and reasons. Each is an enum, so that none can be misspelled.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An enum whose variants are strings of the API.
macro_rules! api_strings {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All variants, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The string, as in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The variant of this string.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

api_strings! {
/// The phase of a test.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The test cannot start yet; the condition Progressing gives the reason.
    Pending,
    /// The test is suspended, by its spec or by a queueing system that suspended its Job.
    Suspended,
    /// The Job is being created, or not all workers have started.
    Starting,
    /// All workers have started.
    Running,
    /// The workers are being stopped, because of spec.stop or because the test could not start in time.
    Stopping,
    /// All workers succeeded.
    Completed,
    /// The test ended, and not all workers succeeded.
    Failed,
    /// The test was ended by spec.stop.
    Stopped,
}
}

impl Phase {
    /// Whether a test in this phase has ended for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }

    /// Whether a test in this phase has or had a Job, or is about to.
    #[must_use]
    pub fn has_started(self) -> bool {
        !matches!(self, Self::Pending | Self::Suspended)
    }
}

api_strings! {
/// Whether a test passed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All workers succeeded, and all thresholds are met.
    Passed,
    /// The test failed, or a threshold is not met; the condition Passed gives the reason.
    Failed,
    /// No threshold is violated, but the load was not delivered as planned, so the results do not describe the requested
    /// test.
    Inconclusive,
}
}

api_strings! {
/// A condition of a LoadTest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The test is on its way to an end.
    Progressing,
    /// All workers succeeded.
    Completed,
    /// The test ended, and not all workers succeeded.
    Failed,
    /// The test has passed. False while it is in progress, with the reason of Progressing, and after another end. Tools that read
    /// the status by the rules of kstatus wait for it.
    Ready,
    /// The test will not pass any more: it failed, was stopped, is inconclusive, or is set aside. Set only on such a test.
    Stalled,
    /// The test was stopped by spec.stop. Set only on such a test.
    Stopped,
    /// All workers succeeded, all thresholds are met, and the load was delivered. Unknown if only the load was not delivered.
    /// Set on a finished test.
    Passed,
    /// The results of all workers are complete. Set on a finished test that had started.
    ResultsComplete,
    /// The workers sent the load that the script describes. Set on a finished test that had started.
    LoadDelivered,
    /// The workers began their load at the same instant. Set only on a finished test whose workers did not.
    StartSynchronized,
    /// Results of the running workers can be read. Set only while they cannot be.
    LiveResultsAvailable,
    /// All events of the test are recorded. Set only while they cannot be.
    EventsRecorded,
}
}

api_strings! {
/// The reasons of all conditions and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A ConfigMap of the script, or its key, does not exist.
    MissingTestScript,
    /// The script cannot run as it is.
    InvalidTestScript,
    /// The script is suspicious, and runs nevertheless (event).
    ScriptWarning,
    /// A condition in spec.thresholds cannot be evaluated, whatever the workers measure.
    InvalidThreshold,
    /// Another object has the name of the test's Job, or of the ConfigMap with the files of the workers.
    NameConflict,
    /// The API server rejected the Job.
    JobRejected,
    /// A call to the API server fails; the message names the call and the error.
    RequestFailed,
    /// The installed CRD is older than the operator: the API server would drop fields of the status.
    CrdOutdated,
    /// The operator's process ended or failed while it reconciled the test, and does not reconcile it any more.
    SetAside,
    /// The test or its Job is suspended.
    Suspended,
    /// The Job is being created, or not all workers have started.
    Starting,
    /// The Job exists (event).
    Created,
    /// No node has room for a worker or fits it.
    Unschedulable,
    /// The workers' image cannot be pulled.
    ImageNotPullable,
    /// A worker's container cannot be created or started.
    ContainerNotStarting,
    /// A volume of a worker's pod cannot be mounted.
    VolumeNotMounted,
    /// The API server rejects the pods, because of a quota or Pod Security.
    PodCreationFailed,
    /// A probe of a worker's pod fails: the kubelet cannot reach it, or it takes very long to load.
    ProbeFailed,
    /// Workers run and are not ready to begin their load, or have not received the start time.
    WaitingForWorkers,
    /// All workers have started (condition), or one has (event).
    Running,
    /// Workers have not acknowledged the start time although it has passed.
    StartNotAcknowledged,
    /// The clock of a node differs from that of the operator or the API server.
    ClockSkew,
    /// Workers did not begin their load at the same instant.
    StartSkewed,
    /// A condition in spec.abort held: the test is ended.
    AbortConditionMet,
    /// A condition in spec.abort could not be evaluated for too long: the test is ended.
    AbortConditionUnknown,
    /// Running workers cannot be read.
    WorkersUnreachable,
    /// Workers run longer than the script's phases can explain.
    RunningTooLong,
    /// All workers succeeded.
    Completed,
    /// The test has not finished.
    InProgress,
    /// The workers are being stopped because of spec.stop.
    Stopping,
    /// The test was stopped by spec.stop.
    Stopped,
    /// A worker failed.
    WorkerFailed,
    /// A worker exceeded its memory limit.
    OutOfMemory,
    /// A worker was evicted from its node.
    WorkerEvicted,
    /// A worker was preempted by a pod of higher priority.
    WorkerPreempted,
    /// A worker's pod was deleted.
    WorkerDeleted,
    /// A worker's node was lost, or has not confirmed that the worker terminated.
    NodeLost,
    /// Not all workers started in time, for an unknown reason.
    StartDeadlineExceeded,
    /// The Job exceeded its deadline.
    DeadlineExceeded,
    /// The cluster gave the Job another deadline than the test asks for (event).
    DeadlineOverridden,
    /// The Job was suspended after its start.
    JobSuspended,
    /// The Job was deleted before it finished.
    JobDeleted,
    /// The Job failed for another reason, which the message gives.
    JobFailed,
    /// The test failed (event).
    Failed,
    /// All thresholds are met.
    ThresholdsMet,
    /// A threshold is not met, or could not be evaluated.
    ThresholdsNotMet,
    /// Expectations of the script's plugin expect were not met.
    ExpectationsNotMet,
    /// The test has no thresholds, and all workers succeeded.
    NoThresholds,
    /// No worker left results: nothing shows that load was sent.
    NoResults,
    /// No virtual user was created, or nothing answered any request.
    NothingAnswered,
    /// The load was not delivered as planned, and no threshold is violated.
    LoadNotDelivered,
    /// Not all workers succeeded.
    NotCompleted,
    /// The virtual users arrived as planned.
    AsPlanned,
    /// Workers sent their load too late.
    WorkersSaturated,
    /// Virtual users were not created because maxVusers was reached.
    VusersSkipped,
    /// Nothing shows that all virtual users were created: results of workers are missing, or workers ended early.
    WorkersMissing,
    /// The planned load is unknown: a worker could not read the script's phases, or is older.
    PlanUnknown,
    /// All workers reported complete results.
    AllWorkersReported,
    /// Results of some workers are missing, or parts of them.
    ResultsPartial,
}
}
