//! The pure check of a [`Tree`] against the schema: unknown keys, missing keys, types, ranges and choices, all at
//! once.

use serde_json::Value as Json;

use super::problem::{Fault, Problem};
use super::schema;
use super::tree::{Path, Tree, Value};

/// Longest part of a value a message repeats.
const SHOWN_MAX: usize = 40;

/// Every problem of `tree` under `schema`.
pub fn check(tree: &Tree, schema: &Json) -> Vec<Problem> {
    let mut problems = Vec::new();
    node(tree, schema, &Path::default(), &mut problems);
    problems
}

fn node(tree: &Tree, schema: &Json, path: &Path, out: &mut Vec<Problem>) {
    let parts = schema::alternatives(schema);
    if !parts.is_empty() && schema::choices(schema).is_none() {
        return choice(tree, schema, parts, path, out);
    }
    match &tree.value {
        Value::Table(_) if schema::keys(schema).is_some() => table(tree, schema, path, out),
        Value::List(list) if schema::items(schema).is_some() => {
            let items = schema::items(schema).unwrap_or(&Json::Null);
            if let Some(max) = schema["maxItems"].as_u64().filter(|max| list.len() as u64 > *max) {
                let fault = Fault::Value { expected: format!("at most {max} elements"), found: list.len().to_string() };
                return out.push(Problem { origin: tree.at.clone(), path: path.clone(), fault });
            }
            for (i, element) in list.iter().enumerate() {
                node(element, items, &path.index(i), out);
            }
        }
        value if !fits(value, schema) => out.push(wrong(tree, schema, path)),
        _ => {}
    }
}

/// A value that may have one of several forms: the problems of the form it comes nearest to.
fn choice(tree: &Tree, schema: &Json, parts: &[Json], path: &Path, out: &mut Vec<Problem>) {
    let mut nearest: Option<Vec<Problem>> = None;
    for part in parts {
        let mut problems = Vec::new();
        node(tree, part, path, &mut problems);
        if problems.is_empty() {
            return;
        }
        let inside = problems.iter().all(|p| p.path != *path);
        if inside && nearest.as_ref().is_none_or(|n| problems.len() < n.len()) {
            nearest = Some(problems);
        }
    }
    match nearest {
        Some(problems) => out.extend(problems),
        None => out.push(wrong(tree, schema, path)),
    }
}

fn table(tree: &Tree, schema: &Json, path: &Path, out: &mut Vec<Problem>) {
    let (Value::Table(entries), Some(known)) = (&tree.value, schema::keys(schema)) else { return };
    let mut meant = Vec::new();
    for (key, child) in entries {
        let at = path.key(key);
        match known.get(key) {
            Some(schema) => node(child, schema, &at, out),
            None if schema["additionalProperties"] != false => {}
            None => {
                meant.extend(schema::nearest(known.keys().map(String::as_str), key));
                let fault = Fault::Unknown(schema::hint(schema, key));
                out.push(Problem { origin: child.key_at.clone(), path: at, fault });
            }
        }
        if let Some(secret) = key.strip_suffix(schema::FILE_SUFFIX)
            && known.get(secret).is_some_and(schema::is_secret)
            && entries.contains_key(secret)
        {
            let fault = Fault::Invalid(format!("{secret:?} is given as well; give one of the two"));
            out.push(Problem { origin: child.key_at.clone(), path: path.key(key), fault });
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
    // A misspelt key is reported once, as unknown.
    for key in required.filter(|key| !entries.contains_key(*key) && !meant.contains(key)) {
        let expected = known.get(key).map(schema::expectation).unwrap_or_default();
        out.push(Problem { origin: tree.at.clone(), path: path.key(key), fault: Fault::Missing(format!("expected {expected}")) });
    }
}

fn fits(value: &Value, schema: &Json) -> bool {
    if let Some(choices) = schema::choices(schema) {
        return choices.iter().any(|choice| match (value, choice) {
            (Value::Text(text), Json::String(s)) => text == s,
            (Value::Integer(n), Json::Number(c)) => c.as_i64() == Some(*n),
            (Value::Bool(b), Json::Bool(c)) => b == c,
            _ => false,
        });
    }
    let types = schema::types(schema);
    if types.is_empty() {
        return true;
    }
    let (min, max) = schema::range(schema);
    let within = |n: f64| min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max);
    match value {
        Value::Bool(_) => types.contains(&"boolean"),
        // Configuration holds no number that a double cannot hold.
        Value::Integer(n) => (types.contains(&"integer") || types.contains(&"number")) && within(*n as f64),
        Value::Float(n) => types.contains(&"number") && within(*n),
        Value::Text(text) => types.contains(&"string") && length_fits(text, schema),
        Value::Foreign(_) => false,
        Value::List(_) => types.contains(&"array"),
        Value::Table(_) => types.contains(&"object"),
    }
}

fn length_fits(text: &str, schema: &Json) -> bool {
    let length = text.chars().count() as u64;
    schema["minLength"].as_u64().is_none_or(|min| length >= min) && schema["maxLength"].as_u64().is_none_or(|max| length <= max)
}

/// The problem of a value that is not what the schema expects.
pub fn wrong(tree: &Tree, schema: &Json, path: &Path) -> Problem {
    let mut expected = schema::expectation(schema);
    if let Value::Text(text) = &tree.value
        && !length_fits(text, schema)
    {
        expected += " of ";
        expected += &match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
            (Some(min), Some(max)) => format!("{min} to {max} characters"),
            (Some(min), None) => format!("at least {min} characters"),
            (_, max) => format!("at most {} characters", max.unwrap_or(0)),
        };
    }
    if let (Some(choices), Value::Text(text)) = (schema::choices(schema), &tree.value)
        && let Some(near) = schema::nearest(choices.iter().filter_map(|c| c.as_str()), text)
    {
        let found = format!("{}; did you mean {near:?}?", shown(&tree.value, schema));
        return Problem { origin: tree.at.clone(), path: path.clone(), fault: Fault::Value { expected, found } };
    }
    let found = shown(&tree.value, schema);
    Problem { origin: tree.at.clone(), path: path.clone(), fault: Fault::Value { expected, found } }
}

/// A value for a message: short, and never a secret.
pub fn shown(value: &Value, schema: &Json) -> String {
    match value {
        Value::List(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
        Value::Foreign(name) => (*name).into(),
        Value::Text(_) if schema::is_sensitive(schema) => "a string".into(),
        _ if schema::is_sensitive(schema) => "something that is not a string".into(),
        Value::Text(text) if text.chars().count() > SHOWN_MAX => {
            format!("{:?}…", text.chars().take(SHOWN_MAX).collect::<String>())
        }
        Value::Text(text) => format!("{text:?}"),
        Value::Bool(v) => v.to_string(),
        Value::Integer(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
    }
}
