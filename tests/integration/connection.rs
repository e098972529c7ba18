//! The connections to the API server, through a relay that counts connections and can stop relaying.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use artillery_operator::runtime::client::build_client;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::cluster::client_config;
use crate::support::control_plane;
use crate::support::proxy::listen;

/// Relays connections to the API server unchanged, with TLS from end to end: HTTP/2 is negotiated within TLS.
struct Relay {
    accepted: Arc<AtomicUsize>,
    /// The first connection relays nothing any more; later ones do.
    is_silent: Arc<AtomicBool>,
    client: Client,
}

impl Relay {
    async fn start(kubeconfig: &Path) -> Self {
        let mut config = client_config(kubeconfig).await;
        let server = config.cluster_url.authority().unwrap().to_string();
        let (accepted, is_silent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, silent) = (accepted.clone(), is_silent.clone());
        let (address, _) = listen(move |client_side| {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let (server, silent) = (server.clone(), is_first.then(|| silent.clone()));
            tokio::spawn(async move {
                let server_side = TcpStream::connect(&server).await.unwrap();
                let (requests, responses) = client_side.into_split();
                let (server_responses, server_requests) = server_side.into_split();
                tokio::spawn(relay(requests, server_requests, silent.clone()));
                relay(server_responses, responses, silent).await;
            });
        })
        .await;
        config.cluster_url = format!("https://{address}").parse().unwrap();
        Self {
            accepted,
            is_silent,
            client: build_client(&config).unwrap(),
        }
    }

    fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, silent: Option<Arc<AtomicBool>>) {
    let mut part = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut part).await {
        if silent.as_ref().is_some_and(|s| s.load(Ordering::Relaxed)) {
            continue;
        }
        if to.write_all(&part[..n]).await.is_err() {
            break;
        }
    }
}

/// Patches a pod that does not exist. Returns whether the API server has answered.
async fn patch_pod(client: &Client) -> bool {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
    let result = pods
        .patch_metadata("none", &PatchParams::default(), &patch)
        .await;
    matches!(result, Err(kube::Error::Api(status)) if status.code == 404)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pod_patches_share_one_connection() {
    let relay = Relay::start(control_plane()).await;
    assert!(patch_pod(&relay.client).await);
    assert!(
        join_all((0..1000).map(|_| patch_pod(&relay.client)))
            .await
            .into_iter()
            .all(|answered| answered)
    );
    assert_eq!(relay.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_shared_connection_is_replaced() {
    let relay = Relay::start(control_plane()).await;
    assert!(patch_pod(&relay.client).await);
    relay.is_silent.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    assert!(!patch_pod(&relay.client).await, "no response can arrive");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "replaced after {took:?}");
    assert!(patch_pod(&relay.client).await);
    assert_eq!(relay.connections(), 2);
}
