//! [`Problem`]: what is wrong with a configuration, where, and what would be right; [`Problems`]: all of them.

use std::fmt;

use super::tree::{Origin, Path};

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// No such key; the hint may be empty.
    #[error("unknown key{0}")]
    Unknown(String),
    /// A key that must be given is not.
    #[error("missing; {0}")]
    Missing(String),
    /// Wrong type, number out of range, value not among those allowed.
    #[error("expected {expected}, found {found}")]
    Value {
        /// What is allowed.
        expected: String,
        /// What was written; secrets only by type.
        found: String,
    },
    /// The value has the right type, but does not parse, contradicts another or cannot be read.
    #[error("{0}")]
    Invalid(String),
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// Which key; empty for syntax errors.
    pub path: Path,
    /// What is wrong.
    pub fault: Fault,
}

/// Every problem of a configuration, in the order of the file, then environment, then flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// Name of the file, for messages.
    pub file: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    /// In the order people read them.
    pub fn new(file: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self { file: file.to_owned(), list }
    }
}

impl fmt::Display for Problems {
    /// One line each, as compilers write them, and a closing line with the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            match &problem.origin {
                Origin::File { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
                Origin::Environment(name) => write!(f, "environment {name}: ")?,
                Origin::Flag(key) => write!(f, "--set {key}: ")?,
            }
            if !problem.path.0.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            writeln!(f, "{}", problem.fault)?;
        }
        match self.list.len() {
            1 => write!(f, "1 problem; nothing was changed."),
            n => write!(f, "{n} problems; nothing was changed."),
        }
    }
}

impl std::error::Error for Problems {}
