//! Why a reconcile failed.

use thiserror::Error;

use crate::runtime::api_error::{ApiError, ErrorClass};

/// Why a reconcile failed. It is repeated with a growing delay.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("cannot read {what}: {source}")]
    Observe {
        /// What was read.
        what: &'static str,
        /// The error of the request.
        source: ApiError,
    },
    /// The status or an event could not be written.
    #[error("cannot write {what}: {source}")]
    Report {
        /// What was written.
        what: &'static str,
        /// The error of the request.
        source: ApiError,
    },
    /// An action failed.
    #[error("cannot {what}: {source}")]
    Apply {
        /// The action.
        what: &'static str,
        /// The error of the request.
        source: ApiError,
    },
}

impl Error {
    pub(crate) fn observe(what: &'static str, source: ApiError) -> Self {
        Self::Observe { what, source }
    }

    pub(crate) fn apply(what: &'static str, source: ApiError) -> Self {
        Self::Apply { what, source }
    }

    fn source(&self) -> &ApiError {
        match self {
            Self::Observe { source, .. }
            | Self::Report { source, .. }
            | Self::Apply { source, .. } => source,
        }
    }

    /// The class of the error, for metrics.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.source().class()
    }

    /// Whether the test changed since it was observed. That is no fault: the watch will deliver the newer one.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Report { .. }) && matches!(self.source().status(), Some(404 | 409))
    }
}
