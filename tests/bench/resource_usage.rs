//! What the kernel reports of the operator's process.

use std::fmt;
use std::fs;

use crate::support::process::Operator;

/// Memory in MiB.
pub struct Memory {
    pub rss: f64,
    /// The part that is not backed by the program's file.
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

pub trait ResourceUsage {
    fn memory(&self) -> Memory;
    /// Seconds of CPU time, in steps of 0.01 s.
    fn cpu_seconds(&self) -> f64;
    fn sockets(&self) -> usize;
}

impl ResourceUsage for Operator {
    fn memory(&self) -> Memory {
        let status = fs::read_to_string(proc_path(self, "status")).unwrap_or_default();
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

    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(proc_path(self, "stat")).unwrap_or_default();
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

    fn sockets(&self) -> usize {
        let Ok(files) = fs::read_dir(proc_path(self, "fd")) else {
            return 0;
        };
        files
            .flatten()
            .filter(|f| {
                fs::read_link(f.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .count()
    }
}

fn proc_path(operator: &Operator, file: &str) -> String {
    format!("/proc/{}/{file}", operator.id().unwrap_or_default())
}
