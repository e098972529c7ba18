//! Analyzes mutated scripts, snapshots and thresholds for a time, and reports inputs that cause a panic, or that take more time
//! than is linear in their size. `make fuzz` runs it.
//!
//! Arguments: the seconds to run, and optionally the seed of an earlier run. The exit code is 1 if something was found. Each input
//! that was found is written to `target/fuzz`.

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod corpus;
mod mutate;
mod targets;

use corpus::Corpus;
use mutate::Random;
use targets::{TARGETS, Target};

/// The stack of the thread: an eighth of that of the operator's main thread.
const STACK: usize = 1 << 20;
/// The size of the largest `ConfigMap`, with some reserve.
const LARGEST: usize = 1_250_000;
/// What any input may take.
const BASE: Duration = Duration::from_millis(50);
/// What each byte may take in addition.
const PER_BYTE: Duration = Duration::from_nanos(200);
/// Findings beyond this number are only counted.
const MAX_WRITTEN: usize = 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        let argument = arguments.next();
        argument.map_or(Some(default), |argument| argument.parse().ok())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (Some(seconds), Some(seed)) = (number(60), number(now.map_or(1, |now| now.as_secs())))
    else {
        eprintln!("usage: loadtest-fuzz [SECONDS [SEED]]");
        return ExitCode::from(2);
    };
    let run = move || run(Duration::from_secs(seconds), seed);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(0)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Returns the number of findings.
fn run(limit: Duration, seed: u64) -> usize {
    println!("seed {seed}");
    let start = Instant::now();
    let mut random = Random::new(seed);
    let mut corpus = Corpus::new();
    let mut findings = Findings::default();
    for (what, script) in loadtest_script::testing::LARGE_SCRIPTS {
        let [tenth, whole] = [LARGEST / 10, LARGEST].map(|bytes| {
            let text = script(bytes);
            let times = (0..5).map(|_| findings.check(&TARGETS[0], &text));
            times.min().unwrap_or_default()
        });
        println!("{tenth:>12.1?} {whole:>12.1?}  {what}");
    }
    for (what, target, text) in corpus::large() {
        let times = (0..5).map(|_| findings.check(&TARGETS[target], &text));
        println!("{:>25.1?}  {what}", times.min().unwrap_or_default());
    }
    let (mut runs, mut bytes, mut slowest) = (0_u64, 0_usize, Duration::ZERO);
    let mut reported = Instant::now();
    while start.elapsed() < limit {
        let target = random.choose(&TARGETS);
        let text = corpus.mutated(target, &mut random);
        let elapsed = findings.check(target, &text);
        runs += 1;
        bytes += text.len();
        slowest = slowest.max(elapsed);
        corpus.keep(target, text, elapsed, &mut random);
        if reported.elapsed() > Duration::from_secs(60) {
            reported = Instant::now();
            println!(
                "{runs} inputs, {bytes} bytes, slowest {slowest:.1?}, {} findings",
                findings.count
            );
        }
    }
    println!(
        "{runs} inputs, {bytes} bytes, slowest {slowest:.1?}, {} findings",
        findings.count
    );
    findings.count
}

/// The time that this thread has used a processor, which does not depend on other processes.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

#[derive(Default)]
struct Findings {
    count: usize,
}

impl Findings {
    /// Runs an input. Returns how long it took.
    fn check(&mut self, target: &Target, text: &str) -> Duration {
        let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let bound = BASE + PER_BYTE * size;
        let mut best = Duration::MAX;
        // The first run fills caches.
        for _ in 0..3 {
            let (start, cpu) = (Instant::now(), cpu_time());
            let work = loadtest_script::testing::work();
            if catch_unwind(|| (target.run)(text)).is_err() {
                self.report(target, text, "panic");
                return start.elapsed();
            }
            let elapsed = start.elapsed();
            best = best.min(elapsed);
            let steps = loadtest_script::testing::work() - work;
            if steps > target.base_steps + target.steps_per_byte * text.len() {
                self.report(target, text, &format!("{steps} steps"));
                return best;
            }
            if elapsed.min(cpu_time().saturating_sub(cpu)) <= bound {
                return best;
            }
        }
        self.report(target, text, &format!("{best:.1?}"));
        best
    }

    fn report(&mut self, target: &Target, text: &str, what: &str) {
        self.count += 1;
        println!("{}: {what} for {} bytes", target.name, text.len());
        if self.count <= MAX_WRITTEN {
            let path = format!("target/fuzz/{}-{}", target.name, self.count);
            let written =
                std::fs::create_dir_all("target/fuzz").and_then(|()| std::fs::write(&path, text));
            match written {
                Ok(()) => println!("  {path}"),
                Err(error) => println!("  {path}: {error}"),
            }
        }
    }
}
