//! The connection to the cluster, with the rights of the user.

use std::time::Duration;

use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use loadtest_api::v1alpha1::LoadTest;

use crate::cli::Connection;
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client and a namespace.
#[derive(Clone)]
pub struct Session {
    /// The client.
    pub client: Client,
    /// The namespace of the commands.
    pub namespace: String,
    /// Whether the user named it.
    pub is_namespace_given: bool,
}

impl Session {
    /// Connects as kubectl does: the kubeconfig, or inside a pod its service account.
    ///
    /// # Errors
    /// The kubeconfig or the context does not exist, or is wrong.
    pub async fn connect(connection: &Connection) -> Result<Self> {
        let options = KubeConfigOptions {
            context: connection.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = if let Some(path) = &connection.kubeconfig {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| no_config(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| no_config(&error))
        } else if connection.context.is_some() {
            Config::from_kubeconfig(&options)
                .await
                .map_err(|error| no_config(&error))
        } else {
            Config::infer().await.map_err(|error| no_config(&error))
        };
        let mut config = config?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = connection
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| no_config(&error))?;
        Ok(Self {
            client,
            namespace,
            is_namespace_given: connection.namespace.is_some(),
        })
    }

    /// The tests of the namespace.
    #[must_use]
    pub fn tests(&self) -> Api<LoadTest> {
        self.api()
    }

    /// Objects of the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reads a test.
    ///
    /// # Errors
    /// The test does not exist, or cannot be read.
    pub async fn test(&self, name: &str) -> Result<LoadTest> {
        let action = format!("read LoadTest {}/{name}", self.namespace);
        let test = self.tests().get(name).await;
        test.map_err(|error| self.error(&action, &error))
    }

    /// The error of a request of this session.
    #[must_use]
    pub fn error(&self, action: &str, error: &kube::Error) -> Error {
        Error::request(action, &self.namespace, error)
    }
}

fn no_config(error: &dyn std::error::Error) -> Error {
    Error::new(format!("Cannot find a cluster: {error}"))
        .advice("Set KUBECONFIG or --kubeconfig, or list the contexts: kubectl config get-contexts")
}
