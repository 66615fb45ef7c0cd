//! [`Tree`]: configuration values with the place each came from, whatever the source.
//!
//! Owns the walk from TOML text to values with line and column. Refuses to know any key: what is allowed is the
//! schema's business.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::Value as Json;
use toml_edit::{Document, Item, TableLike};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file; both count from 1, columns in characters.
    File {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// `--set KEY=…` on the command line, by its key.
    Flag(String),
}

/// One step into a table or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Key of a table.
    Key(String),
    /// Position in a list.
    Index(usize),
}

/// Steps from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// This path and one more key.
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// This path and one more position.
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl From<&str> for Path {
    /// Keys joined by dots, without list positions.
    fn from(keys: &str) -> Self {
        Self(keys.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i > 0 => write!(f, ".{key}")?,
                Step::Key(key) => f.write_str(key)?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction; never NaN or infinite.
    Float(f64),
    /// A string.
    Text(String),
    /// Something no key takes, by its name for messages.
    Foreign(&'static str),
    /// A list, of values or of tables.
    List(Vec<Tree>),
    /// A table.
    Table(BTreeMap<String, Tree>),
}

/// A value and where it and its key stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// The value.
    pub value: Value,
    /// Where the value begins.
    pub at: Origin,
    /// Where its key begins; the same as `at` for elements of lists.
    pub key_at: Origin,
    /// A problem was reported here: later passes see the default instead.
    pub bad: bool,
}

impl Tree {
    /// A value all of whose parts come from one place.
    pub fn new(value: Value, at: Origin) -> Self {
        Self { value, key_at: at.clone(), at, bad: false }
    }

    /// An empty file.
    pub fn empty() -> Self {
        Self::new(Value::Table(BTreeMap::new()), Origin::File { line: 1, column: 1 })
    }

    /// Reads TOML. `Err` is the syntax error's place and words.
    pub fn parse(text: &str) -> Result<Self, (Origin, String)> {
        let lines = Lines::new(text);
        let document = Document::parse(text).map_err(|e| {
            let words = e.message().lines().collect::<Vec<_>>().join(", ");
            (lines.origin(e.span().unwrap_or(0..0)), words)
        })?;
        let start = lines.origin(0..0);
        Ok(lines.table(document.as_table(), &start))
    }

    /// The child a step leads to.
    pub fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get(key),
            (Value::List(list), Step::Index(index)) => list.get(*index),
            _ => None,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get_mut(key),
            (Value::List(list), Step::Index(index)) => list.get_mut(*index),
            _ => None,
        }
    }

    /// The node at `path`, if all of it was written.
    pub fn find(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| node.child(step))
    }

    /// The node at `path`, or its nearest ancestor that was written.
    pub fn nearest(&self, path: &Path) -> &Self {
        let mut node = self;
        for step in &path.0 {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }

    /// Leaves the node at `path`, or its nearest ancestor that was written, out of later passes.
    /// Returns whether anything changed.
    pub fn mark_bad(&mut self, path: &Path) -> bool {
        let mut depth = 0;
        let mut probe = &*self;
        while let Some(child) = path.0.get(depth).and_then(|step| probe.child(step)) {
            probe = child;
            depth += 1;
        }
        let mut node = self;
        for step in &path.0[..depth] {
            match node.child_mut(step) {
                Some(child) => node = child,
                None => return false,
            }
        }
        !std::mem::replace(&mut node.bad, true)
    }

    /// The values as JSON, without what is marked bad.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Bool(v) => Json::from(*v),
            Value::Integer(v) => Json::from(*v),
            Value::Float(v) => Json::from(*v),
            Value::Text(v) => Json::from(v.as_str()),
            Value::Foreign(_) => Json::Null,
            Value::List(list) => list.iter().filter(|t| !t.bad).map(Self::to_json).collect(),
            Value::Table(table) => table.iter().filter(|(_, t)| !t.bad).map(|(k, t)| (k.clone(), t.to_json())).collect(),
        }
    }

    /// Turns a path into the JSON of [`Self::to_json`], where bad elements are missing, into one of this tree.
    pub fn restore(&self, path: &Path) -> Path {
        let mut node = Some(self);
        let steps = path.0.iter().map(|step| {
            let step = match (node.map(|n| &n.value), step) {
                (Some(Value::List(list)), Step::Index(index)) => {
                    let mut good = list.iter().enumerate().filter(|(_, t)| !t.bad).map(|(i, _)| i);
                    Step::Index(good.nth(*index).unwrap_or(*index))
                }
                _ => step.clone(),
            };
            node = node.and_then(|n| n.child(&step));
            step
        });
        Path(steps.collect())
    }
}

/// Turns byte offsets into places.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let at = span.start.min(self.text.len());
        let line = self.starts.partition_point(|&start| start <= at);
        let start = self.starts[line - 1];
        // A span may end inside a character when the text is broken there; count whole characters only.
        let column = self.text.get(start..at).map_or(0, |s| s.chars().count()) + 1;
        Origin::File { line, column }
    }

    fn table(&self, table: &dyn TableLike, at: &Origin) -> Tree {
        let mut entries = BTreeMap::new();
        for (name, item) in table.iter() {
            let key_at = table.key(name).and_then(|key| key.span()).map_or_else(|| at.clone(), |span| self.origin(span));
            let mut tree = self.item(item, &key_at);
            tree.key_at = key_at;
            entries.insert(name.to_owned(), tree);
        }
        Tree::new(Value::Table(entries), at.clone())
    }

    /// `near`: the place to name when the item has none of its own, as tables made by dotted keys have not.
    fn item(&self, item: &Item, near: &Origin) -> Tree {
        let at = item.span().map_or_else(|| near.clone(), |span| self.origin(span));
        match item {
            Item::None => Tree::new(Value::Foreign("nothing"), at),
            Item::Table(table) => self.table(table, &at),
            Item::ArrayOfTables(list) => {
                let tables = list.iter().map(|t| self.table(t, &t.span().map_or_else(|| at.clone(), |s| self.origin(s))));
                Tree::new(Value::List(tables.collect()), at)
            }
            Item::Value(value) => self.value(value, &at),
        }
    }

    fn value(&self, value: &toml_edit::Value, near: &Origin) -> Tree {
        use toml_edit::Value as Toml;
        let at = value.span().map_or_else(|| near.clone(), |span| self.origin(span));
        let value = match value {
            Toml::String(v) => Value::Text(v.value().clone()),
            Toml::Integer(v) => Value::Integer(*v.value()),
            Toml::Float(v) if v.value().is_finite() => Value::Float(*v.value()),
            Toml::Float(_) => Value::Foreign("a number that is not finite"),
            Toml::Boolean(v) => Value::Bool(*v.value()),
            Toml::Datetime(_) => Value::Foreign("a date or time"),
            Toml::Array(list) => Value::List(list.iter().map(|v| self.value(v, &at)).collect()),
            Toml::InlineTable(table) => return self.table(table, &at),
        };
        Tree::new(value, at)
    }
}
