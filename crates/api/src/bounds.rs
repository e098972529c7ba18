//! Limits of the length of every text, list and map in the schema of a spec. One test cannot take much memory of the API server and
//! of the operator, and the API server's estimate of what CEL rules cost needs the limits.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};

/// In characters. No name in Kubernetes is longer.
const MAX_TEXT: i64 = 253;
const MAX_ITEMS: i64 = 64;

/// Texts that can be longer, by the end of their path. `[]` stands for the items of a list, and `*` for the values of a map.
const TEXTS: [(&str, i64); 27] = [
    ("spec.variables.*", 32_768),
    ("worker.annotations.*", 16_384),
    (".args[]", 32_768),
    (".command[]", 32_768),
    (".env[].name", 1024),
    (".env[].value", 32_768),
    (".image", 1024),
    // Annotations and labels by name.
    (".fieldPath", 512),
    (".mountPath", 4096),
    (".subPath", 4096),
    (".subPathExpr", 4096),
    (".workingDir", 4096),
    (".path", 4096),
    (".localhostProfile", 4096),
    (".httpHeaders[].value", 4096),
    (".dnsConfig.options[].value", 1024),
    (".sysctls[].value", 1024),
    // Quantities.
    (".limits.*", 64),
    (".requests.*", 64),
    (".sizeLimit", 64),
    (".divisor", 64),
    // Values of labels.
    (".matchLabels.*", 63),
    (".nodeSelector.*", 63),
    ("worker.labels.*", 63),
    (".values[]", 253),
    (".volumes[].name", 63),
    (".volumeMounts[].name", 63),
];

/// Lists and maps that can have more or must have fewer entries, by the end of their path.
const LISTS: [(&str, i64); 7] = [
    (".env", 512),
    (".items", 256),
    (".hostAliases", 256),
    (".sidecars", 8),
    ("worker.annotations", 128),
    (".nodeSelectorTerms", 32),
    ("spec.variables", 256),
];

/// The largest sums of lengths, in characters: what a CEL rule adds up, the limit, and what the message names.
const SUMS: [(&str, &str, i64, &str); 6] = [
    (
        "variables",
        "self.map(name, size(name) + (type(self[name]) == string ? size(self[name]) : 8)).sum()",
        65_536,
        "spec.variables",
    ),
    (
        "worker.env",
        "self.map(one, size(one.name) + (has(one.value) ? size(one.value) : 0)).sum()",
        65_536,
        "spec.worker.env",
    ),
    (
        "worker.args",
        "self.map(one, size(one)).sum()",
        65_536,
        "spec.worker.args",
    ),
    (
        "worker.annotations",
        "self.map(name, size(name) + size(self[name])).sum()",
        65_536,
        "spec.worker.annotations",
    ),
    (
        "worker.labels",
        "self.map(name, size(name)).sum()",
        8192,
        "spec.worker.labels",
    ),
    (
        "worker.sidecars.*",
        "(has(self.args) ? self.args.map(one, size(one)).sum() : 0) + (has(self.command) ? self.command.map(one, size(one)).sum() : 0) + (has(self.env) ? self.env.map(one, size(one.name) + (has(one.value) ? size(one.value) : 0)).sum() : 0)",
        32_768,
        "command, args and env of a sidecar",
    ),
];

/// Limits all texts, lists and maps of a spec that have no limit of their own.
pub(crate) fn limit(spec: &mut JSONSchemaProps) {
    limit_below(spec, "spec");
    for (path, sum, most, what) in SUMS {
        let schema = path
            .split('.')
            .try_fold(&mut *spec, |schema, name| match name {
                "*" => match &mut schema.items {
                    Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&mut **items),
                    _ => None,
                },
                name => schema.properties.as_mut()?.get_mut(name),
            });
        let rule = ValidationRule {
            rule: format!("{sum} <= {most}"),
            message: Some(format!(
                "{what}: the texts must not be longer than {most} characters together"
            )),
            ..ValidationRule::default()
        };
        if let Some(schema) = schema {
            schema
                .x_kubernetes_validations
                .get_or_insert_default()
                .push(rule);
        }
    }
}

fn limit_below(schema: &mut JSONSchemaProps, path: &str) {
    let limit_of = |limits: &[(&str, i64)], default: i64| {
        let known = limits.iter().find(|(end, _)| path.ends_with(end));
        Some(known.map_or(default, |(_, limit)| *limit))
    };
    let is_text = schema.type_.as_deref() == Some("string")
        || schema.x_kubernetes_int_or_string == Some(true);
    if is_text && schema.enum_.is_none() && schema.max_length.is_none() {
        schema.max_length = limit_of(&TEXTS, MAX_TEXT);
    }
    if schema.type_.as_deref() == Some("array") && schema.max_items.is_none() {
        schema.max_items = limit_of(&LISTS, MAX_ITEMS);
    }
    for (name, field) in schema.properties.iter_mut().flatten() {
        limit_below(field, &format!("{path}.{name}"));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        limit_below(items, &format!("{path}[]"));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        if schema.max_properties.is_none() {
            schema.max_properties = limit_of(&LISTS, MAX_ITEMS);
        }
        limit_below(values, &format!("{path}.*"));
    }
}
