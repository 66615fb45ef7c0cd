//! Configuration: read (TOML, environment, flags), checked (pure, every problem at once), resolved (secret files).
//!
//! Owns: [`Config`] and its documents, which are made from the types. Refuses: to bind, to start, to change anything
//! while a single problem is left.
//!
//! Precedence: default < file < environment < command line.

mod auth;
mod check;
mod docs;
mod hub;
mod network;
mod overlay;
mod problem;
mod pulls;
mod routing;
mod schema;
mod sections;
mod semantic;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

#[cfg(test)]
pub use auth::JwtAlgorithm;
pub use auth::{Auth, Event, Form, Jwt, Webhook, WhenDown};
pub use docs::{example, markdown, schema_text};
pub use network::Network;
pub use overlay::Override;
pub use patchbay_contract::Secret;
pub use problem::{Fault, Problem, Problems};
pub use pulls::Pull;
pub use routing::{Push, Route};
pub use sections::{Api, Http, Limits, Log, LogFormat, Transcode};
use tree::{Step, Tree, Value};

/// Largest file that is read as configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Largest secret read from a file; a set of keys is the longest.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Values one load may refuse in the last pass; each costs one more pass.
const REFUSALS_MAX: usize = 200;

/// Everything that can be configured. An empty file is valid.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The HTTP listener: WHIP, WHEP, HTTP-FLV, WebSocket-FLV, API, metrics and pages.
    pub http: Http,
    /// The HTTP API under `/v1`.
    pub api: Api,
    /// Who may publish, play and use the API.
    pub auth: Auth,
    /// RTMP publishing, playing and pushing; HTTP-FLV and WebSocket-FLV.
    pub rtmp: patchbay_rtmp::Config,
    /// WebRTC publishing (WHIP) and playing (WHEP).
    pub webrtc: patchbay_webrtc::Config,
    /// Playing with jsmpeg over WebSocket, publishing MPEG transport streams.
    pub h5: patchbay_h5::Config,
    /// Decoding and encoding. What is encoded, and at which bit rate, is said by `[[rules]]`.
    pub transcode: Transcode,
    /// Connections that patchbay opens at others' request.
    pub outbound: patchbay_outbound::Config,
    /// Bounds on the whole process.
    pub limits: Limits,
    /// Log lines, on standard error.
    pub log: Log,
    /// What stream names mean: which kind of endpoint they belong to and which keys open them. The first route
    /// whose pattern matches counts.
    #[schemars(length(max = 1000), example = routing::example_routes())]
    pub routes: Vec<Route>,
    /// What is passed through and what is transcoded between which kinds. The first rule that matches counts; they
    /// come before the default table that `patchbay matrix` prints.
    #[schemars(length(max = 1000), example = routing::example_rules())]
    pub rules: Vec<patchbay_rules::Rule>,
    /// Streams that are pushed to other RTMP servers whenever they are live.
    #[schemars(length(max = 200), example = routing::example_pushes())]
    pub pushes: Vec<Push>,
    /// Streams that are fetched from other RTMP servers while somebody plays them.
    #[schemars(length(max = 200), example = pulls::example_pulls())]
    pub pulls: Vec<Pull>,
}

/// Why no configuration came out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read and is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

/// Loads `file` (none: defaults) under the process's environment and `flags`.
pub fn load(file: Option<&Path>, flags: &[Override]) -> Result<Config, LoadError> {
    let (name, text, overrides) = gather(file, flags)?;
    Ok(from_text(&name, &text, &overrides)?)
}

/// The same, of a process that is to be started with `file`: looks into certificates and their keys too.
pub fn check(file: &Path) -> Result<(), LoadError> {
    let (name, text, overrides) = gather(Some(file), &[])?;
    let (config, tree) = read(&name, &text, &overrides)?;
    match semantic::certificates(&config, &tree) {
        none if none.is_empty() => Ok(()),
        problems => Err(Problems::new(&name, problems).into()),
    }
}

/// The name, the text and what overrides it.
fn gather(file: Option<&Path>, flags: &[Override]) -> Result<(String, String, Vec<Override>), LoadError> {
    let text = match file {
        Some(path) => read_bounded(path, FILE_BYTES_MAX).map_err(|source| LoadError::Read { path: path.to_owned(), source })?,
        None => String::new(),
    };
    let mut overrides = Override::from_environment(std::env::vars_os());
    overrides.extend_from_slice(flags);
    let name = file.map_or_else(|| "(no file)".into(), |path| path.display().to_string());
    Ok((name, text, overrides))
}

/// Makes a configuration of `text`, which messages call `name`. Reads the files that `*_file` keys name, nothing else.
pub fn from_text(name: &str, text: &str, overrides: &[Override]) -> Result<Config, Problems> {
    read(name, text, overrides).map(|(config, _)| config)
}

fn read(name: &str, text: &str, overrides: &[Override]) -> Result<(Config, Tree), Problems> {
    let mut problems = Vec::new();
    let mut tree = Tree::parse(text).unwrap_or_else(|(origin, words)| {
        problems.push(Problem { origin, path: Default::default(), fault: Fault::Syntax(words) });
        Tree::empty()
    });
    problems.extend(overlay::apply(&mut tree, overrides));
    let wrong = check::check(&tree, schema::root());
    wrong.iter().for_each(|p| _ = tree.mark_bad(&p.path));
    problems.extend(wrong);
    problems.extend(resolve_secrets(&mut tree, schema::root(), &tree::Path::default()));
    let config = parse_values(&mut tree, &mut problems);
    problems.extend(semantic::check(&config, &tree));
    if problems.is_empty() { Ok((config, tree)) } else { Err(Problems::new(name, problems)) }
}

/// Replaces every `x_file` by an `x` with the file's text.
fn resolve_secrets(tree: &mut Tree, schema: &Json, path: &tree::Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    match &mut tree.value {
        Value::List(list) => {
            let items = schema::items(schema).unwrap_or(&Json::Null);
            for (i, element) in list.iter_mut().enumerate() {
                problems.extend(resolve_secrets(element, items, &path.index(i)));
            }
        }
        Value::Table(entries) => {
            let Some(known) = schema::keys(schema) else { return problems };
            for (key, child) in std::mem::take(entries) {
                let secret = key.strip_suffix(schema::FILE_SUFFIX).filter(|s| known.get(*s).is_some_and(schema::is_secret));
                let at = path.key(&key);
                match (secret, &child.value) {
                    (Some(secret), Value::Text(file)) if !child.bad => match read_bounded(Path::new(file), SECRET_BYTES_MAX) {
                        Ok(text) => {
                            let value = Value::Text(text.trim().to_owned());
                            entries.insert(secret.to_owned(), Tree { value, ..child });
                        }
                        Err(e) => {
                            let fault = Fault::Invalid(format!("{file:?}: {e}"));
                            problems.push(Problem { origin: child.at.clone(), path: at, fault });
                            entries.insert(key, Tree { bad: true, ..child });
                        }
                    },
                    _ => {
                        let mut child = child;
                        if let Some(schema) = known.get(&key) {
                            problems.extend(resolve_secrets(&mut child, schema, &at));
                        }
                        entries.insert(key, child);
                    }
                }
            }
        }
        _ => {}
    }
    problems
}

/// Deserialises what is left. A value its type refuses is reported, left out, and the rest is tried again, so that
/// one load names them all.
fn parse_values(tree: &mut Tree, problems: &mut Vec<Problem>) -> Config {
    for _ in 0..REFUSALS_MAX {
        let error = match serde_path_to_error::deserialize(tree.to_json()) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let path = tree.restore(&steps(error.path()));
        let words = error.inner().to_string();
        let node = tree.nearest(&path);
        // A key that is missing because it was reported and left out is no news.
        if !(words.starts_with("missing field") && has_bad(node)) {
            problems.push(refusal(node, path.clone(), words));
        }
        if !tree.mark_bad(&path) {
            break;
        }
    }
    Config::default()
}

/// The problem of a value whose type refused it with `words`.
fn refusal(node: &Tree, path: tree::Path, words: String) -> Problem {
    let schema = schema::at(&path).unwrap_or(&Json::Null);
    let found = check::shown(&node.value, schema);
    let fault = match &node.value {
        Value::Text(_) if schema["format"].is_string() => Fault::Value { expected: schema::expectation(schema), found },
        Value::Table(_) | Value::List(_) => Fault::Invalid(words),
        _ if schema::is_sensitive(schema) => Fault::Invalid(words),
        _ => Fault::Invalid(format!("{words}, found {found}")),
    };
    Problem { origin: node.at.clone(), path, fault }
}

fn has_bad(tree: &Tree) -> bool {
    matches!(&tree.value, Value::Table(entries) if entries.values().any(|t| t.bad))
}

fn steps(path: &serde_path_to_error::Path) -> tree::Path {
    use serde_path_to_error::Segment;
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    });
    tree::Path(steps.collect())
}

fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)? as u64;
    if read > bytes_max {
        return Err(std::io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}
