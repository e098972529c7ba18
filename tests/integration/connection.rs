//! The connections to the API server, through a relay that counts connections and can fall silent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use artillery_operator::runtime::client::build_client;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::control_plane;

/// Relays connections to the API server as they are, by TLS from end to end.
struct Relay {
    accepted: Arc<AtomicUsize>,
    /// Nothing passes on the connections there are; on later ones it does.
    silent: Arc<AtomicBool>,
    client: Client,
}

impl Relay {
    async fn start(kubeconfig: &Path) -> Self {
        let read = Kubeconfig::read_from(kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .unwrap();
        let server = config.cluster_url.authority().unwrap().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.cluster_url = format!("https://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let (accepted, silent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, is_silent) = (accepted.clone(), silent.clone());
        tokio::spawn(async move {
            loop {
                let (here, there) = (
                    listener.accept().await.unwrap().0,
                    tokio::net::TcpStream::connect(&server).await.unwrap(),
                );
                // Those that come while it is silent are not.
                let falls_silent =
                    (count.fetch_add(1, Ordering::Relaxed) == 0).then(|| is_silent.clone());
                let ((asked, answer), (answered, ask)) = (here.into_split(), there.into_split());
                tokio::spawn(pass(asked, ask, falls_silent.clone()));
                tokio::spawn(pass(answered, answer, falls_silent));
            }
        });
        Self {
            accepted,
            silent,
            client: build_client(&config).unwrap(),
        }
    }

    fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    falls_silent: Option<Arc<AtomicBool>>,
) {
    let mut part = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut part).await {
        if falls_silent
            .as_ref()
            .is_some_and(|s| s.load(Ordering::Relaxed))
        {
            continue;
        }
        if to.write_all(&part[..n]).await.is_err() {
            break;
        }
    }
}

/// Tells a worker that there is none of. Whether the API server has answered.
async fn tell(client: &Client) -> bool {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
    let told = pods
        .patch_metadata("none", &PatchParams::default(), &patch)
        .await;
    matches!(told, Err(kube::Error::Api(status)) if status.code == 404)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tellings_share_one_connection() {
    let relay = Relay::start(control_plane()).await;
    assert!(tell(&relay.client).await);
    assert!(
        join_all((0..1000).map(|_| tell(&relay.client)))
            .await
            .into_iter()
            .all(|answered| answered)
    );
    assert_eq!(relay.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_connection_that_has_died_without_a_word_is_given_up() {
    let relay = Relay::start(control_plane()).await;
    assert!(tell(&relay.client).await);
    relay.silent.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    assert!(!tell(&relay.client).await, "the answer has no way");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "given up after {took:?}");
    assert!(tell(&relay.client).await);
    assert_eq!(relay.connections(), 2);
}
