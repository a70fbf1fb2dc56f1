//! Keys that nobody asks for, and what was probably meant.

use super::{defines, variable, without_numbers};
use crate::layer::{Item, Value};
use crate::{AGENT_REFERENCE, COLLECTOR_REFERENCE, Place, Problem, SITE_REFERENCE, suggest};

/// The files that there are, for people. Where a key is in several, the first is named.
const FILES: [(&str, &str); 3] = [
    (AGENT_REFERENCE, "agent.toml, the agent's file"),
    (SITE_REFERENCE, "the file of the site at the centre, in the folder that sites.dir of collector.toml names"),
    (COLLECTOR_REFERENCE, "collector.toml, the collector's file"),
];

/// An unknown key; an unknown table from the environment is as many variables as it has keys.
pub(super) fn note(path: String, item: &Item, unknown: &mut Vec<(String, Place)>) {
    match (&item.place, &item.value) {
        (Place::Environment { .. }, Value::Table(tree)) => {
            for (key, item) in tree {
                note(format!("{path}.{key}"), item, unknown);
            }
        }
        _ => unknown.push((path, item.key_place.clone())),
    }
}

/// What is said of an unknown key; `known` are those that were asked for, `reference` explains them.
pub(super) fn refusal(path: &str, place: Place, known: &[String], reference: &str) -> Problem {
    let schema = without_numbers(path);
    let (table, _) = suggest::split(&schema);
    let from_environment = matches!(place, Place::Environment { .. });
    if let Some(owner) = owner(&schema, reference) {
        let fix = format!("write it in {owner}, where {schema} is known");
        return Problem { place, key: Some(path.to_owned()), value: None, what: "no such key".to_owned(), fix };
    }
    let hint = match suggest::nearest(&schema, known) {
        Some(near) if from_environment => format!("did you mean {}?", variable(near)),
        Some(near) if suggest::split(near).0 == table => format!("did you mean \"{}\"?", suggest::split(near).1),
        Some(near) => format!("did you mean \"{near}\"?"),
        None => String::new(),
    };
    let siblings = known.iter().map(|path| suggest::split(path)).filter(|(parent, _)| *parent == table);
    let keys: Vec<&str> = siblings.map(|(_, key)| key).collect();
    let of = if table.is_empty() { "at the top".to_owned() } else { format!("of [{table}]") };
    let list = match keys.as_slice() {
        [] => String::new(),
        [only] => format!("the only key {of} is {only}"),
        _ => format!("the keys {of} are {}", keys.join(", ")),
    };
    let fix = match (hint.as_str(), list.as_str()) {
        ("", "") => "leave it out".to_owned(),
        (hint, list) => format!("{hint} {list}").trim().to_owned(),
    };
    Problem { place, key: Some(path.to_owned()), value: None, what: "no such key".to_owned(), fix }
}

/// The file that has this key, where it is not the one that `reference` explains.
fn owner(path: &str, reference: &str) -> Option<&'static str> {
    let other = FILES.iter().find(|(text, _)| *text != reference && defines(text, path));
    other.map(|(_, name)| *name)
}
