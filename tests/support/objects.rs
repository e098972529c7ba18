//! Objects as the tests write and read them.

use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A `LoadTest` with the script `test-script`.
pub fn load_test(name: &str, count: i32) -> Value {
    json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": name},
        "spec": {"count": count, "environment": "dev", "testScript": {"config": {"configMap": "test-script"}}}})
}

/// The `ConfigMap` of a script that sends one request.
pub fn script_config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"test-script.yaml":
        "config: {target: 'http://target', phases: [{duration: 1, arrivalRate: 1}]}\nscenarios: [{flow: [{get: {url: /}}]}]\n"}})
}

/// Converts JSON to an object.
pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the JSON is valid for this type")
}

/// The message of an API server about a text that is too long, in the words of the newest version. Those of 1.30 are different.
pub fn current_wording(message: &str) -> String {
    ["may not be longer than", "must have at most"].iter().fold(
        message.to_owned(),
        |text, words| {
            text.replace(
                &format!("Too long: {words}"),
                "Too long: may not be more than",
            )
        },
    )
}

pub fn phase_of(test: &LoadTest) -> &str {
    test.status
        .as_ref()
        .and_then(|s| s.phase)
        .map_or("", |p| p.as_str())
}

/// The reason of a test's condition Progressing, which is its first. Empty without conditions.
pub fn condition_reason(test: &LoadTest) -> &str {
    test.status
        .as_ref()
        .and_then(|s| s.conditions.first())
        .map_or("", |c| c.reason.as_str())
}

/// The condition of a test as `(status, reason, message)`.
pub fn condition(test: &LoadTest, type_: &str) -> (String, String, String) {
    let conditions = test
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let c = conditions
        .iter()
        .find(|c| c.type_ == type_)
        .unwrap_or_else(|| panic!("no condition {type_} in {conditions:?}"));
    (c.status.clone(), c.reason.clone(), c.message.clone())
}
