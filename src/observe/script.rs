//! The script of a test and the files beside it, as far as `ConfigMap`s hold them.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::Api;
use loadtest_api::v1alpha1::{LoadTest, TEST_SCRIPT_KEY};
use loadtest_script::{Analysis, FilesHash, analyze};

use crate::context::{CachedConfigMap, Context, ScriptKey};
use crate::error::Error;
use crate::runtime::api_error::with_timeout;
use crate::state::{ConfigMapFiles, ScriptState};

/// Bounds the memory of a test with many `ConfigMap`s of 1 MiB of keys. Duplicate names among further keys are not found.
const MAX_KEYS: usize = 2000;

/// Reads the `ConfigMap`s of a test, and analyzes its script.
pub(super) async fn read_script(ctx: &Context, test: &LoadTest) -> Result<ScriptState, Error> {
    let spec = &test.spec.test_script;
    let environment = test.spec.environment.as_deref();
    let mut analysis = match &spec.inline {
        Some(inline) => Arc::new(analyze(inline, TEST_SCRIPT_KEY, environment)),
        None => Arc::new(Analysis::default()),
    };
    let (mut config_maps, mut files_hash) = (Vec::new(), FilesHash::default());
    if let Some(inline) = &spec.inline {
        files_hash.add(TEST_SCRIPT_KEY, inline.as_bytes());
    }
    for name in spec.config_maps() {
        let is_script = spec.config_map() == Some(name);
        let script = is_script.then(|| (spec.file().to_owned(), environment.map(str::to_owned)));
        let Some(config_map) = read_config_map(ctx, test, name, script).await? else {
            return Ok(ScriptState::ConfigMapMissing {
                name: name.to_owned(),
                similar: None,
            });
        };
        if is_script {
            analysis = config_map.analysis.clone();
        }
        files_hash.merge(config_map.hash);
        config_maps.push(ConfigMapFiles {
            name: name.to_owned(),
            keys: config_map.keys.clone(),
        });
    }
    Ok(ScriptState::Read {
        config_maps,
        analysis,
        files_hash,
    })
}

/// The keys of a `ConfigMap`, and the analysis of the script where this `ConfigMap` holds it.
async fn read_config_map(
    ctx: &Context,
    test: &LoadTest,
    name: &str,
    script: Option<(String, Option<String>)>,
) -> Result<Option<Arc<CachedConfigMap>>, Error> {
    let key = ScriptKey {
        namespace: test.namespace().unwrap_or_default(),
        name: name.to_owned(),
        script,
    };
    if let Some(cached) = ctx.scripts.get(&key, Instant::now()) {
        return Ok(Some(cached));
    }
    let _permit = ctx.config_map_reads.acquire().await;
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let found = with_timeout(api.get_opt(name))
        .await
        .map_err(Error::new("read the ConfigMap of the test script"))?;
    let Some(found) = found else {
        return Ok(None);
    };
    let (texts, binaries) = (
        found.data.unwrap_or_default(),
        found.binary_data.unwrap_or_default(),
    );
    let mut hash = FilesHash::default();
    for (name, text) in &texts {
        hash.add(name, text.as_bytes());
    }
    for (name, bytes) in &binaries {
        hash.add(name, &bytes.0);
    }
    let is_script = |name: &String| matches!(&key.script, Some((script, _)) if script == name);
    let names = texts.keys().chain(binaries.keys());
    let mut read = CachedConfigMap {
        hash,
        keys: names
            .enumerate()
            .filter(|(n, name)| *n < MAX_KEYS || is_script(name))
            .map(|(_, name)| name.clone())
            .collect(),
        ..CachedConfigMap::default()
    };
    if let Some((file, environment)) = &key.script {
        let binary = || std::str::from_utf8(&binaries.get(file)?.0).ok();
        if let Some(text) = texts.get(file).map(String::as_str).or_else(binary) {
            read.analysis = Arc::new(analyze(text, file, environment.as_deref()));
        }
    }
    let read = Arc::new(read);
    ctx.scripts.insert(key, read.clone(), Instant::now());
    Ok(Some(read))
}
