//! `docs/configuration.md` has every key with the default that the reference file sets, and no key that does not exist.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use spillway_config::{AGENT_REFERENCE, COLLECTOR_REFERENCE, SITE_REFERENCE};

/// Settings that are called `…_file` themselves.
const CALLED_FILE: [&str; 1] = ["spill.key_file"];

/// Keys of a reference file with their defaults; `None` for examples.
fn keys_of(reference: &str) -> BTreeMap<String, Option<String>> {
    let mut keys = BTreeMap::new();
    let mut table = String::new();
    for line in reference.lines() {
        let example = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        let text = example.unwrap_or(line);
        if let Some(header) = text.strip_prefix('[') {
            table = format!("{}.", header.trim_matches(['[', ']']));
            if example.is_some() || table == "kafka.librdkafka." {
                keys.insert(table.trim_end_matches('.').to_owned(), None);
            }
        } else if let Some((key, value)) = text.split_once(" = ").filter(|_| !text.starts_with('#'))
            && !table.starts_with("kafka.librdkafka")
        {
            let path = format!("{table}{key}");
            let value_of = path.strip_suffix("_file").filter(|_| !CALLED_FILE.contains(&path.as_str()));
            keys.insert(value_of.unwrap_or(&path).to_owned(), example.is_none().then(|| value.to_owned()));
        }
    }
    keys
}

/// Keys of the tables in a section of the documentation, with their defaults; `None` where the default is said in words.
fn documented_in(section: &str) -> BTreeMap<String, Option<String>> {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap();
    let start = docs.find(&format!("\n## {section}\n")).unwrap();
    let body = docs.get(start + 4..).unwrap();
    let body = body.split("\n## ").next().unwrap();
    let code = |cell: &str| cell.trim().strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).map(str::to_owned);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        let key = code(cells.get(1)?)?;
        let of_another_key = |default: &String| default.starts_with("kafka.") || default.starts_with("spill.");
        let default = code(cells.get(2)?).filter(|default| !of_another_key(default));
        Some((key, default))
    };
    body.lines().filter_map(row).collect()
}

#[test]
fn every_key_is_documented_with_its_default() {
    for (section, reference) in [("agent.toml", AGENT_REFERENCE), ("collector.toml", COLLECTOR_REFERENCE), ("Site files", SITE_REFERENCE)] {
        assert_eq!(documented_in(section), keys_of(reference), "{section}");
    }
}
