//! The `ConfigMap` of the worker files, which somebody else may have created.

use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;

use crate::build;
use crate::context::Context;
use crate::error::Error;
use crate::runtime::api_error::with_timeout;
use crate::state::WorkerFiles;

/// Reads the `ConfigMap` of a namespace and compares it with the files of this version. Verified files are remembered for a while.
///
/// # Errors
/// The read that failed.
pub(crate) async fn read_worker_files(
    ctx: &Context,
    namespace: &str,
) -> Result<WorkerFiles, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    let found = with_timeout(api.get_opt(&build::config_map_name()))
        .await
        .map_err(Error::new("read the worker files (a ConfigMap)"))?;
    Ok(match found {
        None => WorkerFiles::Unknown,
        Some(found) if build::is_verified(&found) => {
            ctx.worker_files
                .insert(namespace.to_owned(), (), Instant::now());
            WorkerFiles::Verified
        }
        Some(_) => WorkerFiles::Foreign,
    })
}
