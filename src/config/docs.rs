//! The documents made from the schema: `docs/configuration.md`, the commented sample, and the schema itself.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{overlay, schema};

/// The JSON schema, for editors.
pub fn schema_text() -> String {
    // A schema is strings, numbers and lists; writing it cannot fail.
    serde_json::to_string_pretty(schema::root()).unwrap_or_default() + "\n"
}

/// Sections in the order of the documents: tables, then lists of tables.
fn sections() -> Vec<(&'static str, &'static Json)> {
    let mut all: Vec<_> = schema::keys(schema::root()).into_iter().flatten().map(|(name, s)| (name.as_str(), s)).collect();
    all.sort_by_key(|(name, schema)| (schema::items(schema).is_some(), *name));
    all
}

/// The page `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for (name, section) in sections() {
        let (heading, keys, prefix) = match schema::items(section) {
            Some(items) => (format!("[[{name}]]"), items, format!("{name}[N]")),
            None => (format!("[{name}]"), section, name.to_owned()),
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## `{heading}`\n\n{}\n\n", description(section));
        out.push_str("| key | values | default | meaning |\n| --- | --- | --- | --- |\n");
        rows(&mut out, keys, &prefix);
        if let Some(example) = section["examples"][0].as_array() {
            let _ = write!(out, "\n```toml\n{}```\n", tables(name, example));
        }
    }
    out
}

const INTRODUCTION: &str = r#"<!-- Made from the types by `patchbay config docs`; a test keeps it equal. -->
# Configuration

`patchbay run --config patchbay.toml` reads one TOML file. Every key has a default; an empty file, or none, is valid.
`patchbay check patchbay.toml` names every problem at once, each with line, key and what would be right, and
`patchbay config example` prints a file with every key at its default.

A value comes from the first of these that has it:

1. the command line: `--set rtmp.listen=0.0.0.0:1936`
2. the environment: `PATCHBAY__RTMP__LISTEN=0.0.0.0:1936` (two underscores for each dot; lists of plain values are
   joined by commas; `PATCHBAY__PUSHES__0__URL` is the URL of the first push)
3. the file
4. the default

An environment variable that begins with `PATCHBAY__` and names no key is refused like a misspelt key in the file.
Every secret has a second key that ends in `_file` and names a file to read it from. Secrets appear in no log line,
message or API answer.
"#;

fn rows(out: &mut String, table: &Json, prefix: &str) {
    let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    for (key, schema) in schema::keys(table).into_iter().flatten() {
        // A table in a table: its keys follow.
        if schema::keys(schema).is_some() {
            rows(out, schema, &format!("{prefix}.{key}"));
            continue;
        }
        let default = match schema.get("default") {
            _ if required.contains(&key.as_str()) => "*must be given*".into(),
            None | Some(Json::Null) => "—".into(),
            Some(value) => format!("`{value}`"),
        };
        let values = values(schema);
        let meaning = description(schema).replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(out, "| `{prefix}.{key}` | {} | {default} | {meaning} |", values.replace('|', "\\|"));
        for table in schema::alternatives(schema) {
            rows(out, table, &format!("{prefix}.{key}"));
        }
    }
}

fn values(schema: &Json) -> String {
    match schema::items(schema) {
        Some(items) => format!("a list of: {}", schema::expectation(items)),
        None => schema::expectation(schema),
    }
}

fn description(schema: &Json) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// A file with every key: tables at their defaults, lists of tables as comments to take up.
pub fn example() -> String {
    let mut out = String::from(
        "# patchbay.toml with every key at its default. Take out what you do not change.\n# Each key can also be set in the environment: ",
    );
    let _ = writeln!(out, "{}HTTP__LISTEN=127.0.0.1:8080", overlay::PREFIX);
    for (name, section) in sections() {
        out.push('\n');
        comment(&mut out, description(section));
        if let Some(items) = schema::items(section) {
            for (key, schema) in schema::keys(items).into_iter().flatten() {
                comment(&mut out, &format!("  {key}: {} ({})", description(schema).replace('\n', " "), values(schema)));
            }
            let sample = section["examples"][0].as_array().map(|list| tables(name, list)).unwrap_or_default();
            sample.lines().for_each(|line| _ = writeln!(out, "#{line}"));
            continue;
        }
        table(&mut out, name, section);
    }
    out
}

/// A table at its defaults, and behind it the tables in it.
fn table(out: &mut String, name: &str, section: &Json) {
    let _ = writeln!(out, "[{name}]");
    let keys = || schema::keys(section).into_iter().flatten();
    for (key, schema) in keys().filter(|(_, schema)| schema::keys(schema).is_none()) {
        comment(out, description(schema));
        match schema.get("default") {
            None | Some(Json::Null) => _ = writeln!(out, "#{key} = {}", sample_value(schema)),
            Some(value) => _ = writeln!(out, "{key} = {}", toml_value(value)),
        }
    }
    for (key, schema) in keys().filter(|(_, schema)| schema::keys(schema).is_some()) {
        out.push('\n');
        comment(out, description(schema));
        table(out, &format!("{name}.{key}"), schema);
    }
}

/// Wraps at 110 columns.
fn comment(out: &mut String, text: &str) {
    for paragraph in text.lines() {
        let mut width = 0;
        for word in paragraph.split(' ') {
            if width > 0 && width + 1 + word.chars().count() > 108 {
                out.push('\n');
                width = 0;
            }
            out.push_str(if width == 0 { "# " } else { " " });
            out.push_str(word);
            width += 1 + word.chars().count();
        }
        out.push('\n');
    }
}

fn sample_value(schema: &Json) -> String {
    if let Some(sample) = schema["examples"].get(0) {
        return toml_value(sample);
    }
    let plain = match schema::types(schema).first() {
        Some(&"integer" | &"number") => "0",
        Some(&"boolean") => "false",
        Some(&"array") => "[]",
        _ => "\"\"",
    };
    plain.into()
}

fn tables(name: &str, list: &[Json]) -> String {
    let mut out = String::new();
    for table in list {
        let _ = writeln!(out, "[[{name}]]");
        for (key, value) in table.as_object().into_iter().flatten() {
            let _ = writeln!(out, "{key} = {}", toml_value(value));
        }
    }
    out
}

/// JSON as TOML, on one line.
fn toml_value(value: &Json) -> String {
    match value {
        Json::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Json::Object(object) => {
            let entries: Vec<String> = object.iter().map(|(k, v)| format!("{k} = {}", toml_value(v))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // Strings, numbers and truth values are written alike in both.
        plain => plain.to_string(),
    }
}
