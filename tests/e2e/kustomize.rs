//! `config/kustomize`: the names that a LoadTest refers to follow the names that kustomize generates. These tests need
//! kubectl, and no cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use loadtest_api::crd::crd;
use serde_json::{Value, json};

use crate::installation::objects;
use crate::kubectl;

/// A field of a LoadTest that contains a name, and the kind of the object that it names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    path: String,
    kind: String,
    api_version: String,
}

/// Returns the references of config/kustomize.
fn configured() -> Vec<Reference> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kustomize/loadtest-name-reference.yaml");
    let config: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let kinds = config["nameReference"].as_array().unwrap();
    let of_kind = |kind: &Value| {
        let version = kind["version"].as_str().unwrap();
        let api_version = kind["group"]
            .as_str()
            .map_or(version.to_owned(), |group| format!("{group}/{version}"));
        let fields = kind["fieldSpecs"].as_array().unwrap().iter();
        fields
            .map(|field| {
                assert_eq!(
                    (&field["group"], &field["kind"]),
                    (&json!("loadtest.artillery.io"), &json!("LoadTest"))
                );
                Reference {
                    path: field["path"].as_str().unwrap().to_owned(),
                    kind: kind["kind"].as_str().unwrap().to_owned(),
                    api_version: api_version.clone(),
                }
            })
            .collect::<Vec<_>>()
    };
    kinds.iter().flat_map(of_kind).collect()
}

/// Returns the schema of a LoadTest.
fn schema() -> Value {
    let crd = serde_json::to_value(crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Adds the paths of all fields without fields of their own.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = if schema["type"] == "array" {
        &schema["items"]
    } else {
        schema
    };
    match schema["properties"].as_object() {
        Some(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{path}/{name}"), found);
            }
        }
        None => {
            found.insert(path.trim_start_matches('/').to_owned());
        }
    }
}

/// Whether a field of a LoadTest contains the name of another object, by the names that Kubernetes uses.
fn is_reference(path: &str) -> bool {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = parent.rsplit('/').next().unwrap();
    match name {
        "configMap" | "configMaps" | "claimName" | "secretName" | "serviceAccountName"
        | "priorityClassName" | "runtimeClassName" => true,
        "name" => {
            parent.ends_with("Ref") || ["configMap", "secret", "imagePullSecrets"].contains(&parent)
        }
        _ => false,
    }
}

/// Returns an object of this schema whose only field is at this path.
fn object_with(schema: &Value, path: &[&str], value: &str) -> Value {
    if schema["type"] == "array" {
        return json!([object_with(&schema["items"], path, value)]);
    }
    match path {
        [] => value.into(),
        [name, rest @ ..] => {
            json!({*name: object_with(&schema["properties"][*name], rest, value)})
        }
    }
}

/// Returns the value at a path. Each list has one item.
fn value_at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    match (value, path) {
        (Value::Array(items), _) => value_at(&items[0], path),
        (_, [name, rest @ ..]) => value_at(&value[*name], rest),
        _ => value,
    }
}

#[test]
fn kustomize_updates_every_reference_of_a_load_test() {
    let references = configured();
    let mut all = BTreeSet::new();
    leaves(&schema()["properties"]["spec"], "spec", &mut all);
    all.retain(|path| is_reference(path));
    let paths: BTreeSet<_> = references.iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths, all);

    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kustomize");
    std::fs::create_dir_all(folder.join("component")).unwrap();
    for file in ["kustomization.yaml", "loadtest-name-reference.yaml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kustomize");
        std::fs::copy(from.join(file), folder.join("component").join(file)).unwrap();
    }
    let mut resources: Vec<Value> = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        let path: Vec<_> = reference.path.split('/').collect();
        let name = format!("of-{}", reference.kind.to_lowercase());
        let mut test = object_with(&schema(), &path, &name);
        test["apiVersion"] = "loadtest.artillery.io/v1alpha1".into();
        test["kind"] = "LoadTest".into();
        test["metadata"] = json!({"name": format!("test-{index}")});
        resources.push(test);
        let named = json!({"apiVersion": reference.api_version, "kind": reference.kind, "metadata": {"name": name}});
        if !resources.contains(&named) {
            resources.push(named);
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": resources});
    std::fs::write(folder.join("resources.yaml"), list.to_string()).unwrap();
    let kustomization = json!({"namePrefix": "a-", "nameSuffix": "-b", "resources": ["resources.yaml"],
        "components": ["component"]});
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();

    let rendered = objects(&kubectl(&["kustomize", folder.to_str().unwrap()]));
    for (index, reference) in references.iter().enumerate() {
        let name = format!("a-test-{index}-b");
        let test = rendered.iter().find(|o| o["metadata"]["name"] == *name);
        let path: Vec<_> = reference.path.split('/').collect();
        assert_eq!(
            value_at(test.unwrap(), &path),
            &json!(format!("a-of-{}-b", reference.kind.to_lowercase())),
            "{reference:?}"
        );
    }
}

#[test]
fn kustomize_example_refers_to_the_hashed_name_of_its_script() {
    let rendered = objects(&kubectl(&["kustomize", "hack/examples/kustomize-loadtest"]));
    let name_of = |kind: &str| {
        let object = rendered.iter().find(|o| o["kind"] == kind).unwrap();
        object["metadata"]["name"].as_str().unwrap()
    };
    assert_eq!(name_of("LoadTest"), "checkout-peak-run1");
    let script = name_of("ConfigMap");
    assert!(script.starts_with("checkout-script-run1-"), "{script}");
    let test = rendered.iter().find(|o| o["kind"] == "LoadTest").unwrap();
    assert_eq!(test["spec"]["testScript"]["config"]["configMap"], script);
}
