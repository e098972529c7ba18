//! What can go wrong in a reconcile, one enum a step.

use std::time::Duration;

use thiserror::Error;

/// A reconcile that could not be carried through. It is tried again, later each time.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("cannot read {what}: {source}")]
    Observe {
        /// What was to be read.
        what: String,
        /// Why it could not.
        source: CallError,
    },
    /// A change could not be made.
    #[error("cannot {what}: {source}")]
    Apply {
        /// What was to be done.
        what: &'static str,
        /// Why it could not.
        source: CallError,
    },
    /// The API server refused the Job, which the status tells.
    #[error("the API server refused the Job")]
    Refused,
    /// The status or an event could not be written.
    #[error("cannot write {what}: {source}")]
    Report {
        /// What was to be written.
        what: &'static str,
        /// Why it could not.
        source: CallError,
    },
}

impl Error {
    fn call(&self) -> Option<&CallError> {
        match self {
            Self::Observe { source, .. }
            | Self::Report { source, .. }
            | Self::Apply { source, .. } => Some(source),
            Self::Refused => None,
        }
    }

    /// The kind of error, a word from a small fixed set, for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        self.call().map_or("refused", CallError::class)
    }

    /// Whether the object was changed in the meantime: not a fault, the newer one is on its way.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Report { .. })
            && matches!(self.call().and_then(CallError::status), Some(404 | 409))
    }
}

/// A call to the API server that failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Client(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error("no answer within {} s", CALL_DEADLINE.as_secs())]
    Deadline,
}

impl CallError {
    /// The HTTP status that the API server answered with, if it did.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    fn class(&self) -> &'static str {
        match self.status() {
            Some(401 | 403) => "forbidden",
            Some(404) => "not_found",
            Some(409) => "conflict",
            Some(429) => "throttled",
            Some(400..=499) => "refused",
            Some(_) => "server",
            None if matches!(self, Self::Deadline) => "deadline",
            None => "connection",
        }
    }
}

/// All classes of errors.
pub const CLASSES: [&str; 8] = [
    "conflict",
    "connection",
    "deadline",
    "forbidden",
    "not_found",
    "refused",
    "server",
    "throttled",
];

/// How long one call may take. The client itself would wait for ever.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// Makes one call, within [`CALL_DEADLINE`].
///
/// # Errors
/// Those of the call, and [`CallError::Deadline`].
pub async fn within_deadline<T>(
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::Deadline),
    }
}
