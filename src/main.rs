//! The operator's program: flags, log, servers, leader election, and the controller.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use artillery_operator::authorize::Authorizer;
use artillery_operator::connection::connect;
use artillery_operator::controller::{self, Reports, Scope};
use artillery_operator::lease::Candidate;
use artillery_operator::metrics::Metrics;
use artillery_operator::requests;
use artillery_operator::server::{self, Guard, Health};
use artillery_operator::settings::Settings;
use artillery_operator::telemetry;
use artillery_operator::tls::Tls;
use clap::Parser;
use futures::future::{self, FutureExt};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut settings = Settings::parse();
    telemetry::init(settings.log_format);
    if let Err(error) = settings.worker.read_defaults() {
        tracing::error!(error, "the operator ends");
        return ExitCode::FAILURE;
    }
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    let selector = settings.checked_selector()?;
    let config = Config::infer().await?;
    let namespace = settings
        .leader_elect_namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let server_url = config.cluster_url.clone();
    let metrics = Arc::new(Metrics::default());
    let client = requests::counted(connect(&config)?, metrics.clone());

    let health = Arc::new(Health::default());
    if let Some(address) = settings.health_probe_bind_address.0 {
        let listener = server::listen(address)
            .await
            .map_err(|e| format!("cannot serve probes on {address}: {e}"))?;
        tracing::info!(address = %listener.local_addr()?, "probes are served");
        tokio::spawn(server::serve_probes(listener, health.clone()));
    }
    if let Some(address) = settings.metrics_bind_address.0 {
        let listener = server::listen(address)
            .await
            .map_err(|e| format!("cannot serve metrics on {address}: {e}"))?;
        tracing::info!(address = %listener.local_addr()?, "metrics are served");
        tokio::spawn(server::serve_metrics(
            listener,
            metrics.clone(),
            guard(&settings, &client)?,
        ));
    }
    let version = client
        .apiserver_version()
        .await
        .map_err(|e| format!("cannot reach the API server at {server_url}: {e}"))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        kubernetes = version.git_version,
        "artillery-operator starts"
    );
    health.set_ready();

    let (stop, mut stopped) = watch::channel(());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signals = Box::pin(async move {
        future::select(Box::pin(terminate.recv()), Box::pin(interrupt.recv())).await;
    });

    let mut candidate = settings.leader_elect.then(|| {
        Candidate::new(
            client.clone(),
            &namespace,
            &settings.leader_elect_lease,
            identity(),
        )
    });
    if let Some(candidate) = &mut candidate {
        tokio::select! {
            () = candidate.acquire() => tracing::info!(namespace, "this replica has the lease"),
            () = &mut signals => return Ok(()),
        }
    }
    let client = candidate
        .as_ref()
        .map_or(client.clone(), |candidate| candidate.fence().guard(client));
    metrics.leads(true);
    let reports = Reports { metrics, health };

    // An empty variable names no namespace.
    let mut scopes: Vec<_> = settings
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
        let scope = Scope {
            namespace: scope,
            selector: selector.clone(),
        };
        controller::run(
            client.clone(),
            scope,
            settings.worker.clone(),
            reports.clone(),
            shutdown,
        )
    }))
    .boxed();
    stopped.mark_unchanged();

    tokio::select! {
        _ = &mut controllers => return Err("a controller has ended by itself".into()),
        () = lost(candidate.as_mut()) => return Err("the lease is lost".into()),
        () = &mut signals => tracing::info!("asked to end: finishing what is under way"),
    }
    drop(stop);
    controllers.await;
    if let Some(candidate) = &mut candidate {
        candidate.release().await;
    }
    Ok(())
}

/// What keeps the metrics from those who may not read them, if that is asked for.
fn guard(settings: &Settings, client: &Client) -> Result<Option<Guard>, Box<dyn Error>> {
    let tls = match (settings.metrics_secure, settings.metrics_cert_dir.clone()) {
        (false, None) => return Ok(None),
        (false, Some(_)) => return Err("--metrics-cert-dir needs --metrics-secure".into()),
        (true, None) => Tls::self_signed()?,
        (true, Some(folder)) => Tls::from_folder(folder)?,
    };
    Ok(Some(Guard {
        tls,
        authorizer: Authorizer::new(client.clone()),
    }))
}

/// Done when the lease is lost; never without leader election.
async fn lost(candidate: Option<&mut Candidate>) {
    match candidate {
        Some(candidate) => candidate.hold().await,
        None => future::pending().await,
    }
}

/// A name unlike that of any other process: the host's (a pod's own name), and the time and process it began with.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "artillery-operator".into());
    let began = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{host}_{}_{}", std::process::id(), began.as_nanos())
}
