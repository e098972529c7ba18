//! The operator's process, which is started again whenever it ends, as a cluster would.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::Client;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::plan::Fault;
use crate::proxy::{Killer, Proxy};

/// Killed when it is dropped.
pub struct Operator {
    log: PathBuf,
    supervisor: JoinHandle<()>,
}

/// Somebody who can ask for the operator's death, and what is to hear of it.
pub fn killer() -> (Killer, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    mpsc::unbounded_channel()
}

/// Kills the operator; it is started again at once.
pub async fn kill(killer: &Killer) {
    let (dead, died) = oneshot::channel();
    if killer.send(dead).is_ok() {
        let _ = died.await;
    }
}

impl Operator {
    /// Starts one that works in a namespace; with a lease, if it is to have one.
    pub fn start(
        kubeconfig: PathBuf,
        namespace: &str,
        leads: bool,
        mut kills: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("faults-{}-{number}.log", std::process::id()));
        let (to, namespace) = (log.clone(), namespace.to_owned());
        let supervisor = tokio::spawn(async move {
            loop {
                let mut process = spawn(&kubeconfig, &namespace, leads, &to);
                tokio::select! {
                    _ = process.wait() => tokio::time::sleep(Duration::from_secs(1)).await,
                    asked = kills.recv() => {
                        let _ = process.kill().await;
                        let Some(dead) = asked else { return };
                        let _ = dead.send(());
                    }
                }
            }
        });
        Self { log, supervisor }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.supervisor.abort();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Another operator, which waits for the lease.
pub struct StandBy {
    pub proxy: Proxy,
    pub operator: Operator,
    /// While it lives, the operator is not killed.
    _killer: Killer,
}

impl StandBy {
    pub async fn start(client: &Client, namespace: &str, heal: Duration) -> Self {
        let (killer, kills) = killer();
        let proxy = Proxy::start(client.clone(), Fault::None, heal, killer.clone()).await;
        let operator = Operator::start(proxy.kubeconfig(), namespace, true, kills);
        Self {
            proxy,
            operator,
            _killer: killer,
        }
    }
}

fn spawn(kubeconfig: &Path, namespace: &str, leads: bool, log: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_artillery-operator"))
        .args(["--health-probe-bind-address=0", "--metrics-bind-address=0"])
        .env("KUBECONFIG", kubeconfig)
        .env("NAMESPACES", namespace)
        .env("LEADER_ELECT", leads.to_string())
        .env("LEADER_ELECT_NAMESPACE", namespace)
        .env("RUST_LOG", "info,artillery_operator=debug,kube=info")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap(),
        )
        .kill_on_drop(true)
        .spawn()
        .expect("the operator's program starts")
}
