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
    Ok(command)
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
