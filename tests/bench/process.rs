//! The operator's process, and what the kernel tells of it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The operator at work. Killed when this is dropped.
pub struct Operator {
    process: Child,
    log: PathBuf,
}

/// Memory in MiB.
pub struct Memory {
    pub rss: f64,
    /// The part that is not the program's file.
    anonymous: f64,
    pub peak: f64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RSS MiB {:.1} (anonymous {:.1}), peak {:.1}",
            self.rss, self.anonymous, self.peak
        )
    }
}

impl Operator {
    pub fn start(command: &[String], kubeconfig: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!(
            "bench-operator-{}-{number}.log",
            std::process::id()
        ));
        let file = File::create(&log).expect("the operator's log can be written");
        let mut process = Command::new(&command[0]);
        process
            .args(&command[1..])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file);
        if std::env::var_os("RUST_LOG").is_none() {
            process.env("RUST_LOG", "info");
        }
        let process = process
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", command[0]));
        Self { process, log }
    }

    pub fn is_alive(&mut self) -> bool {
        self.process
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().expect("the operator can be killed");
        self.process.wait().expect("a child can be waited for");
    }

    pub async fn terminate(&mut self) {
        if !self.is_alive() {
            return;
        }
        let asked = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        assert!(
            asked.is_ok_and(|s| s.success()),
            "the operator can be asked to end"
        );
        let begun = Instant::now();
        while self.is_alive() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the operator does not end"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap_or_default()
    }

    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let mib = |field: &str| {
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
            line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok())
                .unwrap_or_default()
                / 1024.0
        };
        Memory {
            rss: mib("VmRSS"),
            anonymous: mib("RssAnon"),
            peak: mib("VmHWM"),
        }
    }

    /// Seconds of CPU so far: the kernel counts in hundredths of a second.
    pub fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        fields
            .skip(11)
            .take(2)
            .filter_map(|f| f.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    }

    pub fn sockets(&self) -> usize {
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", self.process.id())) else {
            return 0;
        };
        files
            .flatten()
            .filter(|f| {
                fs::read_link(f.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .count()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines of the log that warn.
    pub fn complaints(&self) -> Vec<String> {
        let loud = |line: &&str| {
            line.contains("WARN") || line.contains("ERROR") || line.contains("panicked")
        };
        self.log().lines().filter(loud).map(str::to_owned).collect()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
    }
}
