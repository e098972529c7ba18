//! Parsing of watched `LoadTests`. An invalid object does not stop the watch, and unused metadata is skipped.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::state::partial_metadata;
use loadtest_api::v1alpha1::{LoadTest, LoadTestSpec, LoadTestStatus};

/// A `LoadTest`, or the error of parsing it. It replaces kube's `DeserializeGuard`, which first builds a
/// `serde_json::Value` of each object and is expensive when many tests arrive at once.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = "LoadTest")]
pub(crate) struct ParsedLoadTest {
    /// The metadata, without managed fields.
    pub metadata: ObjectMeta,
    rest: Result<Box<Rest>, String>,
}

/// A `LoadTest` that cannot be parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct InvalidObject {
    /// The namespace of the object.
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: Option<String>,
    /// The parse error.
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

/// The metadata of a `LoadTest` whose spec or status cannot be parsed.
#[derive(Deserialize)]
struct MetadataOnly {
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
                let MetadataOnly { metadata } =
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
    /// Returns the `LoadTest`.
    ///
    /// # Errors
    /// Fails with the object's name and the parse error if it is invalid.
    pub(crate) fn into_load_test(self) -> Result<LoadTest, InvalidObject> {
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
        // The API server sends the type before the object.
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
    fn used_metadata_is_parsed_and_managed_fields_are_dropped() {
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
    fn invalid_load_test_is_reported_by_name() {
        let test = watched(&json!({"count": "many"}));
        assert_eq!(
            test.metadata.resource_version.as_deref(),
            Some("7"),
            "the watch resumes from this version"
        );
        let invalid = test.into_load_test().unwrap_err();
        assert_eq!(
            (invalid.namespace.as_deref(), invalid.name.as_deref()),
            (Some("n"), Some("t"))
        );
        assert!(
            invalid.error.contains("invalid type: string \"many\""),
            "{}",
            invalid.error
        );
    }
}
