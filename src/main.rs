//! The operator's entry point: starts logging, servers, leader election and controllers.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use artillery_operator::config::Config;
use artillery_operator::controller::{self, CrashRecord};
use artillery_operator::runtime::client::build_client;
use artillery_operator::runtime::health::Health;
use artillery_operator::runtime::http::{self, MetricsAuth};
use artillery_operator::runtime::leader_election::{LeaderElector, LeaseLoss};
use artillery_operator::runtime::list_pages::with_bounded_pages;
use artillery_operator::runtime::metrics::Metrics;
use artillery_operator::runtime::metrics_auth::Authorizer;
use artillery_operator::runtime::tls::Tls;
use artillery_operator::runtime::{logging, request_metrics};
use artillery_operator::watch::crd::watch_crd;
use artillery_operator::watch::watches::{Telemetry, WatchScope};
use clap::Parser;
use futures::future::{self, FutureExt};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut config = Config::parse();
    logging::init(config.log_format);
    if let Err(error) = config.worker.read_defaults() {
        tracing::error!(error, "exiting");
        return ExitCode::FAILURE;
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "exiting");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let selector = config.validated_selector()?;
    let kube_config = kube::Config::infer().await?;
    let namespace = config
        .leader_elect_namespace
        .clone()
        .unwrap_or_else(|| kube_config.default_namespace.clone());
    let server_url = kube_config.cluster_url.clone();
    let metrics = Arc::new(Metrics::default());
    let client = request_metrics::with_metrics(build_client(&kube_config)?, metrics.clone());
    let client = with_bounded_pages(client);

    let state_dir = config.state_dir.as_deref();
    let crashes = Arc::new(state_dir.map(CrashRecord::open).unwrap_or_default());
    let health = Arc::new(Health::default());
    if let Some(address) = config.health_probe_bind_address.0 {
        let listener = http::listen(address)
            .await
            .map_err(|e| format!("cannot serve probes on {address}: {e}"))?;
        tracing::info!(address = %listener.local_addr()?, "serving probes");
        tokio::spawn(http::serve_probes(listener, health.clone()));
    }
    if let Some(address) = config.metrics_bind_address.0 {
        let listener = http::listen(address)
            .await
            .map_err(|e| format!("cannot serve metrics on {address}: {e}"))?;
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tokio::spawn(http::serve_metrics(
            listener,
            metrics.clone(),
            metrics_auth(&config, &client)?,
        ));
    }
    let version = client
        .apiserver_version()
        .await
        .map_err(|e| format!("cannot reach the API server at {server_url}: {e}"))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        kubernetes = version.git_version,
        "starting artillery-operator"
    );
    let missing_fields = watch_crd(client.clone(), metrics.clone()).await;
    health.set_ready();

    let (stop, mut stopped) = watch::channel(());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signals = Box::pin(async move {
        future::select(Box::pin(terminate.recv()), Box::pin(interrupt.recv())).await;
    });

    let mut elector = config.leader_elect.then(|| {
        LeaderElector::new(
            client.clone(),
            &namespace,
            &config.leader_elect_lease,
            holder_identity(),
        )
    });
    if let Some(elector) = &mut elector {
        tokio::select! {
            () = elector.acquire() => tracing::info!(namespace, "acquired leader lease"),
            () = &mut signals => return Ok(()),
        }
    }
    let client = elector
        .as_ref()
        .map_or(client.clone(), |elector| elector.fence().guard(client));
    metrics.set_leader(true);
    let telemetry = Telemetry { metrics, health };

    // An empty environment variable parses as one empty name.
    let mut scopes: Vec<_> = config
        .namespaces
        .iter()
        .filter(|n| !n.is_empty())
        .cloned()
        .map(Some)
        .collect();
    if scopes.is_empty() {
        scopes.push(None);
    }
    let mut controllers = future::join_all(scopes.into_iter().map(|scope| {
        let mut stopped = stopped.clone();
        let shutdown = async move {
            let _ = stopped.changed().await;
        };
        let scope = WatchScope {
            namespace: scope,
            selector: selector.clone(),
        };
        controller::run(
            client.clone(),
            scope,
            config.worker.clone(),
            telemetry.clone(),
            missing_fields.clone(),
            crashes.clone(),
            shutdown,
        )
    }))
    .boxed();
    stopped.mark_unchanged();

    tokio::select! {
        _ = &mut controllers => return Err("a controller ended unexpectedly".into()),
        loss = lease_lost(elector.as_mut()) => {
            if loss == LeaseLoss::NotRenewed {
                crashes.close();
            }
            return Err("leader lease lost".into());
        }
        () = &mut signals => tracing::info!("shutting down, waiting for reconciles in flight"),
    }
    crashes.close();
    drop(stop);
    controllers.await;
    if let Some(elector) = &mut elector {
        elector.release().await;
    }
    Ok(())
}

/// Returns the access control of the metrics, if `--metrics-secure` is set.
fn metrics_auth(config: &Config, client: &Client) -> Result<Option<MetricsAuth>, Box<dyn Error>> {
    let tls = match (config.metrics_secure, config.metrics_cert_dir.clone()) {
        (false, None) => return Ok(None),
        (false, Some(_)) => return Err("--metrics-cert-dir requires --metrics-secure".into()),
        (true, None) => Tls::self_signed()?,
        (true, Some(folder)) => Tls::from_folder(folder)?,
    };
    Ok(Some(MetricsAuth {
        tls,
        authorizer: Authorizer::new(client.clone()),
    }))
}

/// Returns when the lease is lost, and why. Without leader election, it never returns.
async fn lease_lost(elector: Option<&mut LeaderElector>) -> LeaseLoss {
    match elector {
        Some(elector) => elector.renew_until_lost().await,
        None => future::pending().await,
    }
}

/// Returns an identity that no other process ever has: host name (a pod's name), process ID and start time.
fn holder_identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "artillery-operator".into());
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{host}_{}_{}", std::process::id(), started.as_nanos())
}
