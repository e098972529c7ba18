//! Faults of the ports on which running workers serve their results.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;

use crate::plan::PortFault;
use crate::run::{Execution, NAME};
use crate::supervisor;
use crate::support::live_worker::{Behavior, Worker};
use crate::view::View;

/// How often it is checked whether a worker was read.
const READ_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Execution<'_> {
    /// Lets the workers run, with ports that have a fault, until each has been read twice.
    pub(crate) async fn run_with_ports(&mut self, fault: PortFault) -> Result<(), String> {
        let behavior = match fault {
            PortFault::Responses(behavior) => behavior,
            PortFault::OperatorKilled => Behavior::Normal,
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        for pod in self.pods(&self.history.view()) {
            self.ports.push(Worker::start(&pods, &pod, behavior).await);
        }
        let status = |view: &View| {
            view.get("LoadTest", NAME)
                .map(|test| test["status"].clone())
        };
        match behavior {
            Behavior::Normal | Behavior::HighCounts => {
                let is_live = |status: Value| status["results"]["requests"].as_i64() > Some(0);
                self.until("live results", |_, view| {
                    status(view).filter(|status| is_live(status.clone()))
                })
                .await?;
            }
            Behavior::Closed => self.until_reason("WorkersUnreachable").await?,
            _ => {}
        }
        let is_read = async {
            while self
                .ports
                .iter()
                .any(|port| port.asked.load(Ordering::Relaxed) < 2)
            {
                tokio::time::sleep(READ_CHECK_INTERVAL).await;
            }
        };
        if behavior != Behavior::Closed {
            tokio::time::timeout(self.timings.limit, is_read)
                .await
                .map_err(|_| "the workers are not read".to_owned())?;
        }
        if fault == PortFault::OperatorKilled {
            supervisor::kill(&self.killer).await;
        }
        Ok(())
    }
}
