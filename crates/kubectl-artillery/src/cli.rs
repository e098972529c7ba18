//! The commands and their options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const HELP: &str = "\
{about}

  kubectl artillery init shop --target http://shop     a script and a LoadTest in the folder shop
  kubectl artillery run -k shop                        run it, follow it, print its result
  kubectl artillery report shop -o html > shop.html    its result as one page with charts

{usage-heading} {usage}

{all-args}

Exit codes: 0 passed, 1 failed, 2 not finished or an error, 3 inconclusive (the planned load was not delivered).
";

/// Run distributed Artillery load tests on Kubernetes, and read their results.
#[derive(Parser, Debug)]
#[command(name = "kubectl-artillery", bin_name = "kubectl artillery", version, help_template = HELP)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The cluster and the namespace.
    #[command(flatten)]
    pub connection: Connection,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The cluster and the namespace, as for kubectl.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// Namespace of the test [default: that of the context]
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Options as for kubectl"
    )]
    pub namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Options as for kubectl"
    )]
    pub context: Option<String>,

    /// Path of the kubeconfig [default: that of KUBECONFIG, or ~/.kube/config]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Options as for kubectl"
    )]
    pub kubeconfig: Option<PathBuf>,
}

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a folder with a script, a LoadTest and a kustomization that run as they are
    Init(Init),
    /// Check scripts and LoadTests without a cluster, with line and column
    Validate(Validate),
    /// Create a test, follow it, and print its result
    Run(Run),
    /// Run the spec of a finished test again, under a new name
    Rerun(Rerun),
    /// Follow a test until it ends
    Watch(Watch),
    /// Print the logs of the workers, each line with the index of its worker
    Logs(Logs),
    /// Stop a test: its workers receive SIGTERM
    Stop(Stop),
    /// List the tests of a namespace
    List(List),
    /// Write the report of a test: HTML, Markdown, JSON or JUnit
    Report(Report),
    /// Compare the results of two tests, and the specs
    Compare(Compare),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Options of `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// Folder to create. Its last part is the name of the test
    pub dir: PathBuf,

    /// Service of the cluster to test: its port and the path of its pods' probe are used
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    pub service: Option<String>,

    /// URL to test, as the workers in the cluster reach it
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
}

/// Options of `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    /// Scripts of Artillery, or manifests with LoadTests and their ConfigMaps. - reads standard input
    #[arg(required_unless_present = "kustomize")]
    pub files: Vec<PathBuf>,

    /// Folder with a kustomization (needs kubectl)
    #[arg(short, long, value_name = "DIR")]
    pub kustomize: Option<PathBuf>,

    /// Environment of the scripts: an entry of config.environments
    #[arg(short, long, value_name = "NAME")]
    pub environment: Option<String>,

    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ValidateOutput,
}

/// Formats of `validate`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValidateOutput {
    /// One line for each problem
    #[default]
    Text,
    /// A list of problems
    Json,
    /// Annotations of GitHub Actions
    Github,
}

/// Formats of objects.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// What to run, and how to follow it.
#[derive(Args, Debug)]
pub struct Run {
    /// LoadTest of the cluster: one that has finished runs again under a new name, and a suspended one starts
    #[arg(required_unless_present_any = ["filename", "kustomize"], conflicts_with_all = ["filename", "kustomize"])]
    pub name: Option<String>,

    /// Manifest with one LoadTest, and what it needs. - reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "kustomize")]
    pub filename: Option<PathBuf>,

    /// Folder with a kustomization (needs kubectl)
    #[arg(short, long, value_name = "DIR")]
    pub kustomize: Option<PathBuf>,

    /// Changes of the spec.
    #[command(flatten)]
    pub overrides: Overrides,

    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

/// Options of `rerun`.
#[derive(Args, Debug)]
pub struct Rerun {
    /// Name of the test
    pub name: String,

    /// Keep only so many finished runs of this test, the newest; older ones are deleted with their Jobs
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,

    /// Changes of the spec.
    #[command(flatten)]
    pub overrides: Overrides,

    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

/// Changes of the spec of a run.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Changes of the spec")]
pub struct Overrides {
    /// Number of workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub count: Option<i32>,

    /// URL to test, instead of the script's config.target
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,

    /// Environment of the script
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,

    /// Variable of the script; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,

    /// Further threshold, such as 'http.response_time.p95 < 200'; can be repeated
    #[arg(long, value_name = "EXPRESSION")]
    pub threshold: Vec<String>,
}

/// How to follow a test.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Following the test")]
pub struct Follow {
    /// Do not follow the test
    #[arg(long, conflicts_with_all = ["timeout", "report"])]
    pub detach: bool,

    /// How long to follow the test, such as 15m. It keeps running after that, and the exit code is 2
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Write a report at the end: .html, .md, .json or .xml (JUnit)
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Print one line every 10 s, also in a terminal
    #[arg(long)]
    pub plain: bool,

    /// Format of the test at the end, or after its creation with --detach. Its course goes to standard error
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// Name of the test
    pub name: String,

    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

/// Options of `logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Name of the test
    pub name: String,

    /// Only this worker, from 0; can be repeated
    #[arg(short, long, value_name = "I")]
    pub worker: Vec<u32>,

    /// Follow the logs
    #[arg(short, long)]
    pub follow: bool,

    /// Only the last lines of each worker
    #[arg(long, value_name = "LINES")]
    pub tail: Option<i64>,
}

/// Options of `stop`.
#[derive(Args, Debug)]
pub struct Stop {
    /// Name of the test
    pub name: String,
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct List {
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `report`.
#[derive(Args, Debug)]
pub struct Report {
    /// Name of the test
    pub name: String,

    /// Format of the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,
}

/// Formats of a report.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportFormat {
    /// One page without further files, with charts
    Html,
    /// For comments of pull requests
    #[default]
    Markdown,
    /// Everything that the report contains
    Json,
    /// One test case for each threshold, for CI systems
    Junit,
}

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// The test to compare with, such as the last release
    pub baseline: String,

    /// The test to compare
    pub name: String,

    /// Exit with 1 if this holds: '`p95 > 1.1x`' (relative to the baseline) or '`errors > 0`'; can be repeated
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<String>,

    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    loadtest_api::duration::parse(text)
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write it as 90s, 15m or 1h30m".to_owned())
}
