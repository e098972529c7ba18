//! A test as the watch gives it: one that cannot be read does not stop the others, and nothing is read that nobody needs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::state::partial_metadata;
use loadtest_api::v1alpha1::{LoadTest, LoadTestSpec, LoadTestStatus};

/// A test, or why it cannot be read. Does what kube's `DeserializeGuard` does, which makes a tree of values of each object
/// first: that was a tenth of what the operator does when a thousand tests come at once.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = "LoadTest")]
pub struct ParsedLoadTest {
    /// The metadata, without what manages its fields.
    pub metadata: ObjectMeta,
    rest: Result<Box<Rest>, String>,
}

/// A test that cannot be read.
#[derive(Debug, PartialEq)]
pub struct InvalidObject {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What is wrong with it.
    pub error: String,
}

#[derive(Clone, Debug)]
struct Rest {
    spec: LoadTestSpec,
    status: Option<LoadTestStatus>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default, deserialize_with = "partial_metadata")]
    metadata: ObjectMeta,
    spec: LoadTestSpec,
    status: Option<LoadTestStatus>,
}

/// What is read of a test of which the rest cannot be.
#[derive(Deserialize)]
struct Named {
    #[serde(default, deserialize_with = "partial_metadata")]
    metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for ParsedLoadTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(text.get()) {
            Ok(Whole {
                metadata,
                spec,
                status,
            }) => Ok(Self {
                metadata,
                rest: Ok(Box::new(Rest { spec, status })),
            }),
            Err(error) => {
                let Named { metadata } =
                    serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Ok(Self {
                    metadata,
                    rest: Err(error.to_string()),
                })
            }
        }
    }
}

impl ParsedLoadTest {
    /// The test.
    ///
    /// # Errors
    /// Which it is, and why it cannot be read.
    pub fn into_load_test(self) -> Result<LoadTest, InvalidObject> {
        match self.rest {
            Ok(rest) => Ok(LoadTest {
                metadata: self.metadata,
                spec: rest.spec,
                status: rest.status,
            }),
            Err(error) => Err(InvalidObject {
                namespace: self.metadata.namespace,
                name: self.metadata.name,
                error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kube::core::WatchEvent;
    use serde_json::json;

    fn watched(spec: &serde_json::Value) -> ParsedLoadTest {
        let object = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "spec": spec,
            "metadata": {"name": "t", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2,
                "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"],
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]}});
        // As it comes: the type first.
        let line = format!(r#"{{"type":"ADDED","object":{object}}}"#);
        let event: WatchEvent<ParsedLoadTest> = serde_json::from_str(&line).unwrap();
        if let WatchEvent::Added(test) = event {
            Some(test)
        } else {
            None
        }
        .unwrap()
    }

    #[test]
    fn all_is_read_that_is_needed_of_a_test() {
        let test = watched(&json!({"count": 2, "testScript": {"config": {"configMap": "s"}}}))
            .into_load_test()
            .unwrap();
        assert_eq!((test.spec.count, test.metadata.managed_fields), (2, None));
        let whole: ObjectMeta = serde_json::from_value(json!({"name": "t", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "generation": 2, "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"]}))
        .unwrap();
        assert_eq!(
            ObjectMeta {
                managed_fields: None,
                ..test.metadata
            },
            whole
        );
    }

    #[test]
    fn a_test_that_cannot_be_read_is_named() {
        let test = watched(&json!({"count": "many"}));
        assert_eq!(
            test.metadata.resource_version.as_deref(),
            Some("7"),
            "where the watch goes on"
        );
        let told = test.into_load_test().unwrap_err();
        assert_eq!(
            (told.namespace.as_deref(), told.name.as_deref()),
            (Some("n"), Some("t"))
        );
        assert!(
            told.error.contains("invalid type: string \"many\""),
            "{}",
            told.error
        );
    }
}
