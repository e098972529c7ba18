//! The pods of workers, whose states the tests set as a kubelet would.

use super::nodes::results;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::env::TestEnv;

/// Sets the state of a pod and of its container, as a kubelet would. `probes` are `started` and `ready` of the container.
pub async fn set_pod(
    pods: &Api<Pod>,
    pod: &Pod,
    phase: &str,
    container_state: Value,
    [started, ready]: [bool; 2],
) -> kube::Result<Pod> {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let status = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": phase, "startTime": now(), "containerStatuses": [{
        "name": container.name, "image": container.image, "imageID": "", "started": started, "ready": ready, "restartCount": 0,
        "state": container_state}]}});
    let params = PatchParams::default();
    pods.patch_status(&pod.name_any(), &params, &Patch::Merge(status))
        .await
}

/// The time in whole seconds, as kubelets write it.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl TestEnv {
    /// The worker pods of a test by index, once there are `count` of them.
    pub async fn pods(&self, test: &str, count: usize) -> Vec<Pod> {
        let api: Api<Pod> = self.api();
        let params = ListParams::default().labels(&format!("artillery.io/test-name={test}"));
        let mut pods = self
            .until(&format!("{test} has {count} pods"), async || {
                let pods = api.list(&params).await.unwrap().items;
                (pods.len() == count).then_some(pods)
            })
            .await;
        pods.sort_by_key(|p| {
            p.annotations()["batch.kubernetes.io/job-completion-index"]
                .parse::<u32>()
                .unwrap()
        });
        pods
    }

    /// Sets the state of a pod, as a kubelet would.
    pub async fn set_pod(&self, pod: &Pod, phase: &str, container_state: Value) {
        set_pod(
            &self.api(),
            pod,
            phase,
            container_state,
            [phase == "Running"; 2],
        )
        .await
        .unwrap();
    }

    pub async fn set_running(&self, pod: &Pod) {
        self.set_running_with_probes(pod, [true, true]).await;
    }

    /// The container runs. `probes` are its `started` and `ready`: its load is ready to start, and it knows the start time.
    pub async fn set_running_with_probes(&self, pod: &Pod, probes: [bool; 2]) {
        let state = json!({"running": {"startedAt": now()}});
        set_pod(&self.api(), pod, "Running", state, probes)
            .await
            .unwrap();
    }

    /// Ends the worker. One that succeeds without a message leaves the results of a real test.
    pub async fn set_exited(&self, pod: &Pod, code: i32, message: &str) {
        let message = match (code, message) {
            (0, "") => results(),
            (_, message) => message,
        };
        let (phase, reason) = if code == 0 {
            ("Succeeded", "Completed")
        } else {
            ("Failed", "Error")
        };
        let terminated = json!({"exitCode": code, "reason": reason, "message": message,
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z"});
        self.set_pod(pod, phase, json!({"terminated": terminated}))
            .await;
    }
}
