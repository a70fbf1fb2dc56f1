//! From a path and an environment to a configuration: the three layers, one run of the reader.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use crate::layer::environment::Environment;
use crate::layer::{Origin, Source, Tree, overlay, parse_toml};
use crate::reader::files::{CONFIG_FILE_MAX_BYTES, read_capped};
use crate::reader::{Reader, Reported, Table};
use crate::{Place, Problem, Problems, settings};

/// A reference file in the binary.
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// Loads a configuration; `read` takes it out of the finished tree. Returns it with its warnings.
pub(crate) fn load<T, K, V>(
    reference: &Reference,
    path: &Path,
    environment: impl IntoIterator<Item = (K, V)>,
    read: impl FnOnce(&Table<'_>) -> Result<T, Reported>,
) -> Result<(T, Vec<Problem>), Problems>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let environment = Environment::read(environment);
    let mut tree = reference_tree(reference)?;
    // Where the file is not TOML, what it lacks is not known, and the rest would be guesswork.
    overlay(&mut tree, file_tree(path).map_err(|problem| Problems::new(vec![*problem]))?);
    overlay(&mut tree, environment.tree);

    let reader = Reader::new(path, reference.text);
    environment.problems.into_iter().for_each(|problem| reader.problem(problem));
    environment.warnings.into_iter().for_each(|warning| reader.warning(warning));
    let value = reader.read(&tree, read);
    let (problems, warnings) = reader.into_findings();
    match value {
        Ok(value) if problems.is_empty() => Ok((value, warnings)),
        _ => Err(Problems::new(problems)),
    }
}

/// As [`load`], from a text that did not come from a file of ours, and that names no files; `name` is what messages call it.
pub(crate) fn load_text<T>(
    reference: &Reference,
    name: &Path,
    text: &str,
    read: impl FnOnce(&Table<'_>) -> Result<T, Reported>,
) -> Result<T, Problems> {
    let mut tree = reference_tree(reference)?;
    let source = Source::new(Origin::File(name.to_owned()), text);
    let given = parse_toml(&source).map_err(|problem| Problems::new(vec![*problem]))?;
    let mut problems = Vec::new();
    settings::refuse_files(&given, &mut problems);
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    overlay(&mut tree, given);
    let reader = Reader::new(name, reference.text);
    let value = reader.read(&tree, read);
    match (value, reader.into_findings().0) {
        (Ok(value), problems) if problems.is_empty() => Ok(value),
        (_, problems) => Err(Problems::new(problems)),
    }
}

/// The bottom layer.
fn reference_tree(reference: &Reference) -> Result<Tree, Problems> {
    let source = Source::new(Origin::Reference(reference.name), reference.text);
    parse_toml(&source).map_err(|problem| Problems::new(vec![*problem]))
}

/// The layer of the user's file.
fn file_tree(path: &Path) -> Result<Tree, Box<Problem>> {
    match read_capped(path, CONFIG_FILE_MAX_BYTES) {
        Ok(text) => parse_toml(&Source::new(Origin::File(path.to_owned()), &text)),
        Err(error) => {
            let (what, fix) = unreadable(error.kind());
            Err(Box::new(Problem { place: Place::File { path: path.to_owned(), at: None }, key: None, value: None, what, fix }))
        }
    }
}

/// What is wrong with a file that cannot be read, and what to do.
fn unreadable(kind: ErrorKind) -> (String, String) {
    let plain = || format!("cannot be read: {kind}");
    match kind {
        ErrorKind::InvalidData => ("not UTF-8".to_owned(), "save it as UTF-8".to_owned()),
        ErrorKind::FileTooLarge => (plain(), format!("a configuration has {} KiB at most", CONFIG_FILE_MAX_BYTES >> 10)),
        ErrorKind::IsADirectory => (plain(), "put a file in its place, or name another one".to_owned()),
        ErrorKind::PermissionDenied => (plain(), "make it readable for the user that this program runs as".to_owned()),
        _ => (plain(), "name the file with --config; the command `config` prints one to begin with".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{AGENT_REFERENCE, AgentConfig, COLLECTOR_REFERENCE, CollectorConfig, SITE_REFERENCE, SiteFile};

    /// The reference with every example in force.
    fn with_examples(reference: &str) -> String {
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(example) if !example.starts_with(' ') => example.to_owned(),
            _ => line.to_owned(),
        };
        reference.lines().map(uncommented).collect::<Vec<_>>().join("\n")
    }

    /// The keys a program asks for, and the problems it has, with all examples in force.
    fn run<T>(text: &'static str, read: impl FnOnce(&Table<'_>) -> Result<T, Reported>) -> (Vec<String>, Vec<Problem>) {
        let examples = with_examples(text);
        let tree = parse_toml(&Source::new(Origin::Reference("reference"), &examples)).unwrap();
        let reader = Reader::new(Path::new("reference.toml"), text);
        drop(reader.read(&tree, read));
        let known = reader.known();
        (known, reader.into_findings().0)
    }

    fn check<T>(reference: &'static str, read: impl FnOnce(&Table<'_>) -> Result<T, Reported>) {
        let (known, problems) = run(reference, read);
        let unknown: Vec<_> = problems.iter().filter(|problem| problem.what == "no such key").collect();
        assert!(unknown.is_empty(), "the reference has keys that nobody reads: {unknown:?}");

        // Every key is set or shown, below a line that explains it.
        let lines: Vec<&str> = reference.lines().collect();
        for key in known {
            let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
            let mut current = String::new();
            let at = lines.iter().position(|line| {
                let line = line.strip_prefix('#').unwrap_or(line);
                if let Some(header) = line.strip_prefix('[') {
                    current = header.trim_matches(['[', ']']).to_owned();
                }
                let sets = line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("{name}_file = "));
                current == key || (current == table && sets)
            });
            let at = at.unwrap_or_else(|| panic!("{key} is not in the reference"));
            assert!(lines[at - 1].starts_with("# "), "{key} is not explained in the reference");
        }
    }

    #[test]
    fn every_key_is_explained_in_the_reference_and_no_other() {
        check(AGENT_REFERENCE, AgentConfig::read);
        check(COLLECTOR_REFERENCE, CollectorConfig::read);
        check(SITE_REFERENCE, SiteFile::read);
    }

    #[test]
    fn the_examples_of_the_reference_are_good_ones() {
        for (reference, problems) in [
            (AGENT_REFERENCE, run(AGENT_REFERENCE, AgentConfig::read).1),
            (COLLECTOR_REFERENCE, run(COLLECTOR_REFERENCE, CollectorConfig::read).1),
            (SITE_REFERENCE, run(SITE_REFERENCE, SiteFile::read).1),
        ] {
            // But the files are not here, and what SASL and TLS have to do with each other cannot be shown by all examples at once.
            let is_bad = |problem: &&Problem| {
                !problem.what.starts_with("no file")
                    && !problem.what.starts_with("no folder")
                    && !problem.what.starts_with("without effect")
            };
            let bad: Vec<_> = problems.iter().filter(is_bad).collect();
            assert!(bad.is_empty(), "{bad:?}\n{reference}");
        }
    }
}
