//! What is measured, from the arguments and the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use artillery_operator::decide::MAX_WORKER_EVENTS;
use tokio::process::Command;

use crate::support::process::{LogFile, Operator};

/// What is measured.
#[derive(Clone)]
pub struct Plan {
    /// The cases, or none to measure the life of LoadTests.
    pub cases: Vec<String>,
    pub tests: usize,
    pub count: usize,
    pub concurrency: usize,
    pub command: Vec<String>,
    pub operator_kubeconfig: PathBuf,
    pub operator_user: String,
    pub audit_log: PathBuf,
    pub run: Duration,
    pub quiet: Duration,
    pub limit: Duration,
    pub nodes: usize,
}

impl Plan {
    /// None if the arguments are invalid.
    pub fn from_args() -> Option<Self> {
        let mut args = std::env::args().skip(1).peekable();
        let cases = args.next_if_eq("--case").and_then(|_| args.next());
        let cases: Vec<_> = cases
            .iter()
            .flat_map(|c| c.split(','))
            .map(str::to_owned)
            .collect();
        let numbers: Vec<usize> = args
            .by_ref()
            .take_while(|a| a != "--")
            .map(|a| a.parse().ok())
            .collect::<Option<_>>()?;
        let (tests, count, concurrency) = match (cases.as_slice(), numbers.as_slice()) {
            ([], &[tests, count, concurrency]) => (tests, count, concurrency),
            ([case], &[n, concurrency]) if case == "depth" => (1, n, concurrency),
            ([_, ..], &[n, concurrency]) => (n, 2, concurrency),
            _ => return None,
        };
        let command: Vec<String> = args.collect();
        if command.is_empty() || tests == 0 || count == 0 || concurrency == 0 {
            return None;
        }
        let number = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |v| {
                v.parse()
                    .unwrap_or_else(|_| panic!("{name} is not a number: {v}"))
            })
        };
        let admin = PathBuf::from(std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set"));
        let audit_log = std::env::var_os("AUDIT_LOG")
            .map_or_else(|| admin.with_file_name("audit.log"), PathBuf::from);
        Some(Self {
            cases,
            tests,
            count,
            concurrency,
            command,
            operator_kubeconfig: std::env::var_os("OPERATOR_KUBECONFIG")
                .expect("OPERATOR_KUBECONFIG is set")
                .into(),
            operator_user: std::env::var("OPERATOR_USER").unwrap_or_else(|_| "operator".into()),
            audit_log,
            run: Duration::from_secs(number("RUN_S", 30)),
            quiet: Duration::from_secs(number("QUIET_S", 20)),
            limit: Duration::from_secs(number("LIMIT_S", 900)),
            nodes: usize::try_from(number("NODES", 20)).expect("the number of nodes fits"),
        })
    }

    /// Starts the operator with another kubeconfig than its own.
    pub fn start_operator_with(&self, kubeconfig: &Path) -> Operator {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env("KUBECONFIG", kubeconfig);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        Operator::spawn(command, LogFile::new())
    }

    pub fn start_operator(&self) -> Operator {
        self.start_operator_with(&self.operator_kubeconfig)
    }

    /// The number of `Running` events of a test.
    pub fn worker_events(&self) -> usize {
        if self.count > MAX_WORKER_EVENTS {
            1
        } else {
            self.count
        }
    }
}
