//! Calling cargo: the lab starts the real binaries, so they have to be those of this source.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::java::repo_root;

/// A `cargo` command in the checkout, with the target directory that the lab itself was built in: the binaries have to lie beside
/// it.
///
/// # Errors
/// When the lab does not know where it is.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repo_root());
    command.env("CARGO_TARGET_DIR", target_dir()?);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(tells_of_a_package) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Whether cargo sets this variable to tell a test which package it belongs to
/// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>). Build scripts that look at it, as ring's does, would take it for a
/// change, and ring and all that depends on it would be built anew: when a test calls cargo, and once more when a shell does.
fn tells_of_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| variable.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR"].contains(&variable)
}

/// The target directory that the lab was built in.
///
/// # Errors
/// When the lab does not know where it is.
pub fn target_dir() -> Result<PathBuf> {
    // TARGET/debug/lab, or TARGET/debug/deps/test-0123.
    let own = std::env::current_exe().context("where am I?")?;
    let profile = own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("no directory above the lab")?;
    Ok(profile.parent().context("no target directory above the lab")?.to_owned())
}

/// Builds the agent and the collector, beside the lab. Quick when they are up to date.
///
/// # Errors
/// When they do not build.
pub fn binaries() -> Result<()> {
    // The whole workspace: with fewer packages cargo would choose other features for their libraries, and build those twice.
    let status = cargo()?.args(["build", "--quiet", "--workspace", "--bins"]).status().context("cannot run cargo")?;
    ensure!(status.success(), "the binaries do not build");
    Ok(())
}

/// Builds the agent and the collector as they ship, and answers where they are. The first time this takes some minutes.
///
/// # Errors
/// When they do not build.
pub fn release_binaries() -> Result<PathBuf> {
    let mut command = cargo()?;
    let target = command.get_envs().find_map(|(key, value)| value.filter(|_| key == "CARGO_TARGET_DIR").map(PathBuf::from));
    let packages = ["-p", "spillway-agent", "-p", "spillway-collector"];
    let status = command.args(["build", "--quiet", "--release", "--bins"]).args(packages).status().context("cannot run cargo")?;
    ensure!(status.success(), "the binaries do not build");
    Ok(target.context("no target directory")?.join("release"))
}

/// Builds the comparison of the spill with a bare log as the agent ships, and answers where it is.
///
/// # Errors
/// When it does not build.
pub fn spill_bench() -> Result<PathBuf> {
    let mut command = cargo()?;
    let status = command.args(["build", "--quiet", "--release", "-p", "spillway-spill", "--example", "spill-bench"]).status();
    ensure!(status.context("cannot run cargo")?.success(), "the comparison with a bare log does not build");
    Ok(target_dir()?.join("release/examples/spill-bench"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cargo_is_not_told_of_the_package_of_the_test_that_calls_it() {
        let command = cargo().unwrap();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name.to_owned()).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(std::env::var_os(name).is_some(), "cargo sets {name} for this test");
            assert!(removed.iter().any(|removed| removed == name), "{name} of {removed:?}");
        }
        assert!(command.get_envs().any(|(name, value)| name == "CARGO_TARGET_DIR" && value.is_some()));
    }
}
