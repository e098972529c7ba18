//! What `operator-deploy.sh` and the kustomizations install. These tests need kubectl, and no cluster.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::fake_kubectl::FakeKubectl;
use crate::kubectl;

/// Replies as a cluster of version `$SERVER_VERSION` in which everything succeeds, and stores the objects that are applied.
const CLUSTER: &str = r#"
case "$*" in
"get --raw /version") printf '{\n  "major": "1",\n  "gitVersion": "%s"\n}' "$SERVER_VERSION" ;;
"auth can-i "*) echo yes ;;
"kustomize "*) exec "$REAL_KUBECTL" "$@" ;;
"apply -f -") cat >>"${0%/*}/applied" ;;
*" rollout status "*) exit "${ROLLOUT_CODE:-0}" ;;
*" logs "*) echo "flag provided but not defined: -state-dir" ;;
*" exec "*) echo "${IMAGE_REPLY-artillery-operator $VERSION}" ;;
esac
"#;

/// A supported cluster, in which the image is this version of the operator.
const SUPPORTED: [(&str, &str); 2] = [
    ("SERVER_VERSION", "v1.37.2"),
    ("VERSION", env!("CARGO_PKG_VERSION")),
];

/// Returns the image that the project publishes in this version.
fn default_image() -> String {
    format!(
        "ghcr.io/artilleryio/artillery-operator-alpha:v{}",
        env!("CARGO_PKG_VERSION")
    )
}

fn repository_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the objects of a stream of YAML documents.
pub fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|object| Value::deserialize(object).unwrap())
        .collect()
}

/// Returns the images of all containers.
fn images(objects: &[Value]) -> BTreeSet<&str> {
    objects
        .iter()
        .filter_map(|object| object["spec"]["template"]["spec"]["containers"].as_array())
        .flatten()
        .map(|container| container["image"].as_str().unwrap())
        .collect()
}

#[test]
fn kustomizations_use_the_published_image_of_this_version() {
    let image = default_image();
    for folder in ["config/default", "config/namespaced"] {
        let objects = objects(&kubectl(&["kustomize", folder]));
        assert_eq!(images(&objects), BTreeSet::from([&*image]), "{folder}");
    }
    assert!(repository_file("docs/operator/install.md").contains(&format!("`{image}`")));
}

#[test]
fn cluster_scoped_objects_have_no_namespace() {
    for object in objects(&kubectl(&["kustomize", "config/default"])) {
        let kind = object["kind"].as_str().unwrap();
        let cluster_scoped = kind.starts_with("Cluster")
            || kind.starts_with("ValidatingAdmission")
            || ["CustomResourceDefinition", "Namespace", "PriorityClass"].contains(&kind);
        let namespace = object["metadata"]["namespace"].as_str();
        let expected = (!cluster_scoped).then_some("artillery-operator-system");
        assert_eq!(namespace, expected, "{}", object["metadata"]);
    }
}

#[test]
fn deploy_script_installs_the_image_and_the_namespaces_of_its_variables() {
    let other = "registry.example:5000/operator@sha256:0123";
    for (name, variables, image) in [
        ("default", &[][..], &*default_image()),
        ("image", &[("IMG", other)], other),
        (
            "tag",
            &[("IMG", "localhost:5000/op:v1")],
            "localhost:5000/op:v1",
        ),
        (
            "no-tag",
            &[("IMG", "localhost:5000/op")],
            "localhost:5000/op:latest",
        ),
        (
            "namespaced",
            &[("IMG", other), ("NAMESPACES", "a,b")],
            other,
        ),
    ] {
        let cluster = FakeKubectl::new(&format!("deploy-{name}"), CLUSTER);
        let variables = [variables, &SUPPORTED].concat();
        let output = cluster.run("./operator-deploy.sh", &[], &variables);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(
            output
                .stdout
                .contains(&format!("image {},", image.trim_end_matches(":latest"))),
            "{output:?}"
        );
        let applied = objects(&cluster.file("applied"));
        assert_eq!(images(&applied), BTreeSet::from([image]), "{name}");
        let deployment = applied.iter().find(|o| o["kind"] == "Deployment").unwrap();
        let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
        let namespaces = variables.iter().find(|(name, _)| *name == "NAMESPACES");
        assert_eq!(
            env[0]["value"].as_str(),
            namespaces.map(|(_, value)| *value)
        );
    }
}

#[test]
fn deploy_script_rejects_clusters_older_than_the_documented_version() {
    let script = repository_file("operator-deploy.sh");
    let minimum = script
        .lines()
        .find_map(|line| line.strip_prefix("MINIMUM_KUBERNETES="))
        .unwrap();
    for page in [
        "README.md",
        "docs/operator/install.md",
        "docs/operator/clusters.md",
    ] {
        let documented = format!("Kubernetes {minimum} or newer");
        assert!(repository_file(page).contains(&documented), "{page}");
    }
    for (version, code) in [
        ("v1.30.0", 0),
        ("v1.30.14-eks-1234567", 0),
        ("v1.31.2+k3s1", 0),
        ("v1.100.0", 0),
        ("v2.0.0", 0),
        ("v1.29.15", 1),
        ("v1.9.0", 1),
        ("v1.29.99-gke.1", 1),
        ("v0.0.0-master+$Format:%H$", 1),
        ("", 1),
    ] {
        let cluster = FakeKubectl::new("version", CLUSTER);
        let variables = [("SERVER_VERSION", version), SUPPORTED[1]];
        let output = cluster.run("./operator-deploy.sh", &[], &variables);
        assert_eq!(output.code, code, "{version}: {output:?}");
        if code == 0 {
            continue;
        }
        let message = if version.is_empty() {
            "cannot find the version of the cluster in this reply: {".to_owned()
        } else {
            format!(
                "operator-deploy.sh: Kubernetes v{minimum} or newer is required, but the cluster has {version}. Nothing was changed.\n"
            )
        };
        assert!(output.stderr.contains(&message), "{output:?}");
        assert_eq!(
            cluster.calls(),
            ["version --request-timeout=10s", "get --raw /version"]
        );
    }
}

#[test]
fn deploy_script_rejects_an_image_that_is_not_this_operator() {
    let push = "make docker-build docker-push deploy IMG=registry.example/artillery-operator:v";
    for (name, variable, code, message) in [
        (
            "other-program",
            (
                "IMAGE_REPLY",
                "exec: \"/artillery-operator\": no such file or directory",
            ),
            1,
            "is not this operator: /artillery-operator --version replied: exec: ",
        ),
        ("silent", ("IMAGE_REPLY", ""), 1, "is not this operator"),
        (
            "crashing",
            ("ROLLOUT_CODE", "1"),
            1,
            "flag provided but not defined: -state-dir\n",
        ),
        (
            "unreachable",
            (
                "IMAGE_REPLY",
                "error: unable to upgrade connection: container not found",
            ),
            0,
            "the image was not verified: error: unable to upgrade connection",
        ),
        (
            "other-version",
            ("IMAGE_REPLY", "artillery-operator 99.0.0"),
            0,
            "the image has version 99.0.0, but the manifests are those of version",
        ),
    ] {
        let cluster = FakeKubectl::new(&format!("verify-{name}"), CLUSTER);
        let variables = [&SUPPORTED[..], &[variable]].concat();
        let output = cluster.run("./operator-deploy.sh", &[], &variables);
        assert_eq!(output.code, code, "{name}: {output:?}");
        assert!(output.stderr.contains(message), "{name}: {output:?}");
        assert_eq!(
            output.stderr.contains(push),
            code == 1,
            "{name}: {output:?}"
        );
    }
}

#[test]
fn install_yaml_is_config_default_with_the_image_of_its_variable() {
    let plain = FakeKubectl::new("install-yaml", CLUSTER).run("hack/install-yaml.sh", &[], &[]);
    assert_eq!(plain.code, 0, "{plain:?}");
    assert_eq!(
        objects(&plain.stdout),
        objects(&kubectl(&["kustomize", "config/default"]))
    );
    let image = "registry.example/op:v7";
    let variables = [("IMG", image)];
    let other = FakeKubectl::new("install-yaml-image", CLUSTER);
    let other = other.run("hack/install-yaml.sh", &[], &variables);
    assert_eq!(images(&objects(&other.stdout)), BTreeSet::from([image]));
    assert!(
        other
            .stdout
            .starts_with(&format!("# The Artillery operator, image {image}."))
    );
}
