//! The operator's configuration: flags, each of which can also be set by an environment variable.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::runtime::leader_election::DEFAULT_LEASE_NAME;
use crate::runtime::logging::LogFormat;
use clap::{ArgAction, Parser};
use loadtest_api::v1alpha1::{LoadTestSpec, WorkerTemplate};

mod worker_defaults;

/// Runs Artillery load tests: creates a Job of Artillery workers for each `LoadTest` and reports its progress and
/// results.
///
/// Connects with KUBECONFIG, ~/.kube/config, or, inside a cluster, the service account.
/// `RUST_LOG` sets the log level (for example `info` or `artillery_operator=debug`).
#[derive(Parser, Clone, Debug)]
#[command(name = "artillery-operator", version, verbatim_doc_comment)]
pub struct Config {
    /// Enable leader election: of several replicas, only the holder of the lease is active.
    #[arg(long, env = "LEADER_ELECT", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the lease. Default: the namespace of the operator's pod, or `default` outside a cluster.
    #[arg(long, env = "LEADER_ELECT_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_elect_namespace: Option<String>,

    /// Name of the lease. Operators with different selectors need different leases.
    #[arg(long, env = "LEADER_ELECT_LEASE", value_name = "NAME", default_value = DEFAULT_LEASE_NAME)]
    pub leader_elect_lease: String,

    /// Address of the Prometheus metrics. `0` disables them.
    #[arg(
        long,
        env = "METRICS_BIND_ADDRESS",
        value_name = "HOST:PORT",
        default_value = ":8080"
    )]
    pub metrics_bind_address: BindAddress,

    /// Serve metrics over HTTPS and require authorization: clients send a bearer token and need permission to `get` the
    /// nonResourceURL /metrics.
    #[arg(long, env = "METRICS_SECURE", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set)]
    pub metrics_secure: bool,

    /// Directory with tls.crt and tls.key for the metrics. The files are reloaded when they change. Default: a
    /// self-signed certificate, generated at each start.
    #[arg(long, env = "METRICS_CERT_DIR", value_name = "DIRECTORY")]
    pub metrics_cert_dir: Option<PathBuf>,

    /// Address of the probes /healthz and /readyz. `0` disables them.
    #[arg(
        long,
        env = "HEALTH_PROBE_BIND_ADDRESS",
        value_name = "HOST:PORT",
        default_value = ":8081"
    )]
    pub health_probe_bind_address: BindAddress,

    /// Namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Label selector of the LoadTests to reconcile, for example `shard=a` or `shard notin (a,b)`. Several operators
    /// can share the work with different selectors. Default: all.
    #[arg(long, env = "LOADTEST_SELECTOR", value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Directory that survives a restart of the process. It has a small file with the LoadTests that are being reconciled, so that
    /// one that ends the process is set aside. Default: none, and nothing is recorded.
    #[arg(long, env = "STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,

    /// Format of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// The configuration of the workers.
    #[command(flatten)]
    pub worker: WorkerConfig,
}

/// The configuration of the workers.
#[derive(clap::Args, Clone, Debug, PartialEq)]
pub struct WorkerConfig {
    /// Image of the workers. Its entry point must be the `artillery` command.
    #[arg(id = "worker-image", long = "worker-image", env = "WORKER_IMAGE", value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,

    /// Pull policy of the image: Always, `IfNotPresent` or Never. Default: Always for the tag latest, otherwise
    /// `IfNotPresent`.
    #[arg(id = "worker-image-pull-policy", long = "worker-image-pull-policy", env = "WORKER_IMAGE_PULL_POLICY",
          value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,

    /// Numeric user ID of the workers. `none` leaves the choice to the cluster (`OpenShift` assigns one).
    #[arg(id = "worker-user", long = "worker-user", env = "WORKER_USER", value_name = "UID", default_value = "1000",
          value_parser = parse_user)]
    pub run_as_user: User,

    /// Let workers serve their results while they run, and show them in the status. Without it, results follow at the end of a test.
    #[arg(id = "live-results", long = "live-results", env = "LIVE_RESULTS", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub live_results: bool,

    /// YAML file with defaults for `spec.worker` of all `LoadTests`. Fields that a `LoadTest` sets take precedence.
    #[arg(
        id = "worker-defaults",
        long = "worker-defaults",
        env = "WORKER_DEFAULTS",
        value_name = "FILE"
    )]
    pub defaults_file: Option<PathBuf>,

    /// The content of the file.
    #[arg(skip)]
    pub defaults: WorkerTemplate,
}

impl Config {
    /// Returns the label selector of `LoadTests`. An empty variable counts as unset.
    ///
    /// # Errors
    /// Fails if a selector is combined with the default lease. Operators with different selectors would then wait for
    /// one lease, and only one of them would be active.
    pub fn validated_selector(&self) -> Result<Option<String>, String> {
        let selector = self.selector.clone().filter(|s| !s.trim().is_empty());
        if selector.is_some() && self.leader_elect && self.leader_elect_lease == DEFAULT_LEASE_NAME
        {
            return Err("--selector with --leader-elect requires --leader-elect-lease: use one lease per selector".into());
        }
        Ok(selector)
    }
}

impl WorkerConfig {
    /// Reads the file of `--worker-defaults`, if it is set.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is invalid.
    pub fn read_defaults(&mut self) -> Result<(), String> {
        let Some(file) = &self.defaults_file else {
            return Ok(());
        };
        let describe =
            |error: &dyn Display| format!("--worker-defaults {}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| describe(&e))?;
        self.defaults = worker_defaults::parse(&text).map_err(|e| describe(&e))?;
        Ok(())
    }
}

const DEFAULT_IMAGE: &str = "artilleryio/artillery:latest";

/// A numeric user ID, or none. It is an alias because clap interprets a field of type `Option<T>` as an optional flag.
pub(crate) type User = std::option::Option<i64>;

fn parse_user(text: &str) -> Result<User, String> {
    match text {
        "none" => Ok(None),
        _ => match text.parse() {
            Ok(0) => Err("workers must not run as root (user 0)".into()),
            Ok(uid) => Ok(Some(uid)),
            Err(_) => Err("must be a number or `none`".into()),
        },
    }
}

impl WorkerConfig {
    /// Whether the workers of a test serve live results.
    #[must_use]
    pub(crate) fn has_live_results(&self, spec: &LoadTestSpec) -> bool {
        self.live_results && spec.live_results
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            live_results: true,
            image: DEFAULT_IMAGE.into(),
            image_pull_policy: None,
            run_as_user: Some(1000),
            defaults_file: None,
            defaults: WorkerTemplate::default(),
        }
    }
}

/// The address of a server: `host:port`, `:port` for all addresses (Go syntax), or `0` for disabled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BindAddress(pub Option<SocketAddr>);

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match text {
            "0" => return Ok(Self(None)),
            _ if text.starts_with(':') => format!("[::]{text}"),
            _ => text.replacen("localhost:", "127.0.0.1:", 1),
        };
        address
            .parse()
            .map(|a| Self(Some(a)))
            .map_err(|_| format!("{text:?} is not host:port, :port or 0"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["artillery-operator"], args].concat())
    }

    #[test]
    fn defaults_match_the_go_manager() {
        let config = parse(&[]).unwrap();
        assert!(!config.leader_elect);
        assert!(!config.metrics_secure);
        assert_eq!(config.metrics_bind_address.0.unwrap().port(), 8080);
        assert_eq!(config.health_probe_bind_address.0.unwrap().port(), 8081);
        assert_eq!(config.worker, WorkerConfig::default());
    }

    #[test]
    fn flags_accept_the_syntax_of_the_go_manager() {
        assert!(parse(&["--leader-elect"]).unwrap().leader_elect);
        assert!(!parse(&["--leader-elect=false"]).unwrap().leader_elect);
        assert!(parse(&["--metrics-secure"]).unwrap().metrics_secure);
        assert_eq!(
            parse(&["--metrics-bind-address=0"])
                .unwrap()
                .metrics_bind_address,
            BindAddress(None)
        );
        assert_eq!(
            parse(&["--metrics-bind-address", "127.0.0.1:9"])
                .unwrap()
                .metrics_bind_address
                .0
                .unwrap()
                .port(),
            9
        );
        assert_eq!(parse(&["--namespaces=a,b"]).unwrap().namespaces, ["a", "b"]);
        assert_eq!(
            parse(&["--worker-user=none"]).unwrap().worker.run_as_user,
            None
        );
    }

    #[test]
    fn selector_with_leader_election_requires_its_own_lease() {
        let selector = |args: &[&str]| parse(args).unwrap().validated_selector();
        assert_eq!(selector(&["--leader-elect"]), Ok(None));
        assert_eq!(selector(&["--leader-elect", "--selector="]), Ok(None));
        assert_eq!(
            selector(&["--selector=shard=a"]),
            Ok(Some("shard=a".into()))
        );
        assert!(selector(&["--leader-elect", "--selector=shard=a"]).is_err());
        let own = [
            "--leader-elect",
            "--selector=shard=a",
            "--leader-elect-lease=artillery-shard-a",
        ];
        assert_eq!(selector(&own), Ok(Some("shard=a".into())));
    }

    #[test]
    fn invalid_values_are_rejected_with_a_reason() {
        for (arg, reason) in [
            ("--metrics-bind-address=x", "host:port"),
            ("--worker-user=0", "root"),
            ("--worker-user=me", "number"),
        ] {
            assert!(
                parse(&[arg]).unwrap_err().to_string().contains(reason),
                "{arg}"
            );
        }
    }
}
