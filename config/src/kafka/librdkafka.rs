//! `[kafka.librdkafka]`: settings of librdkafka 2.12 that are passed on as they are, and those that are not.
//!
//! Every setting of `CONFIGURATION.md` of that version is in one of the two tables, but for callbacks, internals and what it calls
//! deprecated. Those are refused like names that do not exist.

use std::collections::BTreeMap;
use std::fmt;

use crate::layer::{Item, Layer, Tree, Value};
use crate::parse::Flaw;
use crate::reader::{Reported, Table};
use crate::secret::REDACTED;
use crate::suggest;

mod tables;

use tables::{OWNED, PASSED};

/// Settings for librdkafka by name. `Debug` hides the values of those that look like secrets.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Librdkafka(BTreeMap<String, String>);

/// Which program's clients a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Collector,
    Both,
}

/// A value on its way.
struct Candidate<'a> {
    /// The name it was written under, for messages.
    label: String,
    item: &'a Item,
    /// Whether the item names a file with the value.
    is_file: bool,
}

impl Librdkafka {
    /// Names and values, to be set before Spillway's own settings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a setting, if it is passed on.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether nothing is passed on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn read(table: &Table<'_>, side: Side) -> Result<Self, Reported> {
        let mut candidates = BTreeMap::new();
        let mut result = collect(table, table.everything(), "", &mut candidates);
        let mut passed = BTreeMap::new();
        for (name, candidate) in candidates {
            match candidate.value(table, &name, side) {
                Ok(value) => {
                    passed.insert(name, value);
                }
                Err(reported) => result = Err(reported),
            }
        }
        result.map(|()| Self(passed))
    }
}

impl Candidate<'_> {
    fn value(&self, table: &Table<'_>, name: &str, side: Side) -> Result<String, Reported> {
        let refuse = |flaw| self.refuse(table, name, flaw);
        permitted(name, side).map_err(refuse)?;
        if self.is_file {
            let content = table.content_of(&self.label, self.item)?;
            plain(&content.value).map_err(refuse)
        } else {
            plain(&self.item.value).map_err(refuse)
        }
    }

    fn refuse(&self, table: &Table<'_>, name: &str, flaw: Flaw) -> Reported {
        table.refuse_item(&self.label, self.item, is_secret(name) && !self.is_file, flaw)
    }
}

impl fmt::Debug for Librdkafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, if is_secret(name) { REDACTED } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

/// Flattens the table. `socket.timeout.ms = 1` is three tables deep for TOML, `"socket.timeout.ms" = 1` none, and both mean the same; in the
/// name of a variable `_` stands for the dot. The stronger layer wins.
fn collect<'a>(table: &Table<'_>, tree: &'a Tree, above: &str, candidates: &mut BTreeMap<String, Candidate<'a>>) -> Result<(), Reported> {
    let mut result = Ok(());
    for (key, item) in tree {
        let label = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        if let Value::Table(deeper) = &item.value {
            result = collect(table, deeper, &label, candidates).and(result);
            continue;
        }
        let name = label.strip_suffix("_file");
        let is_file = name.is_some();
        let name = name.unwrap_or(&label);
        let name = if item.layer == Layer::Environment { name.replace('_', ".") } else { name.to_owned() };
        let candidate = Candidate { label, item, is_file };
        match candidates.get(&name) {
            Some(other) if other.item.layer == item.layer => {
                let what = match &other.label {
                    same if *same == candidate.label => "set twice, as a key with dots and as tables".to_owned(),
                    other => format!("set together with {other}"),
                };
                result = Err(candidate.refuse(table, &name, Flaw::new(what, "keep one of the two")));
            }
            Some(other) if other.item.layer > item.layer => {}
            _ => {
                candidates.insert(name, candidate);
            }
        }
    }
    result
}

/// Whether a setting may be passed on.
fn permitted(name: &str, side: Side) -> Result<(), Flaw> {
    let concerns = |of: Side| of == side || of == Side::Both;
    let covers = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    if let Some(owned) = OWNED.iter().find(|owned| concerns(owned.side) && owned.names.iter().any(|name| covers(name))) {
        return Err(Flaw::new(format!("not yours to set: {}", owned.reason), owned.fix));
    }
    let mine = PASSED.iter().filter(|(of, _)| concerns(*of)).flat_map(|(_, names)| *names);
    if mine.clone().any(|passed| *passed == name) {
        return Ok(());
    }
    let others = PASSED.iter().map(|(_, names)| names).chain(OWNED.iter().map(|owned| &owned.names));
    if others.flat_map(|names| *names).any(|other| covers(other)) {
        let (what, whose) = match side {
            Side::Collector => ("a setting of consumers, and the collector produces", "agent"),
            Side::Agent | Side::Both => ("a setting of producers, and the agent consumes", "collector"),
        };
        return Err(Flaw::new(what, format!("leave it out; it has its place in the {whose}'s configuration")));
    }
    let hint = match suggest::closest(name, mine.map(|passed| (*passed, *passed))) {
        Some(near) => format!("did you mean \"{near}\"? "),
        None => String::new(),
    };
    let fix = format!("{hint}see librdkafka's CONFIGURATION.md; callbacks and deprecated settings cannot be set here");
    Err(Flaw::new("not a setting of librdkafka 2.12", fix))
}

/// The value as librdkafka wants it: as text.
fn plain(value: &Value) -> Result<String, Flaw> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(Flaw::new(
            format!("must be a text, a whole number or a truth value, not {}", other.noun()),
            "write it in quotes, as librdkafka's CONFIGURATION.md has it",
        )),
    }
}

/// Whether a setting's name says that its value is not for everybody's eyes.
fn is_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "token", "credential", "key", "pem"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_setting_that_is_passed_on_is_documented() {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
        for (side, names) in PASSED {
            let program = format!("| {} |", format!("{side:?}").to_lowercase());
            let row = docs.lines().find(|line| line.starts_with(&program)).unwrap();
            let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            assert_eq!(quoted, *names, "{program}");
        }
    }

    #[test]
    fn nothing_is_both_owned_and_passed_on() {
        for (side, names) in PASSED {
            let sides = if *side == Side::Both { vec![Side::Agent, Side::Collector] } else { vec![*side] };
            for (side, name) in sides.iter().flat_map(|side| names.iter().map(move |name| (*side, *name))) {
                assert_eq!(permitted(name, side), Ok(()), "{name}");
            }
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden() {
        let settings = [("client.rack", "x"), ("ssl.keystore.password", "hunter2"), ("sasl.oauthbearer.client.secret", "hunter2")];
        let settings = Librdkafka(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(
            format!("{settings:?}"),
            r#"{"client.rack": "x", "sasl.oauthbearer.client.secret": "***", "ssl.keystore.password": "***"}"#
        );
    }
}
