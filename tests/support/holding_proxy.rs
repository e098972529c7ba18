//! A proxy that holds requests back, and forwards them later.

use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use kube::Client;
use tokio::sync::watch;

use super::proxy::{Proxy, forward};

/// A proxy that holds requests back.
pub struct HoldingProxy {
    proxy: Proxy,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    released: bool,
    /// How many requests were held back so far, and how many of these have been answered since.
    held: usize,
    answered: usize,
}

impl HoldingProxy {
    /// Starts a proxy that holds back the requests for which `hold` is true, until [`HoldingProxy::release`].
    pub async fn start(
        client: Client,
        hold: impl Fn(&Method, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let state = watch::Sender::new(State::default());
        let (hold, shared) = (Arc::new(hold), state.clone());
        let proxy = Proxy::start(move |request| {
            let (client, hold, state) = (client.clone(), hold.clone(), shared.clone());
            async move {
                let is_held =
                    !state.borrow().released && hold(request.method(), request.uri().path());
                if is_held {
                    state.send_modify(|s| s.held += 1);
                    state.subscribe().wait_for(|s| s.released).await.unwrap();
                }
                let answer = forward(&client, request).await;
                if is_held {
                    state.send_modify(|s| s.answered += 1);
                }
                answer
            }
        })
        .await;
        Self { proxy, state }
    }

    /// Waits until a request is held back.
    pub async fn until_held(&self) {
        self.until_held_times(1).await;
    }

    /// Waits until this many requests have been held back.
    pub async fn until_held_times(&self, count: usize) {
        self.state
            .subscribe()
            .wait_for(|s| s.held >= count)
            .await
            .unwrap();
    }

    /// How many requests have been held back.
    pub fn held(&self) -> usize {
        self.state.borrow().held
    }

    /// Forwards the requests that were held back, and waits for their responses.
    pub async fn release(&self) {
        self.state.send_modify(|s| s.released = true);
        self.state
            .subscribe()
            .wait_for(|s| s.answered == s.held)
            .await
            .unwrap();
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.proxy.kubeconfig()
    }
}
