//! Layers: a TOML text or the environment becomes a tree in which every value knows where it came from; trees are laid over each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml_edit::{Document, TableLike};

use crate::{Place, Problem};

pub(crate) mod environment;

/// Layers, the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// The reference file in the binary.
    Reference,
    /// The user's file.
    File,
    /// Variables `SPILLWAY_…`.
    Environment,
}

/// A table: items by key.
pub(crate) type Tree = BTreeMap<String, Item>;

/// A value, where it was written, and in which layer.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) value: Value,
    pub(crate) place: Place,
    pub(crate) key_place: Place,
    pub(crate) layer: Layer,
}

/// A value as written; [`crate::parse`] makes something of it.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Item>),
    Table(Tree),
    /// From a variable or a value file, which have no types: whoever reads it decides what it is.
    Untyped(String),
}

/// A text, and where its lines begin.
pub(crate) struct Source<'a> {
    origin: Origin,
    text: &'a str,
    line_starts: Vec<usize>,
}

/// What a text came from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Reference(&'static str),
    File(PathBuf),
    Variable(String),
}

/// Lays `upper` over `lower`: tables are merged, anything else is replaced.
pub(crate) fn overlay(lower: &mut Tree, upper: Tree) {
    for (key, item) in upper {
        match (lower.get_mut(&key), item) {
            (Some(Item { value: Value::Table(below), .. }), Item { value: Value::Table(above), .. }) => {
                overlay(below, above);
            }
            (_, item) => {
                lower.insert(key, item);
            }
        }
    }
}

/// Reads a TOML text. Only the first error of a text that is not TOML is found: what follows it would be guesswork.
pub(crate) fn parse_toml(source: &Source<'_>) -> Result<Tree, Box<Problem>> {
    match Document::parse(source.text) {
        Ok(document) => Ok(source.tree(document.as_table())),
        Err(error) => Err(Box::new(Problem {
            place: source.place(error.span().map(|span| span.start)),
            key: None,
            value: None,
            // Only the message: the snippet that the error also has may show a secret.
            what: format!("not TOML: {}", error.message().replace('\n', ", ")),
            fix: "correct this line; the rest was not looked at".to_owned(),
        })),
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(origin: Origin, text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { origin, text, line_starts }
    }

    /// The place of a byte of the text, or of the text as a whole.
    pub(crate) fn place(&self, byte: Option<usize>) -> Place {
        let at = byte.map(|byte| self.line_and_column(byte));
        match &self.origin {
            Origin::Reference(name) => Place::Reference { name, at },
            Origin::File(path) => Place::File { path: path.clone(), at },
            Origin::Variable(variable) => Place::Environment { variable: variable.clone() },
        }
    }

    fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index)).copied().unwrap_or_default();
        let column = self.text.get(start..byte).map_or(0, |before| before.chars().count()) + 1;
        (line, column)
    }

    fn layer(&self) -> Layer {
        match self.origin {
            Origin::Reference(_) => Layer::Reference,
            Origin::File(_) => Layer::File,
            Origin::Variable(_) => Layer::Environment,
        }
    }

    fn tree(&self, table: &dyn TableLike) -> Tree {
        let mut tree = Tree::new();
        for (name, toml) in table.iter() {
            let key_start = table.key(name).and_then(toml_edit::Key::span).map(|span| span.start);
            if let Some(item) = self.item(toml, key_start) {
                tree.insert(name.to_owned(), item);
            }
        }
        tree
    }

    fn item(&self, toml: &toml_edit::Item, key_start: Option<usize>) -> Option<Item> {
        let value = match toml {
            toml_edit::Item::None => return None,
            toml_edit::Item::Value(value) => self.value(value),
            toml_edit::Item::Table(table) => Value::Table(self.tree(table)),
            toml_edit::Item::ArrayOfTables(tables) => {
                let element =
                    |table: &toml_edit::Table| self.with_place(Value::Table(self.tree(table)), table.span().map(|span| span.start));
                Value::List(tables.iter().map(element).collect())
            }
        };
        let value_start = toml.span().map(|span| span.start).or(key_start);
        let item = self.with_place(value, value_start);
        Some(Item { key_place: self.place(key_start.or(value_start)), ..item })
    }

    fn value(&self, value: &toml_edit::Value) -> Value {
        match value {
            toml_edit::Value::String(text) => Value::Text(text.value().clone()),
            toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
            toml_edit::Value::Float(number) => Value::Float(*number.value()),
            toml_edit::Value::Boolean(flag) => Value::Boolean(*flag.value()),
            toml_edit::Value::Datetime(time) => Value::Datetime(time.value().to_string()),
            toml_edit::Value::InlineTable(table) => Value::Table(self.tree(table)),
            toml_edit::Value::Array(array) => {
                let element = |value: &toml_edit::Value| self.with_place(self.value(value), value.span().map(|span| span.start));
                Value::List(array.iter().map(element).collect())
            }
        }
    }

    fn with_place(&self, value: Value, start: Option<usize>) -> Item {
        let place = self.place(start);
        Item { value, key_place: place.clone(), place, layer: self.layer() }
    }
}

impl Value {
    /// The value as TOML, shortened, for messages.
    pub(crate) fn shown(&self) -> String {
        let whole = self.toml();
        match whole.char_indices().nth(MAX_SHOWN_CHARS) {
            Some((cut, _)) => format!("{}…", whole.get(..cut).unwrap_or_default()),
            None => whole,
        }
    }

    /// What it is, for "must be a text, not …".
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "a text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Boolean(_) => "a truth value",
            Self::Datetime(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    fn toml(&self) -> String {
        match self {
            Self::Text(text) | Self::Untyped(text) => toml_edit::Value::from(text.as_str()).to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Boolean(flag) => flag.to_string(),
            Self::Datetime(time) => time.clone(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.value.toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(_) => "{…}".to_owned(),
        }
    }
}

/// Longest value that a message shows: about a line.
const MAX_SHOWN_CHARS: usize = 80;
