//! Overrides: environment variables and `--set KEY=VALUE`, laid over the values of the file.
//!
//! Owns the way from `PATCHBAY__RTMP__LISTEN` to `rtmp.listen` and from text to a typed value. A variable with the
//! prefix that leads nowhere is a problem like any other.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value as Json;

use super::problem::{Fault, Problem};
use super::schema;
use super::tree::{Origin, Path, Step, Tree, Value};

/// Begins every environment variable that is an override. Two underscores stand for a dot.
pub const PREFIX: &str = "PATCHBAY__";

/// One override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it was given.
    pub origin: Origin,
    /// Keys, and positions in lists, from the root.
    pub keys: Vec<String>,
    /// The text given; `None` if it was not UTF-8.
    pub text: Option<String>,
}

impl Override {
    /// `rtmp.listen` = `text`, from the command line.
    pub fn flag(key: &str, text: impl Into<String>) -> Self {
        let keys = key.split('.').map(str::to_owned).collect();
        Self { origin: Origin::Flag(key.to_owned()), keys, text: Some(text.into()) }
    }

    /// The overrides among environment variables.
    pub fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<Self> {
        let found = variables.filter_map(|(name, text)| {
            let name = name.into_string().ok()?;
            let keys = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some(Self { origin: Origin::Environment(name), keys, text: text.into_string().ok() })
        });
        let mut found: Vec<Self> = found.collect();
        found.sort_by(|a, b| a.origin.cmp(&b.origin));
        found
    }
}

/// Lays `overrides` over `tree`, later ones winning.
pub fn apply(tree: &mut Tree, overrides: &[Override]) -> Vec<Problem> {
    let schema = schema::root();
    let mut problems = Vec::new();
    for over in overrides {
        // A failed override must leave nothing half made behind.
        let mut attempt = tree.clone();
        match place(&mut attempt, schema, over, &mut Path::default(), &over.keys) {
            Ok(()) => *tree = attempt,
            Err((path, fault)) => problems.push(Problem { origin: over.origin.clone(), path, fault }),
        }
    }
    problems
}

fn place(tree: &mut Tree, schema: &Json, over: &Override, path: &mut Path, keys: &[String]) -> Result<(), (Path, Fault)> {
    let Some((key, rest)) = keys.split_first() else {
        let text = over.text.as_ref().ok_or_else(|| (path.clone(), Fault::Invalid("the value is not UTF-8".into())))?;
        if schema::keys(schema).is_some() {
            return Err((path.clone(), Fault::Invalid("is a table; set one of its keys".into())));
        }
        *tree = typed(text, schema, &over.origin);
        return Ok(());
    };
    if let Some(known) = schema::keys(schema) {
        let below = known.get(key).ok_or_else(|| (path.key(key), Fault::Unknown(schema::hint(schema, key))))?;
        path.0.push(Step::Key(key.clone()));
        // The file has something else there, which the check reports.
        let Value::Table(entries) = &mut tree.value else { return Ok(()) };
        if rest.is_empty() {
            drop_other_form(entries, known, key);
        }
        let child = entries.entry(key.clone()).or_insert_with(|| blank(below, &over.origin));
        return place(child, below, over, path, rest);
    }
    if let (Some(below), Ok(index)) = (schema::items(schema), key.parse::<usize>()) {
        path.0.push(Step::Index(index));
        let Value::List(list) = &mut tree.value else { return Ok(()) };
        if index > list.len() {
            let fault = Fault::Invalid(format!("the list has {} elements; the next is {}", list.len(), list.len()));
            return Err((path.clone(), fault));
        }
        if index == list.len() {
            list.push(blank(below, &over.origin));
        }
        return place(&mut list[index], below, over, path, rest);
    }
    let known = if schema::items(schema).is_some() { "; a list wants a position here, from 0" } else { "; it has no keys" };
    Err((path.key(key), Fault::Unknown(known.into())))
}

/// A secret given here replaces its `_file` of a weaker source, and the other way round.
fn drop_other_form(entries: &mut BTreeMap<String, Tree>, known: &serde_json::Map<String, Json>, key: &str) {
    let secret = key.strip_suffix(schema::FILE_SUFFIX).unwrap_or(key);
    if known.get(secret).is_some_and(schema::is_secret) {
        let other = if secret == key { format!("{key}{}", schema::FILE_SUFFIX) } else { secret.to_owned() };
        if entries.get(&other).is_some_and(|tree| matches!(tree.at, Origin::File { .. })) {
            entries.remove(&other);
        }
    }
}

fn blank(schema: &Json, origin: &Origin) -> Tree {
    let value = if schema::keys(schema).is_some() {
        Value::Table(BTreeMap::new())
    } else if schema::items(schema).is_some() {
        Value::List(Vec::new())
    } else {
        Value::Foreign("nothing")
    };
    Tree::new(value, origin.clone())
}

/// Reads `text` as the type the schema wants. What does not parse stays text, for the check to report.
fn typed(text: &str, schema: &Json, origin: &Origin) -> Tree {
    let types = schema::types(schema);
    let trimmed = text.trim();
    let value = if let (Some(items), true) = (schema::items(schema), types.contains(&"array")) {
        let parts = trimmed.split(',').map(str::trim).filter(|part| !part.is_empty());
        Value::List(parts.map(|part| typed(part, items, origin)).collect())
    } else {
        let integer = types.contains(&"integer").then(|| trimmed.parse().ok()).flatten().map(Value::Integer);
        let number = || types.contains(&"number").then(|| trimmed.parse::<f64>().ok()).flatten().filter(|n| n.is_finite());
        let boolean = || types.contains(&"boolean").then(|| trimmed.parse().ok()).flatten().map(Value::Bool);
        integer.or_else(|| number().map(Value::Float)).or_else(boolean).unwrap_or_else(|| Value::Text(text.to_owned()))
    };
    Tree::new(value, origin.clone())
}
