//! What the system tells of this process: its memory, its time and its files, read when metrics are.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// This process, under the names that Prometheus' own client libraries use. Where there is no `/proc`, only its start
/// is told.
#[derive(Debug)]
pub struct Process {
    began: f64,
}

impl Process {
    /// This process, which begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: SystemTime::now()
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
        tell(
            to,
            "process_start_time",
            "When the process began, since 1970.",
            seconds,
            &ConstGauge::new(self.began),
        )?;
        if let Some(used) = read("stat").as_deref().and_then(cpu_seconds) {
            tell(
                to,
                "process_cpu",
                "Time of processors that was used.",
                seconds,
                &ConstCounter::new(used),
            )?;
        }
        let status = read("status").unwrap_or_default();
        if let Some(used) = size(&status, "VmRSS") {
            tell(
                to,
                "process_resident_memory",
                "OwnWrites in use.",
                bytes,
                &ConstGauge::new(used),
            )?;
        }
        if let Some(used) = size(&status, "VmSize") {
            tell(
                to,
                "process_virtual_memory",
                "Addresses in use.",
                bytes,
                &ConstGauge::new(used),
            )?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The look itself holds one open.
            let open = u64::try_from(open.count().saturating_sub(1)).unwrap_or_default();
            tell(
                to,
                "process_open_fds",
                "Open files and connections.",
                None,
                &ConstGauge::new(open),
            )?;
        }
        if let Some(most) = read("limits").as_deref().and_then(most_files) {
            tell(
                to,
                "process_max_fds",
                "The most open files and connections.",
                None,
                &ConstGauge::new(most),
            )?;
        }
        Ok(())
    }
}

fn tell(
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

/// The ticks of a second in what `/proc` tells: `USER_HZ`, 100 on all architectures that Rust runs on.
const TICKS: f64 = 100.0;

/// The processor time in `/proc/self/stat`: user and system, in fields 14 and 15. The name in field 2 may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

/// A size in bytes, from `/proc/self/status`, where it is such as `VmRSS:     6840 kB`.
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

/// The limit of open files that holds, in `/proc/self/limits`.
fn most_files(limits: &str) -> Option<u64> {
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
    fn what_the_system_tells_is_understood() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 1 0 7 8 9";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(
            size("VmPeak:\t 9 kB\nVmRSS:\t    6840 kB\n", "VmRSS"),
            Some(6840 * 1024)
        );
        let limits = "Limit    Soft Limit   Hard Limit  Units\nMax open files            1024                 4096       files\n";
        assert_eq!(most_files(limits), Some(1024));
    }

    #[test]
    fn what_is_strange_is_left_out() {
        for text in [
            "",
            ")",
            "1 (x) S 1 2 3",
            "VmRSS: lots",
            "Max open files unlimited",
            "1 (x) S 1 1 1 1 1 1 1 1 1 1 -5 x",
        ] {
            assert_eq!(
                (cpu_seconds(text), size(text, "VmRSS"), most_files(text)),
                (None, None, None),
                "{text}"
            );
        }
    }
}
