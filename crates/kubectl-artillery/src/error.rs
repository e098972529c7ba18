//! Errors: what happened to which object, and what to do.

use kube::core::Status;

/// Why a command failed. It exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    /// What the user can do.
    pub advice: Option<String>,
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without advice, because its message contains it.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            advice: None,
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// The error of a request. `action` is what was attempted, such as `list pods in namespace shop`.
    #[must_use]
    pub fn request(action: &str, namespace: &str, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::new(format!("Cannot {action}: {}", innermost(error))).advice(
                "Check the context and that its API server can be reached: kubectl cluster-info",
            );
        };
        let advice = match status.code {
            401 => Some("Log in again: the API server does not accept the credentials of the context.".to_owned()),
            403 => Some(permission_advice(namespace)),
            404 if is_missing_resource(status) => {
                Some("The cluster has no LoadTests: install the operator with operator-deploy.sh, or choose another --context.".to_owned())
            }
            404 => Some(format!("List the tests of the namespace: kubectl artillery list -n {namespace}")),
            _ => None,
        };
        Self {
            message: format!("Cannot {action}: {}", status.message),
            advice,
        }
    }
}

/// Whether the API server does not know the resource, rather than the object.
fn is_missing_resource(status: &Status) -> bool {
    status.message.contains("page not found")
        || status
            .message
            .contains("could not find the requested resource")
}

/// What a user without a permission can do.
#[must_use]
pub fn permission_advice(namespace: &str) -> String {
    format!(
        "Ask an administrator of the namespace: kubectl create rolebinding NAME -n {namespace} \
         --clusterrole=artillery-operator-loadtest-runner --user=YOU (or --serviceaccount=NAMESPACE:NAME)"
    )
}

/// The cause that explains most. The outer errors of a client only name its layers.
#[must_use]
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
