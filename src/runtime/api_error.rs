//! Requests to the API server that fail.

use std::time::Duration;

use thiserror::Error;

/// How long one request may take. The client itself would wait forever.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request to the API server failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Client(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error("no answer within {}s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

/// What kind of error a request met, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The object changed or exists.
    Conflict,
    /// The API server could not be reached.
    Connection,
    /// The API server did not answer in time.
    Deadline,
    /// The operator lacks a permission.
    Forbidden,
    /// The object does not exist.
    NotFound,
    /// The API server rejected the request.
    Rejected,
    /// The API server failed.
    Server,
    /// The API server asks for fewer requests.
    Throttled,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 8] = [
        Self::Conflict,
        Self::Connection,
        Self::Deadline,
        Self::Forbidden,
        Self::NotFound,
        Self::Rejected,
        Self::Server,
        Self::Throttled,
    ];

    /// The value of the metrics' label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Connection => "connection",
            Self::Deadline => "deadline",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Server => "server",
            Self::Throttled => "throttled",
        }
    }
}

impl ApiError {
    /// The HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The API server's message, or the error itself.
    #[must_use]
    pub fn message(self) -> String {
        match self {
            Self::Client(kube::Error::Api(status)) => status.message,
            other => other.to_string(),
        }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self.status() {
            Some(401 | 403) => ErrorClass::Forbidden,
            Some(404) => ErrorClass::NotFound,
            Some(409) => ErrorClass::Conflict,
            Some(429) => ErrorClass::Throttled,
            Some(400..=499) => ErrorClass::Rejected,
            Some(_) => ErrorClass::Server,
            None if matches!(self, Self::Timeout) => ErrorClass::Deadline,
            None => ErrorClass::Connection,
        }
    }
}

/// Makes one request within [`REQUEST_TIMEOUT`].
///
/// # Errors
/// Those of the request, and [`ApiError::Timeout`].
pub async fn with_timeout<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::Timeout),
    }
}
