//! What the operator can be told: flags, each also an environment variable.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::runtime::leader_election::DEFAULT_LEASE_NAME;
use crate::runtime::logging::LogFormat;
use clap::{ArgAction, Parser};
use loadtest_api::v1alpha1::WorkerTemplate;

mod worker_defaults;

/// Runs Artillery load tests: turns `LoadTest` resources into Jobs of Artillery workers and reports back on them.
///
/// Finds the cluster by KUBECONFIG, ~/.kube/config, or, inside a cluster, by its service account.
/// The log's detail is set by `RUST_LOG` (such as `info` or `artillery_operator=debug`).
#[derive(Parser, Clone, Debug)]
#[command(name = "artillery-operator", version, verbatim_doc_comment)]
pub struct Config {
    /// Act only while holding a lease, so that several replicas can run: one works, the others stand by.
    #[arg(long, env = "LEADER_ELECT", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,

    /// The namespace of the lease. Default: that of the operator's own pod, else `default`.
    #[arg(long, env = "LEADER_ELECT_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_elect_namespace: Option<String>,

    /// The name of the lease. Operators that share the work, each with a selector of its own, need one each.
    #[arg(long, env = "LEADER_ELECT_LEASE", value_name = "NAME", default_value = DEFAULT_LEASE_NAME)]
    pub leader_elect_lease: String,

    /// Where Prometheus metrics are served; `0` switches them off.
    #[arg(
        long,
        env = "METRICS_BIND_ADDRESS",
        value_name = "HOST:PORT",
        default_value = ":8080"
    )]
    pub metrics_bind_address: BindAddress,

    /// Serve the metrics by HTTPS, and only to those who may: their token is shown to the API server, which has to let
    /// them `get` the nonResourceURL /metrics.
    #[arg(long, env = "METRICS_SECURE", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set)]
    pub metrics_secure: bool,

    /// The folder of tls.crt and tls.key, which the metrics are served with; they are read again when they change.
    /// Default: a self-signed certificate, made at each start.
    #[arg(long, env = "METRICS_CERT_DIR", value_name = "FOLDER")]
    pub metrics_cert_dir: Option<PathBuf>,

    /// Where the probes /healthz and /readyz are served; `0` switches them off.
    #[arg(
        long,
        env = "HEALTH_PROBE_BIND_ADDRESS",
        value_name = "HOST:PORT",
        default_value = ":8081"
    )]
    pub health_probe_bind_address: BindAddress,

    /// Namespaces to work in, separated by commas. Default: all.
    #[arg(long, env = "NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Take only `LoadTests` whose labels match, such as `shard=a` or `shard notin (a,b)`: several operators can then share the
    /// work. Default: all.
    #[arg(long, env = "LOADTEST_SELECTOR", value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// The form of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// What all workers share.
    #[command(flatten)]
    pub worker: WorkerConfig,
}

/// What all workers share.
#[derive(clap::Args, Clone, Debug, PartialEq)]
pub struct WorkerConfig {
    /// The workers' image. Its entry point is the `artillery` command.
    #[arg(id = "worker-image", long = "worker-image", env = "WORKER_IMAGE", value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,

    /// When the workers' image is pulled: Always, `IfNotPresent` or Never. Default: as Kubernetes does by the image's tag.
    #[arg(id = "worker-image-pull-policy", long = "worker-image-pull-policy", env = "WORKER_IMAGE_PULL_POLICY",
          value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,

    /// The user that workers run as, a number; `none` leaves it to the cluster (`OpenShift` assigns one).
    #[arg(id = "worker-user", long = "worker-user", env = "WORKER_USER", value_name = "UID", default_value = "1000",
          value_parser = parse_user)]
    pub run_as_user: User,

    /// A file with the YAML of `spec.worker` of a `LoadTest`: what it sets holds for all workers, unless a test sets it itself.
    #[arg(
        id = "worker-defaults",
        long = "worker-defaults",
        env = "WORKER_DEFAULTS",
        value_name = "FILE"
    )]
    pub defaults_file: Option<PathBuf>,

    /// What the file says.
    #[arg(skip)]
    pub defaults: WorkerTemplate,
}

impl Config {
    /// The selector of `LoadTests`; an empty variable is none.
    ///
    /// # Errors
    /// Where operators with different selectors would wait for the same lease, of which but one would work.
    pub fn validated_selector(&self) -> Result<Option<String>, String> {
        let selector = self.selector.clone().filter(|s| !s.trim().is_empty());
        if selector.is_some() && self.leader_elect && self.leader_elect_lease == DEFAULT_LEASE_NAME
        {
            return Err("--selector with --leader-elect needs --leader-elect-lease: a lease for each selector".into());
        }
        Ok(selector)
    }
}

impl WorkerConfig {
    /// Reads the file of the workers' defaults, if there is one.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read_defaults(&mut self) -> Result<(), String> {
        let Some(file) = &self.defaults_file else {
            return Ok(());
        };
        let failed = |error: &dyn Display| format!("--worker-defaults {}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
        self.defaults = worker_defaults::parse(&text).map_err(|e| failed(&e))?;
        Ok(())
    }
}

const DEFAULT_IMAGE: &str = "artilleryio/artillery:latest";

/// A numeric user, or none. An alias, since clap gives `Option<T>` in a field a meaning of its own.
pub type User = std::option::Option<i64>;

fn parse_user(text: &str) -> Result<User, String> {
    match text {
        "none" => Ok(None),
        _ => match text.parse() {
            Ok(0) => Err("workers may not run as root (user 0)".into()),
            Ok(uid) => Ok(Some(uid)),
            Err(_) => Err("a user is a number, or `none`".into()),
        },
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            image: DEFAULT_IMAGE.into(),
            image_pull_policy: None,
            run_as_user: Some(1000),
            defaults_file: None,
            defaults: WorkerTemplate::default(),
        }
    }
}

/// Where a server listens: `host:port`, `:port` for all addresses as Go programs write it, or `0` for not at all.
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
    fn without_flags_it_is_as_the_go_manager_was() {
        let config = parse(&[]).unwrap();
        assert!(!config.leader_elect);
        assert!(!config.metrics_secure);
        assert_eq!(config.metrics_bind_address.0.unwrap().port(), 8080);
        assert_eq!(config.health_probe_bind_address.0.unwrap().port(), 8081);
        assert_eq!(config.worker, WorkerConfig::default());
    }

    #[test]
    fn flags_are_written_as_for_the_go_manager() {
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
    fn operators_with_selectors_do_not_share_a_lease() {
        let checked = |args: &[&str]| parse(args).unwrap().validated_selector();
        assert_eq!(checked(&["--leader-elect"]), Ok(None));
        assert_eq!(checked(&["--leader-elect", "--selector="]), Ok(None));
        assert_eq!(checked(&["--selector=shard=a"]), Ok(Some("shard=a".into())));
        assert!(checked(&["--leader-elect", "--selector=shard=a"]).is_err());
        let own = [
            "--leader-elect",
            "--selector=shard=a",
            "--leader-elect-lease=artillery-shard-a",
        ];
        assert_eq!(checked(&own), Ok(Some("shard=a".into())));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        for (arg, why) in [
            ("--metrics-bind-address=x", "host:port"),
            ("--worker-user=0", "root"),
            ("--worker-user=me", "number"),
        ] {
            assert!(
                parse(&[arg]).unwrap_err().to_string().contains(why),
                "{arg}"
            );
        }
    }
}
