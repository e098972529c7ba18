//! Faults of the cluster, injected while a test is at a stage.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use loadtest_api::v1alpha1::LoadTest;

use crate::plan::{ClusterFault, Stage};
use crate::run::{Execution, NAME};
use crate::supervisor;
use crate::third_party;

/// What a scenario does after a fault of the cluster.
pub enum Next {
    Continue,
    /// The fault has ended the run.
    End,
    /// The scenario begins again, with a new test of the same name.
    Restart,
}

impl Execution<'_> {
    /// Injects a fault of the cluster. Returns what the scenario does next.
    pub(crate) async fn inject(
        &mut self,
        stage: Stage,
        fault: ClusterFault,
    ) -> Result<Next, String> {
        let background = DeleteParams::background();
        let tests: Api<LoadTest> = Api::namespaced(self.client.clone(), self.namespace);
        match fault {
            ClusterFault::OperatorKilled => supervisor::kill(&self.killer).await,
            ClusterFault::StaleWatches => {
                self.restart_with_stale_watches(&["loadtests", "jobs", "pods"])
                    .await;
            }
            ClusterFault::StaleJobWatches => {
                self.restart_with_stale_watches(&["jobs", "pods"]).await;
            }
            ClusterFault::RecreatedWithStaleWatches => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.create_test().await;
                self.restart_with_stale_watches(&["loadtests", "jobs", "pods"])
                    .await;
                return Ok(Next::Restart);
            }
            ClusterFault::PermissionsRevoked => {
                self.proxy.forbid(true);
                tokio::time::sleep(self.timings.heal).await;
                self.proxy.forbid(false);
            }
            ClusterFault::JobDeleted => {
                let jobs: Api<Job> = Api::namespaced(self.client.clone(), self.namespace);
                jobs.delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until("no Job", |run, view| run.job(view).is_none().then_some(()))
                    .await?;
                self.until_ended().await?;
                return Ok(Next::End);
            }
            ClusterFault::PodDeleted => {
                if let Some(pod) = self.pods(&self.history.view()).first() {
                    let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
                    pods.delete(&pod.name_any(), &background)
                        .await
                        .map_err(|e| e.to_string())?;
                }
                if matches!(stage, Stage::Starting | Stage::Running) {
                    self.until_ended().await?;
                    return Ok(Next::End);
                }
            }
            ClusterFault::TestDeleted => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until_nothing_is_left().await?;
                return Ok(Next::End);
            }
            ClusterFault::NamespaceDeleted => {
                let namespaces: Api<Namespace> = Api::all(self.client.clone());
                namespaces
                    .delete(self.namespace, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until_nothing_is_left().await?;
                return Ok(Next::End);
            }
            ClusterFault::TestRecreated => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.create_test().await;
                return Ok(Next::Restart);
            }
            ClusterFault::HostileTenant => {
                let view = self.history.view();
                let job = self.job(&view).map(|job| job["metadata"].clone());
                third_party::attack(self.client, self.namespace, job.as_ref()).await;
            }
            ClusterFault::NoJobs
            | ClusterFault::NoPods
            | ClusterFault::ForeignJob
            | ClusterFault::ForeignJobStays => {
                return Err(format!("{fault:?} is only possible before the test exists"));
            }
        }
        Ok(Next::Continue)
    }

    /// Kills the operator. The next one reads stale lists of these resources, and its watches are delayed.
    async fn restart_with_stale_watches(&self, resources: &[&str]) {
        self.proxy.serve_stale_lists(resources);
        supervisor::kill(&self.killer).await;
        self.proxy.until_caught_up(self.timings.limit).await;
        // By then the operator has acted on the stale lists.
        tokio::time::sleep(self.timings.heal).await;
    }

    /// I8: neither the test nor its Job and pods remain.
    async fn until_nothing_is_left(&self) -> Result<(), String> {
        self.until("nothing is left", |_, view| {
            ["LoadTest", "Job", "Pod"]
                .into_iter()
                .all(|kind| view.all(kind).next().is_none())
                .then_some(())
        })
        .await
    }
}
