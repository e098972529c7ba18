//! `init`: a folder with a script, a LoadTest and a kustomization that run as they are.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;

use crate::cli::{Connection, Init};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::session::Session;

const SCRIPT: &str = include_str!("init/test-script.yaml");
const LOAD_TEST: &str = include_str!("init/loadtest.yaml");
const KUSTOMIZATION: &str = include_str!("init/kustomization.yaml");

/// The target of a script that knows none: a person has to replace it.
const NO_TARGET: &str = "http://my-service";

/// Creates the folder.
///
/// # Errors
/// The folder contains one of the files already, its name is not one for a test, or the service cannot be read.
pub async fn run(connection: &Connection, args: &Init) -> Result<Outcome> {
    let name = test_name(&args.dir)?;
    let (target, path) = match (&args.service, &args.target) {
        (Some(service), _) => of_service(connection, service).await?,
        (None, Some(target)) => (target.clone(), "/".to_owned()),
        (None, None) => (NO_TARGET.to_owned(), "/".to_owned()),
    };
    let files = [
        (
            "test-script.yaml",
            SCRIPT
                .replace("__PATH__", &quoted(&path))
                .replace("__TARGET__", &quoted(&target)),
        ),
        ("loadtest.yaml", LOAD_TEST.replace("__NAME__", &name)),
        (
            "kustomization.yaml",
            KUSTOMIZATION.replace("__NAME__", &name),
        ),
    ];
    let dir = args.dir.display();
    for (file, _) in &files {
        if args.dir.join(file).exists() {
            return Err(
                Error::new(format!("{dir}/{file} exists already; nothing was written."))
                    .advice("Choose another folder."),
            );
        }
    }
    let written = std::fs::create_dir_all(&args.dir).and_then(|()| {
        files
            .iter()
            .try_for_each(|(file, text)| std::fs::write(args.dir.join(file), text))
    });
    written.map_err(|error| Error::new(format!("Cannot write to {dir}: {error}")))?;
    println!(
        "{dir}/test-script.yaml    the script: 2 virtual users per second for 30 s to {target}{path}"
    );
    println!("{dir}/loadtest.yaml       the LoadTest {name}: 2 workers, with a threshold");
    println!("{dir}/kustomization.yaml  both together");
    if target == NO_TARGET {
        println!("\nSet config.target in {dir}/test-script.yaml to the service to test.");
    }
    println!("\nRun it: kubectl artillery run -k {dir}");
    Ok(Outcome::Passed)
}

/// A text as a scalar of YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// The name of the test: that of the folder.
fn test_name(dir: &Path) -> Result<String> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = absolute
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() || name.len() > 50 {
        return Err(
            Error::new(format!("{} gives no name for a test.", dir.display()))
                .advice("Use a folder whose name has 1 to 50 letters and digits."),
        );
    }
    Ok(name)
}

/// The URL of a service, and the path that the readiness or liveness probe of its pods requests.
async fn of_service(connection: &Connection, name: &str) -> Result<(String, String)> {
    let session = Session::connect(connection).await?;
    let namespace = &session.namespace;
    let action = format!("read Service {namespace}/{name}");
    let service = session.api::<Service>().get(name).await;
    let service = service.map_err(|error| session.error(&action, &error))?;
    let spec = service.spec.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let is_http = |port: &&k8s_openapi::api::core::v1::ServicePort| {
        let name = port.name.as_deref().unwrap_or_default();
        name.starts_with("http")
            || port
                .app_protocol
                .as_deref()
                .is_some_and(|one| one.starts_with("http"))
    };
    let Some(port) = ports.iter().find(is_http).or(ports.first()) else {
        return Err(
            Error::new(format!("Service {namespace}/{name} has no ports."))
                .advice("Use --target URL instead of --service."),
        );
    };
    let is_tls = port.port == 443
        || port.name.as_deref() == Some("https")
        || port.app_protocol.as_deref() == Some("https");
    let scheme = if is_tls { "https" } else { "http" };
    let number = match (scheme, port.port) {
        ("http", 80) | ("https", 443) => String::new(),
        (_, number) => format!(":{number}"),
    };
    let selector: Vec<_> = spec
        .selector
        .unwrap_or_default()
        .into_iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mut path = "/".to_owned();
    if !selector.is_empty() {
        let params = ListParams::default().labels(&selector.join(",")).limit(1);
        // The path is only a better start: without a permission for pods it is /.
        if let Ok(pods) = session.api::<Pod>().list(&params).await {
            let found = pods
                .items
                .first()
                .and_then(|pod| probe_path(pod, port.target_port.as_ref()));
            path = found.unwrap_or(path);
        }
    }
    Ok((format!("{scheme}://{name}.{namespace}{number}"), path))
}

/// The path that a probe requests, of the container with the port of the service, or else of any container.
fn probe_path(pod: &Pod, port: Option<&IntOrString>) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    let has_port = |container: &&k8s_openapi::api::core::v1::Container| {
        container.ports.iter().flatten().any(|one| match port {
            Some(IntOrString::Int(number)) => one.container_port == *number,
            Some(IntOrString::String(name)) => one.name.as_ref() == Some(name),
            None => false,
        })
    };
    let container = containers.iter().find(has_port).or(containers.first())?;
    let probes = [&container.readiness_probe, &container.liveness_probe];
    let path = probes
        .into_iter()
        .flatten()
        .find_map(|probe| probe.http_get.as_ref()?.path.clone());
    path.filter(|path| path.starts_with('/'))
}
