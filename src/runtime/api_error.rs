//! Errors of requests to the API server.

use std::time::Duration;

use thiserror::Error;
use tokio::time::error::Elapsed;

/// The timeout of one request. The client itself has none. It is longer than the default timeout of admission webhooks, 10 s, so
/// that the API server can still report which webhook did not answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// Why a request to the API server failed.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Client(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error("the API server did not answer within {}s; a slow admission webhook is a possible cause", .0.as_secs())]
    Timeout(Duration),
}

/// The class of an error, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorClass {
    /// The object has changed or already exists.
    Conflict,
    /// The API server could not be reached.
    Connection,
    /// The API server did not answer in time.
    Deadline,
    /// The operator lacks a permission.
    Forbidden,
    /// The object does not exist.
    NotFound,
    /// The API server rejected the request as invalid.
    Rejected,
    /// The API server returned a 5xx status.
    Server,
    /// The API server throttled the request.
    Throttled,
}

impl ErrorClass {
    /// All classes.
    pub(crate) const ALL: [Self; 8] = [
        Self::Conflict,
        Self::Connection,
        Self::Deadline,
        Self::Forbidden,
        Self::NotFound,
        Self::Rejected,
        Self::Server,
        Self::Throttled,
    ];

    /// Returns the value of the label `class`.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
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
    /// Returns the HTTP status of the response, if there was one.
    #[must_use]
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Returns the API server's message, or the innermost cause of the error: the outer ones only repeat that a request failed.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Client(kube::Error::Api(status)) if !status.message.is_empty() => {
                // The API server quotes the whole object before this.
                let strict = status.message.rfind("strict decoding error: ");
                status.message[strict.unwrap_or_default()..].to_owned()
            }
            Self::Client(kube::Error::Api(status)) => {
                format!("the API server answered with status {}", status.code)
            }
            Self::Client(error) => innermost_cause(error),
            Self::Timeout(_) => self.to_string(),
        }
    }

    /// Returns whether the API server may have carried out the request all the same. It calls webhooks before it stores anything
    /// (apiserver, `pkg/admission/plugin/webhook/errors`).
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        self.status().is_none_or(|code| code >= 500)
            && !self.message().contains("failed calling webhook")
    }

    /// Returns the class of the error.
    #[must_use]
    pub(crate) fn class(&self) -> ErrorClass {
        match self.status() {
            Some(401 | 403) => ErrorClass::Forbidden,
            Some(404) => ErrorClass::NotFound,
            Some(409) => ErrorClass::Conflict,
            Some(429) => ErrorClass::Throttled,
            Some(400..=499) => ErrorClass::Rejected,
            Some(_) => ErrorClass::Server,
            None if matches!(self, Self::Timeout(_)) => ErrorClass::Deadline,
            None => ErrorClass::Connection,
        }
    }
}

/// Awaits one request for at most [`REQUEST_TIMEOUT`].
///
/// # Errors
/// Fails if the request fails, or with [`ApiError::Timeout`].
pub(crate) async fn with_timeout<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    within(REQUEST_TIMEOUT, request).await
}

/// Awaits one request for at most `timeout`.
///
/// # Errors
/// Fails if the request fails, or with [`ApiError::Timeout`].
pub async fn within<T>(
    timeout: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(timeout, request).await {
        // The client's own timeout, which ends at the same time.
        Ok(Err(kube::Error::Service(error))) if error.is::<Elapsed>() => {
            Err(ApiError::Timeout(REQUEST_TIMEOUT))
        }
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::Timeout(timeout)),
    }
}

/// The innermost cause of an error.
pub(crate) fn innermost_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_timeout_of_the_client_is_a_timeout_of_the_request() {
        let never = std::future::pending::<()>();
        let elapsed = tokio::time::timeout(Duration::ZERO, never).await;
        let error = kube::Error::Service(elapsed.unwrap_err().into());
        let failed = with_timeout(async { Err::<(), _>(error) }).await;
        let error = failed.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Deadline);
        assert_eq!(
            error.message(),
            "the API server did not answer within 12s; a slow admission webhook is a possible cause"
        );
    }
}
