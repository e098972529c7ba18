//! Calls to the API server that failed.

use thiserror::Error;

use crate::runtime::api_error::ApiError;
use crate::state::FailedCall;

/// A call of a reconcile that failed. The test reports it, and the call is repeated with a growing delay.
#[derive(Debug, Error)]
#[error("cannot {what}: {}", .source.message())]
pub(crate) struct Error {
    /// What could not be done, such as `create the Job`.
    pub(crate) what: &'static str,
    /// The error of the request.
    pub(crate) source: ApiError,
}

/// The call that writes a test's status.
pub(crate) const WRITE_STATUS: &str = "write the status";

impl Error {
    pub(crate) fn new(what: &'static str) -> impl FnOnce(ApiError) -> Self {
        move |source| Self { what, source }
    }

    /// Whether the test changed since it was observed, or was deleted. That is no fault: the watch delivers the newer one.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.what == WRITE_STATUS && matches!(self.source.status(), Some(404 | 409))
    }
}

impl From<&Error> for FailedCall {
    fn from(error: &Error) -> Self {
        Self {
            what: error.what,
            error: error.source.message(),
        }
    }
}
