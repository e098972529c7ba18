//! One operator process, and its log.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::DEADLINE;

/// The file of worker defaults that operators get, if any.
pub static WORKER_DEFAULTS: OnceLock<&str> = OnceLock::new();

/// How long an operator may take to exit after SIGTERM.
const TERMINATION_DEADLINE: Duration = Duration::from_secs(20);

/// How often a state of the process is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An operator process. It is killed when this is dropped.
pub struct Operator {
    process: Child,
    log: Arc<LogFile>,
}

/// A log file, which several processes may write one after another. It is removed when this is dropped.
pub struct LogFile(PathBuf);

impl LogFile {
    pub fn new() -> Arc<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("operator-{}-{number}.log", std::process::id());
        Arc::new(Self(std::env::temp_dir().join(name)))
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The kubectl plugin of this build.
pub fn plugin() -> PathBuf {
    let program =
        Path::new(env!("CARGO_BIN_EXE_artillery-operator")).with_file_name("kubectl-artillery");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p kubectl-artillery",
        program.display()
    );
    program
}

/// The command of this build's operator, working in one namespace.
pub fn command(kubeconfig: &Path, namespace: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_artillery-operator"));
    // Variables, so that a test can override them with arguments.
    command
        .env("KUBECONFIG", kubeconfig)
        .env("NAMESPACES", namespace)
        .env("LEADER_ELECT_NAMESPACE", namespace)
        .env("RUST_LOG", "info,artillery_operator=debug")
        .envs(WORKER_DEFAULTS.get().map(|file| ("WORKER_DEFAULTS", file)));
    command
}

impl Operator {
    /// Starts a command that writes to a log.
    pub fn spawn(mut command: Command, log: Arc<LogFile>) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log.0)
            .expect("the log can be written");
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| {
                panic!(
                    "cannot start {}: {e}",
                    command.as_std().get_program().display()
                )
            });
        Self { process, log }
    }

    /// Waits until the log reports that something is served. Returns its port.
    pub async fn until_serving(&mut self, what: &str) -> u16 {
        let begun = Instant::now();
        loop {
            if let Some(port) = port_in(&self.log(), what) {
                return port;
            }
            let waits = self.is_alive() && begun.elapsed() < DEADLINE;
            assert!(waits, "the operator does not serve {what}:\n{}", self.log());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The process ID, until the process has ended.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Waits until the process ends.
    pub async fn wait(&mut self) -> ExitStatus {
        self.process
            .wait()
            .await
            .expect("a child can be waited for")
    }

    /// Sends SIGKILL, and waits for the end of the process.
    pub async fn kill(&mut self) {
        // Fails only if the process has ended.
        let _ = self.process.start_kill();
        self.wait().await;
    }

    /// Sends SIGTERM, and waits for the end of the process. Returns its exit code.
    pub async fn terminate(&mut self) -> i32 {
        if let Some(id) = self.id().filter(|_| self.is_alive()) {
            let sent = Command::new("kill").arg(id.to_string()).status().await;
            assert!(sent.is_ok_and(|s| s.success()), "SIGTERM can be sent");
        }
        let ended = tokio::time::timeout(TERMINATION_DEADLINE, self.wait()).await;
        ended
            .expect("the operator ends in time")
            .code()
            .unwrap_or(-1)
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The warnings and errors in the log.
    pub fn warnings(&self) -> Vec<String> {
        let is_warning = |line: &&str| {
            line.contains("WARN") || line.contains("ERROR") || line.contains("panicked")
        };
        let log = self.log();
        log.lines().filter(is_warning).map(str::to_owned).collect()
    }
}

/// The port in the line `serving {what}` of a log.
fn port_in(log: &str, what: &str) -> Option<u16> {
    // The last line may be incomplete.
    let (complete, _) = log.rsplit_once('\n')?;
    let serving = format!("serving {what}");
    let line = complete.lines().find(|line| line.contains(&serving))?;
    line.rsplit_once(':')?.1.trim().parse().ok()
}
