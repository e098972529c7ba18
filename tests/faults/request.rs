//! What a request asks for: pure.

use http::{Method, Uri};

/// The verb and the resource of a request, as the API server names them. The path is `/api/VERSION` or
/// `/apis/GROUP/VERSION`, then `/namespaces/NAME`, then `/RESOURCE[/NAME[/SUBRESOURCE]]`.
pub fn classify(method: &Method, uri: &Uri) -> (String, String) {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let rest = match path[..] {
        ["api", _, "namespaces", _, ref rest @ ..] | ["apis", _, _, "namespaces", _, ref rest @ ..] if !rest.is_empty() => rest,
        ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
        ref other => other,
    };
    let watches = uri.query().is_some_and(|q| q.split('&').any(|p| matches!(p, "watch=true" | "watch=1")));
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
        [resource, _, sub, ..] => format!("{resource}/{sub}"),
        [resource, ..] => (*resource).to_owned(),
        [] => "other".to_owned(),
    };
    (verb.to_owned(), resource)
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "they run in pure.rs: main.rs has no test harness")]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_as_the_api_server_does() {
        let cases = [
            ("GET", "/api/v1/namespaces/n/pods?&labelSelector=a%3Db&watch=true&timeoutSeconds=60", "watch", "pods"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs?limit=500", "list", "jobs"),
            ("GET", "/apis/batch/v1/jobs", "list", "jobs"),
            ("GET", "/apis/batch/v1/namespaces/n/jobs/t", "get", "jobs"),
            ("POST", "/api/v1/namespaces/n/events?", "create", "events"),
            ("PATCH", "/apis/loadtest.artillery.io/v1alpha1/namespaces/n/loadtests/t/status?", "patch", "loadtests/status"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", "update", "leases"),
            ("DELETE", "/apis/batch/v1/namespaces/n/jobs/t", "delete", "jobs"),
            ("GET", "/version", "get", "version"),
        ];
        for (method, uri, verb, resource) in cases {
            let seen = classify(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!((seen.0.as_str(), seen.1.as_str()), (verb, resource), "{method} {uri}");
        }
    }
}
