//! Manifests: files with LoadTests and what they need.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use loadtest_api::v1alpha1::LoadTest;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// The file cannot be read, or is not text.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    let path = path.display();
    read.map_err(|error| Error::new(format!("Cannot read {path}: {error}")))?;
    Ok(text)
}

/// Renders a kustomization with `kubectl kustomize`.
///
/// # Errors
/// kubectl is missing, or rejects the folder.
pub fn kustomize(dir: &Path) -> Result<String> {
    let output = Command::new("kubectl").arg("kustomize").arg(dir).output();
    let output = output.map_err(|error| {
        Error::new(format!("Cannot run kubectl kustomize {}: {error}", dir.display())).advice(
            "-k needs kubectl: see https://kubernetes.io/docs/tasks/tools. Without it, render the folder elsewhere and use -f FILE.",
        )
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim().trim_start_matches("error: ").to_owned();
        return Err(Error::new(format!("kubectl kustomize failed: {message}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The objects of a manifest: of all documents of YAML or JSON, and of the lists in them.
///
/// # Errors
/// The text is not YAML.
pub fn objects(text: &str, source: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document)
            .map_err(|error| Error::new(format!("{source} is not valid YAML: {error}")))?;
        match value.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None if value.is_null() => {}
            None => objects.push(value),
        }
    }
    Ok(objects)
}

/// Whether an object is a `LoadTest`.
#[must_use]
pub fn is_test(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().unwrap_or_default();
    object["kind"] == "LoadTest" && group.starts_with("loadtest.artillery.io/")
}

/// `namespace/name` or the name of an object.
#[must_use]
pub fn name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"]
        .as_str()
        .or(metadata["generateName"].as_str())
        .unwrap_or_default();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Reads a `LoadTest`.
///
/// # Errors
/// A field has a wrong type, or is missing.
pub fn test(object: &Value, source: &str) -> Result<LoadTest> {
    let name = name(object);
    serde_json::from_value(object.clone()).map_err(|error| {
        Error::new(format!("LoadTest {name} in {source}: {error}"))
            .advice("List the fields: kubectl explain loadtest.spec")
    })
}
