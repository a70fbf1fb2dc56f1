//! Takes values out of the tree, table by table, and collects every problem on the way.
//!
//! A table knows the keys it was asked for; what else it holds is unknown to us and refused when the table is done. Every `Err(Reported)`
//! means that a problem has been noted: a caller reads all keys of its table first and uses `?` afterwards, so that one run finds all.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::layer::{Item, Layer, Tree, Value};
use crate::parse::{self, Flaw};
use crate::{Place, Problem, Secret, suggest};

pub(crate) mod files;
mod unknown;

/// A problem has been noted; there is nothing more to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported;

/// What one run over a configuration finds.
#[derive(Debug)]
pub(crate) struct Reader {
    file: PathBuf,
    reference: &'static str,
    notes: RefCell<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Paths of the keys asked for, without the numbers of list elements.
    known: Vec<String>,
    /// Paths of the keys that nobody asked for, and their places.
    unknown: Vec<(String, Place)>,
}

/// One table, and the path to it.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    reader: &'a Reader,
    tree: &'a Tree,
    path: String,
    /// The place of this table in its list, if it is in one.
    element_of: Option<Place>,
    asked: RefCell<BTreeSet<String>>,
    secrets: RefCell<Vec<String>>,
}

/// A value that was found, and the name to blame it by: `key`, or `key_file (path)`.
struct Found<'a> {
    item: Cow<'a, Item>,
    label: String,
    /// Whether the value must not be shown.
    hidden: bool,
}

/// A key `key_file` names a file with the value of `key`.
const FILE_SUFFIX: &str = "_file";

impl Reader {
    /// For the configuration in `file`; `reference` gives examples for what is missing.
    pub(crate) fn new(file: &Path, reference: &'static str) -> Self {
        Self { file: file.to_owned(), reference, notes: RefCell::default() }
    }

    /// Reads the whole tree.
    pub(crate) fn read<T>(&self, tree: &Tree, read: impl FnOnce(&Table<'_>) -> Result<T, Reported>) -> Result<T, Reported> {
        Table::new(self, tree, String::new()).finish(read)
    }

    /// Notes a problem that is about no value of the tree.
    pub(crate) fn problem(&self, problem: Problem) {
        self.notes.borrow_mut().problems.push(problem);
    }

    /// Notes something odd.
    pub(crate) fn warning(&self, warning: Problem) {
        self.notes.borrow_mut().warnings.push(warning);
    }

    /// The problems and the warnings, each in the order of their places.
    pub(crate) fn into_findings(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut notes = self.notes.into_inner();
        let unknown = std::mem::take(&mut notes.unknown);
        let refused = unknown.into_iter().map(|(path, place)| unknown::refusal(&path, place, &notes.known, self.reference));
        notes.problems.extend(refused);
        notes.problems.sort_by_key(|problem| order(&problem.place));
        notes.warnings.sort_by_key(|warning| order(&warning.place));
        (notes.problems, notes.warnings)
    }

    /// The paths of all keys asked for.
    #[cfg(test)]
    pub(crate) fn known(&self) -> Vec<String> {
        self.notes.borrow().known.clone()
    }

    /// The folder that paths are relative to.
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new(""))
    }
}

impl<'a> Table<'a> {
    fn new(reader: &'a Reader, tree: &'a Tree, path: String) -> Self {
        Self { reader, tree, path, element_of: None, asked: RefCell::default(), secrets: RefCell::default() }
    }

    /// A key that is always set, by the reference file if by nobody else, or must be set by the user.
    pub(crate) fn required<T>(&self, key: &str, parse: impl FnOnce(&Item) -> Result<T, Flaw>) -> Result<T, Reported> {
        match self.optional(key, parse)? {
            Some(value) => Ok(value),
            None => Err(self.missing(key, "required, but not set")),
        }
    }

    /// A key that need not be set.
    pub(crate) fn optional<T>(&self, key: &str, parse: impl FnOnce(&Item) -> Result<T, Flaw>) -> Result<Option<T>, Reported> {
        let Some(found) = self.find(key)? else { return Ok(None) };
        parse(&found.item).map(Some).map_err(|flaw| self.refuse(&found, flaw))
    }

    /// A secret that need not be set. Nothing about it is ever printed.
    pub(crate) fn secret(&self, key: &str) -> Result<Option<Secret>, Reported> {
        self.secrets.borrow_mut().push(key.to_owned());
        let Some(found) = self.find(key)? else { return Ok(None) };
        if found.item.layer == Layer::File && found.label == key {
            self.warn_if_open(&found, &self.reader.file);
        }
        parse::text(&found.item).map(|text| Some(Secret::new(text))).map_err(|flaw| self.refuse(&found, flaw))
    }

    /// A list of at most `most` elements.
    pub(crate) fn list<T>(&self, key: &str, most: usize, parse: impl Fn(&Item) -> Result<T, Flaw>) -> Result<Vec<T>, Reported> {
        self.list_of(key, most, |item, label| parse(item).map_err(|flaw| self.refuse(&Found::shown(item, &label), flaw)))
    }

    /// A list of at most `most` tables, `[[key]]` in the file.
    pub(crate) fn tables<T>(&self, key: &str, most: usize, read: impl Fn(&Table<'_>) -> Result<T, Reported>) -> Result<Vec<T>, Reported> {
        self.list_of(key, most, |item, label| match &item.value {
            Value::Table(tree) => {
                let table = Table::new(self.reader, tree, self.path_of(&label));
                Table { element_of: Some(item.place.clone()), ..table }.finish(&read)
            }
            other => {
                let fix = match other {
                    Value::Untyped(_) => "write a list of tables: [{key = '…'}, {key = '…'}]".to_owned(),
                    _ => format!("write [[{}]] with its keys below", self.path_of(key)),
                };
                let flaw = Flaw::new(format!("must be a table, not {}", other.noun()), fix);
                Err(self.refuse(&Found::shown(item, &label), flaw))
            }
        })
    }

    /// A table; an empty one where it is not there.
    pub(crate) fn table<T>(&self, key: &str, read: impl FnOnce(&Table<'_>) -> Result<T, Reported>) -> Result<T, Reported> {
        static EMPTY: Tree = Tree::new();
        self.ask(key);
        let tree = match self.tree.get(key) {
            None => &EMPTY,
            Some(Item { value: Value::Table(tree), .. }) => tree,
            Some(item) => {
                let path = self.path_of(key);
                let fix = match &item.place {
                    Place::Environment { .. } => format!("set its keys one by one, {}__…", variable(&path)),
                    _ => format!("write [{path}] with its keys below"),
                };
                let flaw = Flaw::new(format!("must be a table, not {}", item.value.noun()), fix);
                return Err(self.refuse(&Found::shown(item, key), flaw));
            }
        };
        Table::new(self.reader, tree, self.path_of(key)).finish(read)
    }

    /// All items, for a table whose keys are not ours to know. Nothing in it counts as unknown any more.
    pub(crate) fn everything(&self) -> &'a Tree {
        self.asked.borrow_mut().extend(self.tree.keys().cloned());
        self.tree
    }

    /// The content of the value file that an item of [`Table::everything`] names. It is treated as a secret.
    pub(crate) fn content_of(&self, label: &str, named: &Item) -> Result<Item, Reported> {
        self.read_value_file(true, &Found::shown(named, label)).map(|found| found.item.into_owned())
    }

    /// Refuses an item of [`Table::everything`].
    pub(crate) fn refuse_item(&self, label: &str, item: &Item, hidden: bool, flaw: Flaw) -> Reported {
        self.refuse(&Found { hidden, ..Found::shown(item, label) }, flaw)
    }

    /// Refuses the value of a key that can be read, but does not fit with others; `flaw` says why.
    pub(crate) fn contradiction(&self, key: &str, flaw: Flaw) -> Reported {
        match self.find(key) {
            Ok(Some(found)) => self.refuse(&found, flaw),
            Ok(None) => self.missing(key, &flaw.what),
            Err(reported) => reported,
        }
    }

    /// Notes that a key, if it is set, is odd; `flaw` says why.
    pub(crate) fn odd(&self, key: &str, flaw: Flaw) {
        if let Ok(Some(found)) = self.find(key) {
            self.reader.warning(self.note(&found, flaw));
        }
    }

    /// Which of two keys that contradict each other to blame: the one in the stronger layer, or the first.
    pub(crate) fn stronger<'k>(&self, first: &'k str, second: &'k str) -> &'k str {
        let layer = |key: &str| {
            let named = format!("{key}{FILE_SUFFIX}");
            self.tree.get(key).map(|item| item.layer).max(self.tree.get(&named).map(|item| item.layer))
        };
        if layer(second) > layer(first) { second } else { first }
    }

    /// Refuses the absence of a key; `what` says why it is needed.
    pub(crate) fn missing(&self, key: &str, what: &str) -> Reported {
        let path = self.path_of(key);
        let schema = without_numbers(&path);
        let (table, _) = suggest::split(&schema);
        let example = example(self.reader.reference, &schema).unwrap_or_else(|| format!("{key} = …"));
        let (place, fix) = match &self.element_of {
            Some(place) => (place.clone(), format!("write for example {example} below [[{table}]]")),
            None => {
                let above = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
                let fix = format!("write for example {example} {above}, or set {}", variable(&path));
                (Place::File { path: self.reader.file.clone(), at: None }, fix)
            }
        };
        self.reader.problem(Problem { place, key: Some(path), value: None, what: what.to_owned(), fix });
        Reported
    }

    fn finish<T>(self, read: impl FnOnce(&Self) -> Result<T, Reported>) -> Result<T, Reported> {
        let result = read(&self);
        let asked = self.asked.borrow();
        let is_asked = |key: &str| asked.contains(key);
        for (key, item) in self.tree {
            if !is_asked(key) && !key.strip_suffix(FILE_SUFFIX).is_some_and(is_asked) {
                unknown::note(self.path_of(key), item, &mut self.reader.notes.borrow_mut().unknown);
            }
        }
        result
    }

    fn list_of<T>(&self, key: &str, most: usize, read: impl Fn(&Item, String) -> Result<T, Reported>) -> Result<Vec<T>, Reported> {
        let Some(found) = self.find(key)? else { return Ok(Vec::new()) };
        let items = parse::elements(&found.item).map_err(|flaw| self.refuse(&found, flaw))?;
        if items.len() > most {
            let flaw = Flaw::new(format!("{} elements, {most} are allowed", items.len()), "join some of them");
            return Err(self.refuse(&found, flaw));
        }
        // All elements are read before the first flaw counts.
        let label = |index| format!("{}[{index}]", found.label);
        let read: Vec<_> = items.iter().enumerate().map(|(index, item)| read(item, label(index))).collect();
        read.into_iter().collect()
    }

    /// The item of a key, or of the file that `key_file` names, whichever is in the stronger layer.
    fn find(&self, key: &str) -> Result<Option<Found<'a>>, Reported> {
        self.ask(key);
        let file_key = format!("{key}{FILE_SUFFIX}");
        match (self.tree.get(key), self.tree.get(&file_key)) {
            (Some(item), Some(named)) if item.layer == named.layer => {
                let flaw = Flaw::new(format!("set together with {key}"), "keep one of the two");
                Err(self.refuse(&Found::shown(named, &file_key), flaw))
            }
            (item, Some(named)) if item.is_none_or(|item| item.layer < named.layer) => {
                self.read_value_file(self.is_secret(key), &Found::shown(named, &file_key)).map(Some)
            }
            (Some(item), _) => Ok(Some(Found { hidden: self.is_secret(key), ..Found::shown(item, key) })),
            (None, _) => Ok(None),
        }
    }

    fn read_value_file(&self, hidden: bool, named: &Found<'_>) -> Result<Found<'a>, Reported> {
        let name = parse::text(&named.item).map_err(|flaw| self.refuse(named, flaw))?;
        let path = self.reader.folder().join(&name);
        let text = files::read_value(&path).map_err(|flaw| self.refuse(named, flaw))?;
        if hidden {
            self.warn_if_open(named, &path);
        }
        let item = Item { value: Value::Untyped(text), ..named.item.clone().into_owned() };
        Ok(Found { item: Cow::Owned(item), label: format!("{} ({name})", named.label), hidden })
    }

    fn refuse(&self, found: &Found<'_>, flaw: Flaw) -> Reported {
        self.reader.problem(self.note(found, flaw));
        Reported
    }

    fn note(&self, found: &Found<'_>, flaw: Flaw) -> Problem {
        let value = (!found.hidden).then(|| found.item.value.shown());
        let key = Some(self.path_of(&found.label));
        Problem { place: found.item.place.clone(), key, value, what: flaw.what, fix: flaw.fix }
    }

    fn is_secret(&self, key: &str) -> bool {
        self.secrets.borrow().iter().any(|secret| secret == key)
    }

    fn ask(&self, key: &str) {
        self.asked.borrow_mut().insert(key.to_owned());
        let path = without_numbers(&self.path_of(key));
        let mut notes = self.reader.notes.borrow_mut();
        if !notes.known.contains(&path) {
            notes.known.push(path);
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<'a> Found<'a> {
    fn shown(item: &'a Item, label: &str) -> Self {
        Self { item: Cow::Borrowed(item), label: label.to_owned(), hidden: false }
    }
}

/// The variable that sets a key.
fn variable(path: &str) -> String {
    format!("SPILLWAY_{}", path.replace('.', "__").to_uppercase())
}

/// The path of a key without the numbers of list elements: `topics.rule[2].match` is `topics.rule.match`.
fn without_numbers(path: &str) -> String {
    path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// Whether a line sets a key, or the file with its value.
fn sets(line: &str, key: &str) -> bool {
    let rest = line.strip_prefix(key).map(|rest| rest.strip_prefix(FILE_SUFFIX).unwrap_or(rest));
    rest.is_some_and(|rest| rest.starts_with(" = "))
}

/// The line of the reference that sets a key as an example: `#site = "plant-7"`.
fn example(reference: &str, path: &str) -> Option<String> {
    let (table, key) = suggest::split(path);
    let mut current = "";
    for line in reference.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            current = header.trim_start_matches('[').split(']').next().unwrap_or_default();
        } else if current == table && sets(line, key) {
            return Some(line.to_owned());
        }
    }
    None
}

/// Whether the reference has this key, set or as an example, or this table.
fn defines(reference: &str, path: &str) -> bool {
    let header = |line: &str| line.trim_start_matches('#').strip_prefix('[').is_some_and(|rest| rest.trim_matches(['[', ']']) == path);
    example(reference, path).is_some() || reference.lines().any(header)
}

/// What is missing comes first, then line by line, then the environment.
fn order(place: &Place) -> (u8, (usize, usize)) {
    match place {
        Place::File { at, .. } => (0, at.unwrap_or_default()),
        Place::Environment { .. } => (1, (0, 0)),
        Place::Reference { at, .. } => (2, at.unwrap_or_default()),
    }
}
