//! Counts the requests to the API server, and gives up those that are not answered.

use std::sync::Arc;

use http::{Method, Request, Uri};
use kube::Client;
use kube::client::Body;

use crate::error::CALL_DEADLINE;
use crate::metrics::{ApiRequest, Metrics};

/// The same client, whose requests are counted, and fail when no answer begins within [`CALL_DEADLINE`].
#[must_use]
pub fn counted(client: Client, metrics: Arc<Metrics>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let counting = tower::service_fn(move |request: Request<Body>| {
        let (client, metrics) = (client.clone(), metrics.clone());
        async move {
            let mut counted = classify(request.method(), request.uri());
            // A watch is answered at once too; its silence later is noticed by whoever reads it.
            let answer = match tokio::time::timeout(CALL_DEADLINE, client.send(request)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
            };
            counted.code = answer.as_ref().map_or(0, |a| a.status().as_u16());
            metrics.requested(&counted);
            answer
        }
    });
    Client::new(counting, namespace)
}

/// What the operator asks for. Anything else is `other`, so that no label grows with what is asked.
const RESOURCES: [&str; 9] =
    ["loadtests", "loadtests/status", "jobs", "pods", "configmaps", "events", "leases", "tokenreviews", "subjectaccessreviews"];

/// The verb and resource of a request, in the words of the API server. The path is `/api/VERSION` or
/// `/apis/GROUP/VERSION`, then `/namespaces/NAME` if it is of one namespace, then `/RESOURCE[/NAME[/SUBRESOURCE]]`.
fn classify(method: &Method, uri: &Uri) -> ApiRequest {
    let mut path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let root = match path.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => path.len(),
    };
    path.drain(..root.min(path.len()));
    if path.first() == Some(&"namespaces") && path.len() > 2 {
        path.drain(..2);
    }
    let known = |asked: &str| RESOURCES.into_iter().find(|r| *r == asked);
    let resource = match path[..] {
        [resource] | [resource, _] => known(resource),
        [resource, _, sub] => known(&format!("{resource}/{sub}")),
        _ => None,
    };
    let watches = uri.query().is_some_and(|q| q.split('&').any(|p| matches!(p, "watch=true" | "watch=1")));
    let verb = match *method {
        Method::GET if watches => "watch",
        Method::GET if path.len() == 1 => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    ApiRequest { verb, resource: resource.unwrap_or("other"), code: 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_told_apart_as_the_api_server_does() {
        let cases = [
            ("GET", "/api/v1/pods?&labelSelector=a%3Db&watch=true&timeoutSeconds=60", "watch", "pods"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs?limit=500", "list", "jobs"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs/pods", "get", "jobs"),
            ("POST", "/api/v1/namespaces/n/events?", "create", "events"),
            ("PATCH", "/apis/loadtest.artillery.io/v1alpha1/namespaces/n/loadtests/t/status?", "patch", "loadtests/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", "update", "leases"),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "create", "tokenreviews"),
            ("GET", "/version", "get", "other"),
            ("GET", "/api/v1/namespaces/n", "get", "other"),
            ("GET", "/api", "get", "other"),
            ("OPTIONS", "/apis/x/y/namespaces/n/secrets/s", "other", "other"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs/a/b/c", "get", "other"),
        ];
        for (method, uri, verb, resource) in cases {
            let seen = classify(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!((seen.verb, seen.resource), (verb, resource), "{method} {uri}");
        }
    }
}
