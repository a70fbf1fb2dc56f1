//! Every file of `golden/` is a wrong configuration; beside it lies what is said about it, to the letter.
//!
//! The first comment lines say which program the file is for and which variables are set:
//! ```text
//! # program: agent | collector | site
//! # env: SPILLWAY_…=…
//! ```
//! `SPILLWAY_BLESS=1 cargo test -p spillway-config --test golden` writes what is said now; read the difference before you commit it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use spillway_config::{AgentConfig, CollectorConfig, Problems, SiteFile};
use spillway_proto::SiteName;

/// The issue asks for 30.
const CASES_LEAST: usize = 30;

/// What no message may ever show.
const SECRET: &str = "hunter2";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    paths.sort();
    paths
}

fn problems_of(path: &Path) -> Option<Problems> {
    let text = fs::read_to_string(path).unwrap();
    let comments = || text.lines().map_while(|line| line.strip_prefix("# "));
    let variables = comments().filter_map(|line| line.strip_prefix("env: ")).map(|line| line.split_once('=').unwrap());
    match comments().next().and_then(|line| line.strip_prefix("program: ")) {
        Some("agent") => AgentConfig::load(path, variables).err(),
        Some("collector") => CollectorConfig::load(path, variables).err(),
        Some("site") => {
            let site = SiteName::parse(path.file_stem().unwrap().to_str().unwrap()).unwrap();
            SiteFile::load_for(&folder(), &site).err()
        }
        other => panic!("{}: program: {other:?}", path.display()),
    }
}

#[test]
fn every_wrong_configuration_gets_its_message() {
    let bless = std::env::var_os("SPILLWAY_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= CASES_LEAST, "{} cases", cases.len());
    let mut different = Vec::new();
    for path in &cases {
        let problems = problems_of(path).unwrap_or_else(|| panic!("{} is not refused", path.display()));
        let said = format!("{problems}\n").replace(&format!("{}/", folder().display()), "");
        assert!(!said.contains(SECRET), "{}: a secret is shown:\n{said}", path.display());
        let expected_path = path.with_extension("expected");
        if bless {
            fs::write(&expected_path, &said).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            different.push(format!("{}\n--- expected\n{expected}--- said\n{said}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn no_expectation_is_left_without_its_configuration() {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "expected")) {
        assert!(path.with_extension("toml").exists(), "{}", path.display());
    }
}

#[test]
fn every_message_counts_its_problems_and_has_a_fix_for_each() {
    for path in cases() {
        let problems = problems_of(&path).expect("refused");
        let said = problems.to_string();
        let count = problems.iter().count();
        assert_eq!(said.matches("\n    fix: ").count(), count, "{}", path.display());
        assert!(said.lines().last().unwrap().starts_with(&count.to_string()), "{}", path.display());
        assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.fix.is_empty()), "{}", path.display());
    }
}
