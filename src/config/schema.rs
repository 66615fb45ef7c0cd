//! The JSON schema of the configuration, made from the types, and the questions the loader and the documents ask it.
//!
//! Owns: the closed form of the schema (no unknown keys, a `_file` key beside every secret). Refuses: to look at
//! values.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::Config;
use super::tree::{Path, Step};

/// End of the key that names a file to read a secret from.
pub const FILE_SUFFIX: &str = "_file";

/// The whole schema, without references.
pub fn root() -> &'static Json {
    static ROOT: OnceLock<Json> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mut generator = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
        let mut schema = generator.root_schema_for::<Config>().to_value();
        close(&mut schema);
        schema
    })
}

/// Forbids unknown keys in every table, and gives every secret its `_file` key.
fn close(schema: &mut Json) {
    match schema {
        Json::Array(list) => list.iter_mut().for_each(close),
        Json::Object(object) => {
            if let Some(Json::Object(keys)) = object.get_mut("properties") {
                add_file_keys(keys);
                // The schema of a socket address says nothing of its form; every `listen` is one.
                if let Some(Json::Object(listen)) = keys.get_mut("listen") {
                    listen.insert("format".into(), "socket-address".into());
                }
                if !object.contains_key("additionalProperties") {
                    object.insert("additionalProperties".into(), Json::Bool(false));
                }
            }
            object.values_mut().for_each(close);
        }
        _ => {}
    }
}

fn add_file_keys(keys: &mut Map<String, Json>) {
    let secrets: Vec<String> = keys.iter().filter(|(_, schema)| is_secret(schema)).map(|(key, _)| key.clone()).collect();
    for key in secrets {
        let description =
            format!("A file that holds `{key}`; read at start, white space at its ends is cut. Relative to the working directory.");
        keys.insert(key + FILE_SUFFIX, json!({ "type": ["string", "null"], "minLength": 1, "default": null, "description": description }));
    }
}

/// Whether this is a secret, which may also be read from a file.
pub fn is_secret(schema: &Json) -> bool {
    schema["writeOnly"] == true
}

/// Whether values may not be shown: secrets, and text that may hold one.
pub fn is_sensitive(schema: &Json) -> bool {
    is_secret(schema) || schema["x-sensitive"] == true
}

/// The keys of a table, if it is one.
pub fn keys(schema: &Json) -> Option<&Map<String, Json>> {
    schema["properties"].as_object()
}

/// Schema of the elements of a list, if it is one.
pub fn items(schema: &Json) -> Option<&Json> {
    schema.get("items")
}

/// The alternatives of a choice; empty if there is none.
pub fn alternatives(schema: &Json) -> &[Json] {
    ["oneOf", "anyOf"].iter().find_map(|word| schema[*word].as_array()).map_or(&[], Vec::as_slice)
}

/// The JSON types a value may have, without `null`, which TOML cannot write.
pub fn types(schema: &Json) -> Vec<&str> {
    let mut found: Vec<&str> = match &schema["type"] {
        Json::String(one) => vec![one.as_str()],
        Json::Array(many) => many.iter().filter_map(Json::as_str).collect(),
        _ => alternatives(schema).iter().flat_map(types).collect(),
    };
    if found.is_empty() && (schema.get("const").is_some_and(Json::is_string) || schema.get("enum").is_some()) {
        found.push("string");
    }
    found.retain(|t| *t != "null");
    found.dedup();
    found
}

/// The values a closed choice allows, if it is one.
pub fn choices(schema: &Json) -> Option<Vec<&Json>> {
    if let Some(one) = schema.get("const") {
        return Some(vec![one]);
    }
    if let Some(list) = schema["enum"].as_array() {
        return Some(list.iter().filter(|v| !v.is_null()).collect());
    }
    let parts = alternatives(schema);
    if parts.is_empty() {
        return None;
    }
    let nested: Option<Vec<_>> = parts.iter().filter(|part| part["type"] != "null").map(choices).collect();
    nested.map(|lists| lists.concat())
}

/// Bounds of a number: both ends included.
pub fn range(schema: &Json) -> (Option<f64>, Option<f64>) {
    let max_of_format = match schema["format"].as_str() {
        Some("uint8") => Some(255.0),
        Some("uint16") => Some(65_535.0),
        Some("uint32") => Some(4_294_967_295.0),
        _ => None,
    };
    (schema["minimum"].as_f64(), schema["maximum"].as_f64().or(max_of_format))
}

/// What a value should be, in words.
pub fn expectation(schema: &Json) -> String {
    if let Some(choices) = choices(schema) {
        let names: Vec<String> = choices.iter().map(ToString::to_string).collect();
        return if names.len() == 1 { names.concat() } else { format!("one of {}", names.join(", ")) };
    }
    let parts = alternatives(schema);
    if !parts.is_empty() {
        let mut names: Vec<String> = parts.iter().filter(|part| part["type"] != "null").map(expectation).collect();
        names.dedup();
        return names.join(" or ");
    }
    let names: Vec<String> = types(schema).into_iter().map(|t| of_type(schema, t)).collect();
    if names.is_empty() { "something else".into() } else { names.join(" or ") }
}

fn of_type(schema: &Json, name: &str) -> String {
    let bounds = match range(schema) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    };
    match name {
        "integer" => format!("an integer{bounds}"),
        "number" => format!("a number{bounds}"),
        "boolean" => "true or false".into(),
        "array" => "a list".into(),
        "object" => "a table".into(),
        _ => match schema["format"].as_str() {
            Some("socket-address") => "ADDRESS:PORT in quotes, such as \"0.0.0.0:8080\"".into(),
            Some("ip" | "ipv4" | "ipv6") => "an IP address in quotes".into(),
            _ => "a string".into(),
        },
    }
}

/// The schema a path leads to.
pub fn at(path: &Path) -> Option<&'static Json> {
    path.0.iter().try_fold(root(), |schema, step| match step {
        Step::Key(key) => keys(schema)?.get(key),
        Step::Index(_) => items(schema),
    })
}

/// Words that help with an unknown key: the nearest name here, else the section that has it, else what there is.
pub fn hint(table: &Json, key: &str) -> String {
    let Some(known) = keys(table) else { return String::new() };
    if let Some(near) = nearest(known.keys().map(String::as_str), key) {
        return format!("; did you mean {near:?}?");
    }
    let sections = keys(root()).into_iter().flatten();
    let elsewhere = sections.filter(|(_, schema)| keys(schema).is_some_and(|keys| keys.contains_key(key)));
    let elsewhere: Vec<String> = elsewhere.map(|(name, _)| format!("[{name}]")).collect();
    if !elsewhere.is_empty() {
        return format!("; it belongs to {}", elsewhere.join(" or "));
    }
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    format!("; known here: {}", names.join(", "))
}

/// The name most like `key`, if one is like it at all.
pub fn nearest<'a>(names: impl Iterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    let scored = names.map(|name| (strsim::normalized_damerau_levenshtein(name, &key), name));
    scored.filter(|(score, _)| *score >= 0.6).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}
