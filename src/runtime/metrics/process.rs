//! Process metrics, read from `/proc` at each scrape.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Collects the process metrics that the Prometheus client libraries define. Without `/proc`, only the start time is
/// available.
#[derive(Debug)]
pub(crate) struct Process {
    start_time: f64,
}

impl Process {
    /// Creates the collector. The process counts as started now.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            start_time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let to = &mut encoder;
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        encode(
            to,
            "process_start_time",
            "Start time of the process since unix epoch in seconds.",
            seconds,
            &ConstGauge::new(self.start_time),
        )?;
        if let Some(used) = read("stat").as_deref().and_then(cpu_seconds) {
            encode(
                to,
                "process_cpu",
                "Total user and system CPU time spent in seconds.",
                seconds,
                &ConstCounter::new(used),
            )?;
        }
        let status = read("status").unwrap_or_default();
        if let Some(used) = size(&status, "VmRSS") {
            encode(
                to,
                "process_resident_memory",
                "Resident memory size in bytes.",
                bytes,
                &ConstGauge::new(used),
            )?;
        }
        if let Some(used) = size(&status, "VmSize") {
            encode(
                to,
                "process_virtual_memory",
                "Virtual memory size in bytes.",
                bytes,
                &ConstGauge::new(used),
            )?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // `read_dir` itself holds one descriptor open.
            let open = u64::try_from(open.count().saturating_sub(1)).unwrap_or_default();
            encode(
                to,
                "process_open_fds",
                "Number of open file descriptors.",
                None,
                &ConstGauge::new(open),
            )?;
        }
        if let Some(max) = read("limits").as_deref().and_then(max_open_files) {
            encode(
                to,
                "process_max_fds",
                "Maximum number of open file descriptors.",
                None,
                &ConstGauge::new(max),
            )?;
        }
        Ok(())
    }
}

fn encode(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(to.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{name}")).ok()
}

/// The clock ticks per second in `/proc` (`USER_HZ`), which is 100 on all architectures that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the user and system CPU time of `/proc/self/stat`, which are fields 14 and 15. The name in field 2 can
/// contain spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// Returns a size of `/proc/self/status` in bytes. A line reads `VmRSS:     6840 kB`.
fn size(status: &str, name: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    value
        .trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Returns the soft limit of open files in `/proc/self/limits`.
fn max_open_files(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 1 0 7 8 9";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(
            size("VmPeak:\t 9 kB\nVmRSS:\t    6840 kB\n", "VmRSS"),
            Some(6840 * 1024)
        );
        let limits = "Limit    Soft Limit   Hard Limit  Units\nMax open files            1024                 4096       files\n";
        assert_eq!(max_open_files(limits), Some(1024));
    }

    #[test]
    fn malformed_proc_files_are_ignored() {
        for text in [
            "",
            ")",
            "1 (x) S 1 2 3",
            "VmRSS: lots",
            "Max open files unlimited",
            "1 (x) S 1 1 1 1 1 1 1 1 1 1 -5 x",
        ] {
            assert_eq!(
                (cpu_seconds(text), size(text, "VmRSS"), max_open_files(text)),
                (None, None, None),
                "{text}"
            );
        }
    }
}
