//! Compares the CRD in a cluster with that of this version. The API server drops fields that the installed CRD does not have,
//! without an error.

use std::collections::BTreeMap;

use kube::Resource;
use serde::Deserialize;
use serde::de::Error;

use crate::text::edit_distance;
use crate::v1alpha1::LoadTest;

/// The CRD of this version. Generating it from the Rust types takes several MiB of memory, which the process would keep.
const MANIFEST: &str = include_str!("../../../config/crd/loadtest.artillery.io_loadtests.yaml");

/// The paths of fields that an installed CRD does not have, such as `status.failedWorkers[].pod`. Fields below a missing one are
/// not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFields {
    /// Those that users set.
    pub spec: Vec<String>,
    /// Those that the operator writes.
    pub status: Vec<String>,
}

impl MissingFields {
    /// All paths; those of the status first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.status.iter().chain(&self.spec).map(String::as_str)
    }
}

/// Compares the `OpenAPI` v3 document of the API's group and version with the CRD of this version. Returns nothing if the document
/// does not describe LoadTests.
///
/// # Errors
/// The document cannot be parsed.
pub fn missing_fields(openapi: &str) -> serde_json::Result<Option<MissingFields>> {
    let document: Document = serde_json::from_str(openapi)?;
    let mut schemas = document.components.schemas.into_values();
    let Some(installed) = schemas.find(Schema::is_load_test) else {
        return Ok(None);
    };
    let crd: Crd = serde_yaml::from_str(MANIFEST).map_err(serde_json::Error::custom)?;
    let mut missing = MissingFields::default();
    for version in crd.spec.versions {
        version
            .schema
            .schema
            .compare_parts(&installed, &mut missing);
    }
    Ok(Some(missing))
}

/// The paths of fields of a manifest that a LoadTest does not have, each with the name that was probably meant. The API server would
/// drop them, or reject the manifest.
///
/// # Errors
/// The CRD of this version cannot be read.
pub fn unknown_fields(manifest: &serde_json::Value) -> serde_json::Result<Vec<String>> {
    let crd: Crd = serde_yaml::from_str(MANIFEST).map_err(serde_json::Error::custom)?;
    let mut unknown = Vec::new();
    for version in crd.spec.versions {
        let schema = version.schema.schema.properties.get("spec");
        if let (Some(schema), Some(spec)) = (schema, manifest.get("spec")) {
            schema.find_unknown(spec, "spec", &mut unknown);
        }
    }
    Ok(unknown)
}

#[derive(Deserialize)]
struct Crd {
    spec: CrdSpec,
}

#[derive(Deserialize)]
struct CrdSpec {
    versions: Vec<CrdVersion>,
}

#[derive(Deserialize)]
struct CrdVersion {
    schema: CrdSchema,
}

#[derive(Deserialize)]
struct CrdSchema {
    #[serde(rename = "openAPIV3Schema")]
    schema: Schema,
}

#[derive(Deserialize)]
struct Document {
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Schema>,
}

/// What decides about a schema which fields are kept.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
    additional_properties: Option<Box<AdditionalProperties>>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserves_unknown_fields: bool,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<GroupVersionKind>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AdditionalProperties {
    Allowed(bool),
    Schema(Schema),
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

impl Schema {
    fn is_load_test(&self) -> bool {
        self.kinds.iter().any(|k| {
            k.group == LoadTest::group(&())
                && k.version == LoadTest::version(&())
                && k.kind == LoadTest::kind(&())
        })
    }

    /// The schema of values under any key.
    fn values(&self) -> Option<&Self> {
        match self.additional_properties.as_deref()? {
            AdditionalProperties::Schema(schema) => Some(schema),
            AdditionalProperties::Allowed(_) => None,
        }
    }

    /// Whether values under any key are kept as they are.
    fn keeps_unknown_fields(&self) -> bool {
        let additional = self.additional_properties.as_deref();
        self.preserves_unknown_fields
            || matches!(additional, Some(AdditionalProperties::Allowed(true)))
    }

    /// Adds the fields of a value that this schema does not have.
    fn find_unknown(&self, value: &serde_json::Value, path: &str, unknown: &mut Vec<String>) {
        for (name, field) in value.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match self.properties.get(name).or(self.values()) {
                Some(schema) => schema.find_unknown(field, &path, unknown),
                None if self.keeps_unknown_fields() => {}
                None => unknown.push(match self.similar(name) {
                    Some(similar) => format!("{path} (did you mean {similar}?)"),
                    None => path,
                }),
            }
        }
        if let Some(items) = &self.items {
            for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                items.find_unknown(item, &format!("{path}[{at}]"), unknown);
            }
        }
    }

    /// The field with the most similar name.
    fn similar(&self, name: &str) -> Option<&str> {
        let fields = self.properties.keys();
        let distances = fields.map(|field| (edit_distance(field, name), field.as_str()));
        let (distance, field) = distances.min()?;
        (distance <= 2).then_some(field)
    }

    /// The same as [`Schema::compare`], for the schema of a whole LoadTest.
    fn compare_parts(&self, installed: &Self, missing: &mut MissingFields) {
        for (part, paths) in [("spec", &mut missing.spec), ("status", &mut missing.status)] {
            match (self.properties.get(part), installed.properties.get(part)) {
                (Some(expected), Some(installed)) => expected.compare(installed, part, paths),
                (Some(_), None) => paths.push(part.to_owned()),
                (None, _) => {}
            }
        }
    }

    /// Adds the fields of this schema that the installed one drops.
    fn compare(&self, installed: &Self, path: &str, missing: &mut Vec<String>) {
        for (name, field) in &self.properties {
            let path = format!("{path}.{name}");
            match installed.properties.get(name).or(installed.values()) {
                Some(installed) => field.compare(installed, &path, missing),
                None if installed.keeps_unknown_fields() => {}
                None => missing.push(path),
            }
        }
        if let Some(items) = &self.items {
            match &installed.items {
                Some(installed) => items.compare(installed, &format!("{path}[]"), missing),
                None if installed.keeps_unknown_fields() => {}
                None => missing.push(format!("{path}[]")),
            }
        }
        let takes_any_key = |s: &Self| s.values().is_some() || s.keeps_unknown_fields();
        let path = format!("{path}.*");
        match (self.values(), installed.values()) {
            (Some(values), Some(installed)) => values.compare(installed, &path, missing),
            _ if takes_any_key(self) && !takes_any_key(installed) => missing.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::crd;

    /// The schema of this version's CRD.
    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// What the API server serves for a CRD with this schema.
    fn document(mut schema: Value) -> String {
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": "loadtest.artillery.io", "kind": "LoadTest", "version": "v1alpha1"}]);
        schema["properties"]["metadata"] =
            json!({"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}]});
        let other = json!({"type": "object", "properties": {"items": {"type": "array"}},
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "DeleteOptions", "version": "v1"}]});
        json!({"openapi": "3.0.0", "paths": {"/a": {"parameters": []}},
            "components": {"schemas": {"DeleteOptions": other, "LoadTest": schema}}})
        .to_string()
    }

    fn missing(schema: Value) -> MissingFields {
        missing_fields(&document(schema)).unwrap().unwrap()
    }

    /// All fields below a schema, as JSON pointers and as the paths that are reported.
    fn fields(schema: &Value, pointer: &str, path: &str, all: &mut Vec<(String, String)>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let (pointer, path) = (
                format!("{pointer}/properties/{name}"),
                format!("{path}.{name}"),
            );
            all.push((pointer.clone(), path.clone()));
            fields(field, &pointer, &path, all);
        }
        for (below, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
            if schema[below].is_object() {
                let (pointer, path) = (format!("{pointer}/{below}"), format!("{path}{suffix}"));
                all.push((pointer.clone(), path.clone()));
                fields(&schema[below], &pointer, &path, all);
            }
        }
    }

    fn remove(schema: &mut Value, pointer: &str) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = schema.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.remove(name).unwrap();
    }

    #[test]
    fn the_crd_of_this_version_has_all_fields() {
        assert_eq!(missing(schema()), MissingFields::default());
    }

    #[test]
    fn each_field_is_found_when_it_is_removed() {
        for part in ["spec", "status"] {
            let (whole, mut all) = (schema(), Vec::new());
            let root = format!("/properties/{part}");
            fields(whole.pointer(&root).unwrap(), &root, part, &mut all);
            all.push((root, part.to_owned()));
            assert!(all.len() > 20, "{all:?}");
            let expected = Schema::deserialize(&whole).unwrap();
            for (pointer, path) in all {
                let mut reduced = whole.clone();
                remove(&mut reduced, &pointer);
                let mut missing = MissingFields::default();
                expected.compare_parts(&Schema::deserialize(reduced).unwrap(), &mut missing);
                assert_eq!(missing.iter().collect::<Vec<_>>(), [path.as_str()]);
                assert_eq!(missing.status.is_empty(), part == "spec", "{path}");
            }
        }
    }

    #[test]
    fn fields_of_a_newer_crd_are_ignored() {
        let mut newer = schema();
        newer["properties"]["status"]["properties"]["later"] = json!({"type": "string"});
        assert_eq!(missing(newer), MissingFields::default());
    }

    #[test]
    fn a_schema_that_keeps_unknown_fields_misses_none() {
        for kept in [
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"type": "object", "additionalProperties": true}),
        ] {
            let mut open = schema();
            open["properties"]["status"] = kept;
            assert_eq!(missing(open), MissingFields::default());
        }
    }

    #[test]
    fn a_document_without_load_tests_gives_nothing() {
        let document = json!({"components": {"schemas": {}}}).to_string();
        assert_eq!(missing_fields(&document).unwrap(), None);
        assert!(missing_fields("no JSON").is_err());
    }

    #[test]
    fn unknown_fields_are_found_with_the_name_that_was_meant() {
        let manifest = json!({"metadata": {"anything": 1}, "spec": {"cuont": 2, "variables": {"any": 1},
            "thresholds": ["a"], "abort": [{"when": "a > 1", "then": 1}],
            "worker": {"resources": {"limits": {"cpu": "1"}}, "env": [{"name": "A", "valueform": 1}]}}});
        let unknown = unknown_fields(&manifest).unwrap();
        assert_eq!(
            unknown,
            [
                "spec.abort[0].then (did you mean when?)",
                "spec.cuont (did you mean count?)",
                "spec.worker.env[0].valueform (did you mean valueFrom?)"
            ]
        );
    }
}
