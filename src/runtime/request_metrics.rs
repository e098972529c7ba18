//! Metrics and timeouts of requests to the API server.

use std::sync::Arc;

use http::{Method, Request, Uri};
use kube::Client;
use kube::client::Body;

use crate::runtime::api_error::REQUEST_TIMEOUT;
use crate::runtime::metrics::{ApiRequest, Metrics};

/// Wraps a client. Its requests are counted, and fail if no response begins within [`REQUEST_TIMEOUT`].
#[must_use]
pub fn with_metrics(client: Client, metrics: Arc<Metrics>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let counting = tower::service_fn(move |request: Request<Body>| {
        let (client, metrics) = (client.clone(), metrics.clone());
        async move {
            let mut counted = label(request.method(), request.uri());
            // The timeout suits watches too, because their responses begin immediately. Their bodies have a read
            // timeout.
            let response = match tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await {
                Ok(response) => response,
                Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
            };
            counted.code = response.as_ref().map_or(0, |a| a.status().as_u16());
            metrics.record_request(&counted);
            response
        }
    });
    Client::new(counting, namespace)
}

/// The resources that the operator uses. Others are counted as `other`, which bounds the label's values.
const RESOURCES: [&str; 10] = [
    "loadtests",
    "loadtests/status",
    "jobs",
    "pods",
    "configmaps",
    "events",
    "leases",
    "tokenreviews",
    "subjectaccessreviews",
    "openapi",
];

fn label(method: &Method, uri: &Uri) -> ApiRequest {
    let (verb, resource) = request_info(method, uri);
    let resource = RESOURCES
        .into_iter()
        .find(|known| *known == resource)
        .unwrap_or("other");
    ApiRequest {
        verb,
        resource,
        code: 0,
    }
}

/// Returns the verb and the resource of a request, as the API server's `RequestInfo` does. A path consists of
/// `/api/VERSION` or `/apis/GROUP/VERSION`, `/namespaces/NAME` for a namespaced request, and
/// `/RESOURCE[/NAME[/SUBRESOURCE]]`.
#[must_use]
pub fn request_info(method: &Method, uri: &Uri) -> (&'static str, String) {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let rest = match path[..] {
        ["api", _, "namespaces", _, ref rest @ ..]
        | ["apis", _, _, "namespaces", _, ref rest @ ..]
            if !rest.is_empty() =>
        {
            rest
        }
        ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
        ["openapi", _, ..] => &path[..2],
        ref other => other,
    };
    let watches = uri
        .query()
        .is_some_and(|q| q.split('&').any(|p| matches!(p, "watch=true" | "watch=1")));
    let verb = match *method {
        Method::GET if watches => "watch",
        Method::GET if rest.len() == 1 && path.len() > 1 => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    let resource = match rest {
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, sub] => format!("{resource}/{sub}"),
        _ => "other".to_owned(),
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_labeled_with_verb_and_known_resource() {
        let cases = [
            (
                "GET",
                "/api/v1/pods?&labelSelector=a%3Db&watch=true&timeoutSeconds=60",
                "watch",
                "pods",
            ),
            (
                "GET",
                "/apis/batch/v1/namespaces/n/jobs?limit=500",
                "list",
                "jobs",
            ),
            (
                "GET",
                "/apis/batch/v1/namespaces/n/jobs/pods",
                "get",
                "jobs",
            ),
            ("POST", "/api/v1/namespaces/n/events?", "create", "events"),
            (
                "PATCH",
                "/apis/loadtest.artillery.io/v1alpha1/namespaces/n/loadtests/t/status?",
                "patch",
                "loadtests/status",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/l",
                "update",
                "leases",
            ),
            (
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews",
                "create",
                "tokenreviews",
            ),
            ("GET", "/version", "get", "other"),
            ("GET", "/openapi/v3", "get", "openapi"),
            (
                "GET",
                "/openapi/v3/apis/loadtest.artillery.io/v1alpha1",
                "get",
                "openapi",
            ),
            ("GET", "/api/v1/namespaces/n", "get", "other"),
            ("GET", "/api", "get", "other"),
            (
                "OPTIONS",
                "/apis/x/y/namespaces/n/secrets/s",
                "other",
                "other",
            ),
            (
                "GET",
                "/apis/batch/v1/namespaces/n/jobs/a/b/c",
                "get",
                "other",
            ),
        ];
        for (method, uri, verb, resource) in cases {
            let info = label(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(
                (info.verb, info.resource),
                (verb, resource),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn request_info_matches_the_api_server() {
        let cases = [
            (
                "GET",
                "/api/v1/namespaces/n/pods?&labelSelector=a%3Db&watch=true&timeoutSeconds=60",
                "watch",
                "pods",
            ),
            (
                "GET",
                "/apis/batch/v1/namespaces/n/jobs?limit=500",
                "list",
                "jobs",
            ),
            ("GET", "/apis/batch/v1/jobs", "list", "jobs"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs/t", "get", "jobs"),
            ("POST", "/api/v1/namespaces/n/events?", "create", "events"),
            (
                "PATCH",
                "/apis/loadtest.artillery.io/v1alpha1/namespaces/n/loadtests/t/status?",
                "patch",
                "loadtests/status",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/l",
                "update",
                "leases",
            ),
            (
                "DELETE",
                "/apis/batch/v1/namespaces/n/jobs/t",
                "delete",
                "jobs",
            ),
            ("GET", "/version", "get", "version"),
        ];
        for (method, uri, verb, resource) in cases {
            let info = request_info(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(
                (info.0, info.1.as_str()),
                (verb, resource),
                "{method} {uri}"
            );
        }
    }
}
