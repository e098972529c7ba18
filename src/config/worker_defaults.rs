//! The workers' defaults, as the operator's file has them: pure.

use serde_json::Value;

use loadtest_api::v1alpha1::{WorkerTemplate, validate_env};

/// Takes what a test itself could ask for, and no more: a field that there is not would be left out in silence, and another could
/// keep the pods of all tests from passing Pod Security `restricted`.
pub(super) fn parse(text: &str) -> Result<WorkerTemplate, String> {
    let given: Value = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    let worker: WorkerTemplate = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    let taken = serde_json::to_value(&worker).map_err(|e| e.to_string())?;
    if let Some(field) = first_unknown_field(&given, &taken) {
        return Err(format!("spec.worker has no field {field}"));
    }
    if let Some(fault) = worker.validate() {
        return Err(fault);
    }
    match validate_env(&worker.env) {
        Some(fault) => Err(format!("env: {fault}")),
        None => Ok(worker),
    }
}

/// The path of something that is given and was not taken, if anything is. What is empty says nothing.
fn first_unknown_field(given: &Value, taken: &Value) -> Option<String> {
    match (given, taken) {
        (Value::Object(given), taken) => given
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .find_map(|(name, value)| {
                let Some(taken) = taken.get(name) else {
                    return Some(name.clone());
                };
                first_unknown_field(value, taken).map(|path| join(name, &path))
            }),
        (Value::Array(given), Value::Array(taken)) => {
            given
                .iter()
                .zip(taken)
                .enumerate()
                .find_map(|(n, (given, taken))| {
                    first_unknown_field(given, taken).map(|path| join(&format!("[{n}]"), &path))
                })
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

fn join(name: &str, path: &str) -> String {
    format!(
        "{name}{}{path}",
        if path.starts_with('[') { "" } else { "." }
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_installed_changes_nothing() {
        assert_eq!(
            parse(include_str!("../../config/manager/worker-defaults.yaml")).unwrap(),
            WorkerTemplate::default()
        );
    }

    #[test]
    fn what_a_test_could_ask_for_is_taken() {
        let text = "
image: example/default
resources: {requests: {cpu: 1, memory: 1Gi}, limits: {}}
tolerations: [{key: load, operator: Exists}]
env: [{name: NODE_OPTIONS, value: --max-old-space-size=9}, {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]
volumes: [{name: certs, secret: {secretName: s, items: [{key: a, path: b}]}}, {name: scratch, emptyDir: {}}]
volumeMounts: [{name: certs, mountPath: /certs}]
securityContext: {readOnlyRootFilesystem: false, runAsUser: 7}
sidecars: [{name: proxy, image: p, startupProbe: {httpGet: {port: http}}}]
dnsConfig: null
";
        assert_eq!(parse(text).unwrap().sidecars.len(), 1);
    }

    #[test]
    fn what_would_be_left_out_or_is_not_allowed_is_named() {
        for (text, why) in [
            ("hostNetwork: true", "spec.worker has no field hostNetwork"),
            (
                "resources: {limit: {cpu: 1}}",
                "spec.worker has no field resources.limit",
            ),
            (
                "tolerations: [{key: a}, {keys: b}]",
                "spec.worker has no field tolerations[1].keys",
            ),
            (
                "sidecars: [{name: a, ports: [{containerPort: 1, port: 1}]}]",
                "spec.worker has no field sidecars[0].ports[0].port",
            ),
            (
                "volumes: [{name: host, hostPath: {path: /}}]",
                "volumes.hostPath is not allowed",
            ),
            (
                "volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
                "volumes.projected.sources.serviceAccountToken is not allowed",
            ),
            (
                "securityContext: {privileged: true}",
                "securityContext.privileged is not allowed",
            ),
            (
                "sidecars: [{name: a, securityContext: {capabilities: {add: [ALL]}}}]",
                "sidecars.securityContext.capabilities is not allowed",
            ),
            (
                "sidecars: [{name: a, startupProbe: {httpGet: {port: 1, host: h}}}]",
                "startupProbe.httpGet.host is not allowed",
            ),
            (
                "podSecurityContext: {runAsUser: 0}",
                "podSecurityContext.runAsUser must be 1 or more",
            ),
            (
                "securityContext: {runAsNonRoot: false}",
                "securityContext.runAsNonRoot must be true",
            ),
            (
                "sidecars: [{name: a, securityContext: {seccompProfile: {type: Unconfined}}}]",
                "seccompProfile.type must be one of",
            ),
            (
                "volumes: [{name: data, emptyDir: {}}]",
                "the volume name data is reserved for the operator",
            ),
            (
                "volumeMounts: [{name: a, mountPath: /data/more}]",
                "the path /data/more is reserved for the operator",
            ),
            (
                "env: [{name: LOADTEST_WORKERS, value: '1'}]",
                "env: LOADTEST_WORKERS is reserved for the operator",
            ),
            ("image: [a]", "image: invalid type"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
