//! A proxy between an operator and the API server, which can hold requests back and send them on later, also when the
//! one who sent them has gone.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A proxy on the loopback.
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    holding: bool,
    /// Requests that were held back so far, and those of them that have been answered since.
    held: usize,
    answered: usize,
}

impl Proxy {
    /// A proxy that holds back the requests of which `hold` says so, from now until [`Proxy::release`].
    pub async fn start(
        client: Client,
        hold: impl Fn(&Method, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(State {
            holding: true,
            ..State::default()
        });
        let (hold, shared) = (Arc::new(hold), state.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, hold, state) = (client.clone(), hold.clone(), shared.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (client, hold, state) = (client.clone(), hold.clone(), state.clone());
                    async move {
                        // A task of its own: a request that was held back is sent on even when its sender has gone.
                        let sent = tokio::spawn(forward(client, request, hold, state))
                            .await
                            .unwrap();
                        Ok::<_, Infallible>(sent)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            port,
            state,
            server,
        }
    }

    /// Waits until a request is held back.
    pub async fn until_held(&self) {
        self.state
            .subscribe()
            .wait_for(|s| s.held > 0)
            .await
            .unwrap();
    }

    /// Sends on what was held back, and waits for the answers.
    pub async fn release(&self) {
        self.state.send_modify(|s| s.holding = false);
        self.state
            .subscribe()
            .wait_for(|s| s.answered == s.held)
            .await
            .unwrap();
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = std::env::temp_dir().join(format!(
            "proxy-{}-{}.kubeconfig",
            std::process::id(),
            self.port
        ));
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: p, contexts: [{{name: p, context: {{cluster: p, user: p}}}}],\n\
             users: [{{name: p, user: {{}}}}], clusters: [{{name: p, cluster: {{server: 'http://127.0.0.1:{}'}}}}]}}",
            self.port
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        let path = std::env::temp_dir().join(format!(
            "proxy-{}-{}.kubeconfig",
            std::process::id(),
            self.port
        ));
        let _ = std::fs::remove_file(Path::new(&path));
    }
}

async fn forward(
    client: Client,
    request: Request<Incoming>,
    hold: Arc<impl Fn(&Method, &str) -> bool>,
    state: watch::Sender<State>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let waits = state.borrow().holding && hold(&parts.method, parts.uri.path());
    if waits {
        state.send_modify(|s| s.held += 1);
        state.subscribe().wait_for(|s| !s.holding).await.unwrap();
    }
    // The client adds the address and the credentials of its own.
    parts.headers.remove("host");
    parts.headers.remove("connection");
    parts.version = http::Version::HTTP_11;
    let answer = client
        .send(Request::from_parts(parts, Body::from(body.to_vec())))
        .await;
    if waits {
        state.send_modify(|s| s.answered += 1);
    }
    answer.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(error.to_string().into_bytes()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}
