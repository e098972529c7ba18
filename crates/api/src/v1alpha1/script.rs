//! The test script and the files beside it.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The default key of the script in its ConfigMap.
pub const TEST_SCRIPT_KEY: &str = "test-script.yaml";

/// The test script and the files it needs. All of them are in the folder /data of the workers, so relative paths in
/// the script work.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.config) != has(self.inline)")
        .message("testScript needs either config (a reference to the script) or inline (the script itself)"),
    validation = Rule::new("!has(self.config) || has(self.config.configMap) || has(self.external) && (has(self.external.persistentVolumeClaim) || has(self.external.image))")
        .message("testScript.config.configMap must name a ConfigMap, unless the script is a file of external.persistentVolumeClaim or external.image"),
)]
pub struct TestScript {
    /// The location of the test script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,

    /// The test script itself, for a first try in one file. A ConfigMap can hold more, and many tests can share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub inline: Option<String>,

    /// Files beside the test script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<External>>,
}

/// The location of the test script.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Name of a ConfigMap in the same namespace. Its key test-script.yaml, or the one named by key, is the script
    /// that the workers run. All its keys are files in the folder /data of the workers. The test waits for the
    /// ConfigMap and starts when it appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,

    /// File name of the script: a key of the ConfigMap or, without a ConfigMap, a path in the volume of external. It
    /// ends in .yaml, .yml, .json, .js or .ts. Default: test-script.yaml.
    #[x_kube(
        validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
            .message("testScript.config.key must be a file name, or a path within the volume"),
        validation = Rule::new("self.matches('(?i)[.](ya?ml|json|js|ts)$')")
            .message("testScript.config.key must end in .yaml, .yml, .json, .js or .ts: Artillery supports no other files"),
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Files beside the test script, from several sources. No two of them may have the same name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Payload files (CSV).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<ConfigMaps>,

    /// Processor files (JavaScript or TypeScript).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<Processor>,

    /// A claim with files that are too large for a ConfigMap, such as payloads or node_modules. All workers mount it
    /// read-only, so its access mode must allow that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimFiles>,

    /// An OCI image or artifact with files that are too large for a ConfigMap. It needs a cluster with image volumes
    /// (Kubernetes 1.35, or the feature gate ImageVolume before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFiles>,
}

/// The files of a claim.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFiles {
    /// Name of a PersistentVolumeClaim in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// The files of an image.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageFiles {
    /// Reference of the image, such as ghcr.io/example/load-test-files:v1.
    #[schemars(length(min = 1, max = 1024))]
    pub reference: String,

    /// Pull policy: Always, IfNotPresent or Never. Default: Always for the tag latest, otherwise IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Always", "IfNotPresent", "Never"]))]
    pub pull_policy: Option<String>,
}

/// Files in one or more ConfigMaps.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMaps {
    /// Names of ConfigMaps in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub config_maps: Vec<String>,
}

/// The script's processor and the files it loads.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Processor {
    /// The processor itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<ConfigMapFiles>,

    /// The files that the processor loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related: Option<ConfigMaps>,
}

/// The files in a ConfigMap.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapFiles {
    /// Name of a ConfigMap in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
}

impl TestScript {
    /// The script's file, as a path in the workers' folder /data.
    #[must_use]
    pub fn file(&self) -> &str {
        self.config
            .as_ref()
            .and_then(|c| c.key.as_deref())
            .unwrap_or(TEST_SCRIPT_KEY)
    }

    /// The ConfigMap with the script, if the script is in one.
    #[must_use]
    pub fn config_map(&self) -> Option<&str> {
        self.config.as_ref()?.config_map.as_deref()
    }

    /// All ConfigMaps whose files are mounted in the workers, each once.
    #[must_use]
    pub fn config_maps(&self) -> Vec<&str> {
        let external = self.external.as_ref();
        let processor = external.and_then(|e| e.processor.as_ref());
        let many = [
            external.and_then(|e| e.payload.as_ref()),
            processor.and_then(|p| p.related.as_ref()),
        ];
        let main = processor
            .and_then(|p| p.main.as_ref())
            .map(|m| m.config_map.as_str());
        let related = many
            .into_iter()
            .flatten()
            .flat_map(|maps| &maps.config_maps)
            .map(String::as_str);
        let mut names = Vec::new();
        for name in self.config_map().into_iter().chain(main).chain(related) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether files come from an image.
    #[must_use]
    pub fn has_image(&self) -> bool {
        self.external.as_ref().is_some_and(|e| e.image.is_some())
    }

    /// Whether files come from a volume, which only the workers can read.
    #[must_use]
    pub fn has_volume(&self) -> bool {
        self.external
            .as_ref()
            .is_some_and(|e| e.persistent_volume_claim.is_some() || e.image.is_some())
    }
}
