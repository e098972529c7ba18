//! The CRD of [`LoadTest`], generated from its types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::bounds;
use crate::v1alpha1::{LoadTest, worker_policy};

/// The command that installs the CRD, in a copy of the repository.
pub const APPLY_COMMAND: &str = "kubectl apply -k config/crd";

/// The CRD. Its descriptions are the doc comments of the types, with each paragraph as one line: `kubectl explain` wraps them.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    fn unwrap_lines(schema: &mut JSONSchemaProps) {
        if let Some(description) = &mut schema.description {
            *description = description
                .split("\n\n")
                .map(|p| p.replace('\n', " "))
                .collect::<Vec<_>>()
                .join("\n\n");
        }
        schema
            .properties
            .iter_mut()
            .flat_map(|p| p.values_mut())
            .for_each(unwrap_lines);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            unwrap_lines(items);
        }
    }
    let mut crd = LoadTest::crd();
    let schemas = crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        unwrap_lines(schema);
        let Some(parts) = schema.properties.as_mut() else {
            continue;
        };
        if let Some(status) = parts.get_mut("status") {
            // By kstatus' rules an object without conditions is ready, unless this field differs from its generation.
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
        let Some(spec) = parts.get_mut("spec") else {
            continue;
        };
        let Some(fields) = spec.properties.as_mut() else {
            continue;
        };
        let values = fields
            .get_mut("variables")
            .and_then(|variables| variables.additional_properties.as_mut());
        if let Some(JSONSchemaPropsOrBool::Schema(value)) = values {
            value.description = Some("A string or an integer".into());
        }
        if let Some(worker) = fields.get_mut("worker") {
            worker_policy::restrict_schema(worker);
        }
        bounds::limit(spec);
    }
    crd
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;

    /// The paths of the fields without a description.
    fn undescribed(schema: &Value, path: &str, all: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                all.push(path.clone());
            }
            undescribed(field, &path, all);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                undescribed(&schema[below], path, all);
            }
        }
    }

    #[test]
    fn every_field_has_a_description() {
        let schema = serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let mut all = Vec::new();
        for part in ["spec", "status"] {
            assert!(schema["properties"][part].is_object());
            undescribed(&schema["properties"][part], part, &mut all);
        }
        assert_eq!(all, Vec::<String>::new());
    }

    /// The paths of the texts, lists and maps without a limit.
    fn unlimited(schema: &Value, path: &str, all: &mut Vec<String>) {
        let is_text = schema["type"] == "string"
            || schema["x-kubernetes-int-or-string"].as_bool() == Some(true);
        let limits = [
            (is_text && schema["enum"].is_null(), "maxLength"),
            (schema["type"] == "array", "maxItems"),
            (schema["additionalProperties"].is_object(), "maxProperties"),
        ];
        for (needs_limit, limit) in limits {
            if needs_limit && schema[limit].as_i64().is_none() {
                all.push(format!("{path} has no {limit}"));
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            unlimited(field, &format!("{path}.{name}"), all);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                unlimited(&schema[below], &format!("{path}.{below}"), all);
            }
        }
    }

    #[test]
    fn every_text_list_and_map_of_a_spec_has_a_limit() {
        let crd = serde_json::to_value(crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut all = Vec::new();
        unlimited(&schema["properties"]["spec"], "spec", &mut all);
        assert_eq!(all, Vec::<String>::new());
    }

    #[test]
    fn the_crd_fits_into_the_annotation_of_kubectl_apply() {
        // 256 KiB are allowed for all annotations of an object.
        let size = serde_json::to_string(&crd()).unwrap().len();
        assert!(size < 150 * 1024, "{size}");
    }

    #[test]
    fn every_spec_field_is_either_fixed_or_mutable_once_started() {
        use crate::v1alpha1::{FIXED_FIELDS, MUTABLE_FIELDS, Presence};

        let crd = serde_json::to_value(crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let spec = schema["properties"]["spec"]["properties"]
            .as_object()
            .unwrap();
        let mut classified: Vec<_> = FIXED_FIELDS.iter().map(|(field, _)| *field).collect();
        classified.extend(MUTABLE_FIELDS);
        classified.sort_unstable();
        let fields: Vec<_> = spec.keys().map(String::as_str).collect();
        assert_eq!(classified, fields);

        let rules = schema["x-kubernetes-validations"].to_string();
        let required = schema["properties"]["spec"]["required"].to_string();
        for (field, presence) in FIXED_FIELDS {
            assert!(
                rules.contains(&format!("self.spec.{field} == oldSelf.spec.{field}")),
                "{field}"
            );
            let is_present =
                !spec[field]["default"].is_null() || required.contains(&format!("\"{field}\""));
            assert_eq!(presence == Presence::Required, is_present, "{field}");
        }
    }
}
