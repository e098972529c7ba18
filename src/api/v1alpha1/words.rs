//! The words of the API: each an enum, so that none can be misspelt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An enum whose variants are words in the API.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word, as in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The one that a word names.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
/// Where a test stands, in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It cannot start yet; the condition Progressing says why.
    Pending,
    /// It is held, by its own spec or by a queueing system that has suspended its Job.
    Suspended,
    /// Its Job is being created, or not all of its workers have started.
    Starting,
    /// All its workers have started.
    Running,
    /// Its workers are being ended, because it was stopped or could not start in time.
    Stopping,
    /// All its workers succeeded.
    Completed,
    /// It ended, and not all of its workers succeeded.
    Failed,
    /// It was ended by `spec.stop`.
    Stopped,
}
}

impl Phase {
    /// Whether a test in this phase has ended, for good.
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

words! {
/// Whether a test has passed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All workers succeeded, and all thresholds hold.
    Passed,
    /// Something has failed; the condition Passed says what.
    Failed,
}
}

words! {
/// A condition of a [`LoadTest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The test is on its way to an end.
    Progressing,
    /// All workers succeeded.
    Completed,
    /// The test ended, and not all workers succeeded.
    Failed,
    /// The test was ended by `spec.stop`. Shown only then.
    Stopped,
    /// All workers succeeded, and all thresholds hold. Shown of a test that has ended.
    Passed,
    /// All workers have told all that they have measured. Shown of a test that has ended, and had started.
    ResultsComplete,
}
}

words! {
/// Why something is as it is: the reasons of all conditions and all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A `ConfigMap` of the script, or the script's key, is not there.
    MissingTestScript,
    /// The script cannot be run as it is.
    InvalidTestScript,
    /// Something else in the namespace has the name that the test's Job needs.
    NameConflict,
    /// The API server refused the Job.
    JobRefused,
    /// The test, or its Job, is held.
    Suspended,
    /// The Job is being created, or not all workers have started.
    Starting,
    /// The Job exists (event).
    Created,
    /// No node has room for a worker, or fits it.
    Unschedulable,
    /// The workers' image cannot be had.
    ImageNotPullable,
    /// A worker's container cannot be created or started.
    ContainerNotStarting,
    /// Something that a worker's pod is to mount cannot be had.
    VolumeNotMounted,
    /// The API server refuses the pods, by a quota or by Pod Security.
    PodsRefused,
    /// Workers run and are not ready to begin their load, or have not been told to.
    WaitingForWorkers,
    /// All workers have started (condition), or one has (event).
    Running,
    /// Workers do not say that they know when to begin their load, though it is over.
    WorkersLate,
    /// Workers run longer than the script's phases can explain.
    Overdue,
    /// All workers succeeded.
    Completed,
    /// The test has not ended yet.
    NotEnded,
    /// The workers are being ended because the test was stopped.
    Stopping,
    /// The test was ended by `spec.stop`.
    Stopped,
    /// A worker failed.
    WorkerFailed,
    /// A worker used more memory than it may.
    OutOfMemory,
    /// A worker was evicted from its node.
    WorkerEvicted,
    /// A worker had to make room for a pod of a higher priority.
    WorkerPreempted,
    /// A worker's pod was deleted.
    WorkerDeleted,
    /// A worker's node was lost, or does not say that the worker has ended.
    NodeLost,
    /// Not all workers ran in time, for a reason not known.
    StartDeadlineExceeded,
    /// The Job ran longer than it may.
    DeadlineExceeded,
    /// The Job was suspended after its workers had started.
    JobSuspended,
    /// The Job was deleted before it ended.
    JobDeleted,
    /// The Job failed for another reason, which the message gives.
    JobFailed,
    /// The test failed (event).
    Failed,
    /// All thresholds hold.
    ThresholdsHeld,
    /// A threshold does not hold, or cannot be judged.
    ThresholdsBroken,
    /// The test has no thresholds, and all its workers succeeded.
    NoThresholds,
    /// Not all workers succeeded.
    NotCompleted,
    /// All workers have told all that they have measured.
    AllReported,
    /// Of some workers results are missing, or a part of them.
    ResultsPartial,
}
}
