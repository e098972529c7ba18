//! The reference of the API's fields as Markdown, from the schema of the CRD.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// How deep fields are listed. Below, `kubectl explain` shows Kubernetes' own types.
const MAX_DEPTH: usize = 4;

/// The reference of a CRD's fields.
#[must_use]
pub fn reference(crd: &CustomResourceDefinition) -> String {
    let mut text = String::from(
        "# LoadTest reference\n\n\
         <!-- Generated from the Rust types by `make manifests`. -->\n\n\
         All fields of `loadtest.artillery.io/v1alpha1`, as `kubectl explain loadtest --recursive` shows them. \
         [The LoadTest resource](loadtest.md) explains how they work together.\n",
    );
    let schemas = crd
        .spec
        .versions
        .iter()
        .filter_map(|v| v.schema.as_ref()?.open_api_v3_schema.as_ref());
    for schema in schemas {
        for part in ["spec", "status"] {
            let Some(fields) = schema.properties.as_ref().and_then(|p| p.get(part)) else {
                continue;
            };
            let _ = write!(text, "\n## {part}\n");
            list(&mut text, part, fields, 1);
        }
    }
    text
}

fn list(text: &mut String, path: &str, schema: &JSONSchemaProps, depth: usize) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let _ = write!(text, "\n### `{path}`\n\n{}", type_name(field));
        if schema.required.iter().flatten().any(|r| r == name) {
            text.push_str(", required");
        }
        if let Some(default) = &field.default {
            let _ = write!(text, ", default `{}`", default.0);
        }
        if let Some(values) = &field.enum_ {
            let values: Vec<_> = values.iter().map(|v| v.0.to_string()).collect();
            let _ = write!(text, ", one of {}", values.join(", "));
        }
        if let (Some(minimum), maximum) = (field.minimum, field.maximum) {
            let _ = write!(text, ", at least {minimum}");
            if let Some(maximum) = maximum {
                let _ = write!(text, ", at most {maximum}");
            }
        }
        let _ = writeln!(
            text,
            "\n\n{}",
            field.description.as_deref().unwrap_or_default()
        );
        // A worker's fields have the types of Kubernetes.
        if depth < MAX_DEPTH && !path.starts_with("spec.worker.") {
            list(text, &path, item(field), depth + 1);
        }
    }
}

/// The schema of a list's items, or of the field itself.
fn item(schema: &JSONSchemaProps) -> &JSONSchemaProps {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        _ => schema,
    }
}

fn type_name(schema: &JSONSchemaProps) -> String {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "integer or string".into();
    }
    let type_ = schema.type_.as_deref().unwrap_or("object");
    match (type_, &schema.additional_properties) {
        ("array", _) => format!("list of {}", type_name(item(schema))),
        ("object", Some(JSONSchemaPropsOrBool::Schema(values))) => {
            format!("map of {}", type_name(values))
        }
        _ => type_.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::crd;

    #[test]
    fn the_reference_lists_spec_and_status_with_types_and_defaults() {
        let text = reference(&crd());
        for expected in [
            "### `spec.count`\n\ninteger, default `1`, at least 1, at most 100000\n",
            "### `spec.testScript`\n\nobject, required\n",
            "### `spec.testScript.config.configMap`",
            "### `status.results.histograms.p95`",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
    }
}
