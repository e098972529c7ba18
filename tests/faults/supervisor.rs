//! An operator that is restarted whenever it ends, as a cluster would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::plan::Fault;
use crate::proxy::FaultProxy;
use crate::support::process::{LogFile, Operator, command};

/// The delay of a restart after the operator has ended by itself.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Sends requests to kill the operator. Each is answered when the process has ended.
pub type Killer = mpsc::UnboundedSender<oneshot::Sender<()>>;

/// A supervised operator. It is killed when this is dropped.
pub struct SupervisedOperator {
    log: Arc<LogFile>,
    supervisor: JoinHandle<()>,
}

/// The channel of a supervised operator.
pub fn killer() -> (Killer, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    mpsc::unbounded_channel()
}

/// Kills the operator, which is restarted at once.
pub async fn kill(killer: &Killer) {
    let (dead, died) = oneshot::channel();
    if killer.send(dead).is_ok() {
        let _ = died.await;
    }
}

impl SupervisedOperator {
    /// Starts an operator that works in a namespace, with or without leader election.
    pub fn start(
        kubeconfig: PathBuf,
        namespace: &str,
        elects: bool,
        mut kills: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) -> Self {
        let log = LogFile::new();
        let (to, namespace) = (log.clone(), namespace.to_owned());
        let supervisor = tokio::spawn(async move {
            loop {
                let mut process = spawn(&kubeconfig, &namespace, elects, to.clone());
                tokio::select! {
                    _ = process.wait() => tokio::time::sleep(RESTART_DELAY).await,
                    request = kills.recv() => {
                        process.kill().await;
                        let Some(dead) = request else { return };
                        let _ = dead.send(());
                    }
                }
            }
        });
        Self { log, supervisor }
    }

    pub fn log(&self) -> String {
        self.log.text()
    }
}

impl Drop for SupervisedOperator {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// A second operator, which waits for the lease.
pub struct Standby {
    pub proxy: FaultProxy,
    pub operator: SupervisedOperator,
    /// The operator is killed when this is dropped.
    _killer: Killer,
}

impl Standby {
    pub async fn start(client: &Client, namespace: &str, heal: Duration) -> Self {
        let (killer, kills) = killer();
        let proxy = FaultProxy::start(client.clone(), Fault::None, heal, killer.clone()).await;
        let operator = SupervisedOperator::start(proxy.kubeconfig(), namespace, true, kills);
        Self {
            proxy,
            operator,
            _killer: killer,
        }
    }
}

fn spawn(kubeconfig: &Path, namespace: &str, elects: bool, log: Arc<LogFile>) -> Operator {
    let mut command = command(kubeconfig, namespace);
    command
        .args(["--health-probe-bind-address=0", "--metrics-bind-address=0"])
        .env("LEADER_ELECT", elects.to_string());
    Operator::spawn(command, log)
}
