//! Parses the file of `--worker-defaults`.

use serde_json::Value;

use loadtest_api::v1alpha1::{WorkerTemplate, validate_env};

/// Parses and validates the defaults. They have the limits of `spec.worker`: unknown fields would be ignored silently,
/// and others could violate the Pod Security Standard `restricted` for the pods of all tests.
pub(super) fn parse(text: &str) -> Result<WorkerTemplate, String> {
    let given: Value = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    let worker: WorkerTemplate = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    let parsed = serde_json::to_value(&worker).map_err(|e| e.to_string())?;
    if let Some(field) = first_unknown_field(&given, &parsed) {
        return Err(format!("spec.worker has no field {field}"));
    }
    if let Some(problem) = worker.validate() {
        return Err(problem);
    }
    match validate_env(&worker.env) {
        Some(problem) => Err(format!("env: {problem}")),
        None => Ok(worker),
    }
}

/// Returns the path of the first non-empty value in `given` that `parsed` does not contain.
fn first_unknown_field(given: &Value, parsed: &Value) -> Option<String> {
    match (given, parsed) {
        (Value::Object(given), parsed) => given
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .find_map(|(name, value)| {
                let Some(parsed) = parsed.get(name) else {
                    return Some(name.clone());
                };
                first_unknown_field(value, parsed).map(|path| join(name, &path))
            }),
        (Value::Array(given), Value::Array(parsed)) => given
            .iter()
            .zip(parsed)
            .enumerate()
            .find_map(|(n, (given, parsed))| {
                first_unknown_field(given, parsed).map(|path| join(&format!("[{n}]"), &path))
            }),
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
    fn installed_file_sets_no_defaults() {
        assert_eq!(
            parse(include_str!("../../config/manager/worker-defaults.yaml")).unwrap(),
            WorkerTemplate::default()
        );
    }

    #[test]
    fn fields_of_spec_worker_are_accepted() {
        let text = "
image: example/default
resources: {requests: {cpu: 1, memory: 1Gi}, limits: {}}
tolerations: [{key: load, operator: Exists}]
env: [{name: NODE_OPTIONS, value: --max-old-space-size=9}, {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]
volumes: [{name: certs, secret: {secretName: s, items: [{key: a, path: b}]}}, {name: scratch, emptyDir: {}}]
volumeMounts: [{name: certs, mountPath: /certs}]
securityContext: {readOnlyRootFilesystem: false, runAsUser: 7}
sidecars: [{name: proxy, image: p, startupProbe: {httpGet: {port: http}}}]
podSecurityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: 1024 65535}]}
dnsConfig: null
";
        assert_eq!(parse(text).unwrap().sidecars.len(), 1);
    }

    #[test]
    fn unknown_and_forbidden_fields_are_rejected_by_name() {
        for (text, reason) in [
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
                "podSecurityContext: {sysctls: [{name: net.core.somaxconn, value: '1024'}]}",
                "podSecurityContext.sysctls: net.core.somaxconn is not one of kernel.shm_rmid_forced, ",
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
                "volumeMounts: [{name: a, mountPath: /opt/./loadtest}]",
                "/opt/./loadtest: a mount path must be absolute",
            ),
            (
                "volumeMounts: [{name: a, mountPath: opt/loadtest}]",
                "opt/loadtest: a mount path must be absolute",
            ),
            (
                "annotations: {container.apparmor.security.beta.kubernetes.io/worker: unconfined}",
                "container.apparmor.security.beta.kubernetes.io/worker: names below artillery.io, ",
            ),
            (
                "labels: {artillery.io/component: mine}",
                "artillery.io/component: names below artillery.io, ",
            ),
            (
                "env: [{name: LOADTEST_WORKERS, value: '1'}]",
                "env: LOADTEST_WORKERS is reserved for the operator",
            ),
            ("image: [a]", "image: invalid type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
