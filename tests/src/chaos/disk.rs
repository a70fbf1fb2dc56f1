//! A small disk for the agent's spill, which can be filled to the brim. It needs the right to mount a file system.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::run;

/// What fills the disk.
const BALLAST: &str = "ballast";

/// Ballast is written in pieces of so many bytes; the last ones byte by byte would take too long, and nothing needs them.
const PIECE_BYTES: usize = 4096;

/// What a disk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// ext4 in a file.
    Ext4,
    /// Memory: fast, and for many at a time.
    Memory,
}

/// A mounted file system. Dropping it takes it away; the reaper does where the lab was killed.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts `mib` MiB at a directory, which is made. `None` without the right to.
    #[must_use]
    pub fn mount(at: &Path, mib: u64, medium: Medium) -> Option<Self> {
        std::fs::create_dir_all(at).ok()?;
        let image = at.with_extension("image");
        let place = at.to_str()?;
        let done =
            |program: &str, arguments: &[&str]| run(Command::new(program).args(arguments)).is_ok_and(|output| output.status.success());
        let mounted = match medium {
            Medium::Memory => done("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", place]),
            Medium::Ext4 => {
                std::fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).ok()?;
                done("mkfs.ext4", &["-q", "-m", "0", image.to_str()?]) && done("mount", &["-o", "loop", image.to_str()?, place])
            }
        };
        // Otherwise it would not be a new directory.
        drop(std::fs::remove_dir(at.join("lost+found")));
        mounted.then(|| Self { at: at.to_owned() })
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    /// When there is none to take, and none was taken before.
    pub fn fill(&self) -> Result<()> {
        let path = self.at.join(BALLAST);
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).context("cannot make the ballast")?;
        let piece = [1; PIECE_BYTES];
        let mut written = file.metadata()?.len();
        // Any refusal here is that of a full disk.
        while file.write_all(&piece).is_ok() {
            written += PIECE_BYTES as u64;
        }
        anyhow::ensure!(written > 0, "the disk could not be filled");
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the ballast cannot be removed.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.at.join(BALLAST)).context("the disk was not full")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there must not keep it.
        drop(run(Command::new("umount").arg("-l").arg(&self.at)));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        let Some(disk) = SmallDisk::mount(&at, 2, Medium::Memory) else {
            println!("no right to mount: nothing to test");
            return;
        };
        let write = || std::fs::write(at.join("file"), vec![1; 100_000]);
        write().unwrap();
        std::fs::remove_file(at.join("file")).unwrap();
        disk.fill().unwrap();
        assert!(write().is_err());
        disk.free().unwrap();
        write().unwrap();
        drop(disk);
        assert!(!at.join("file").exists(), "it is not mounted any more");
    }
}
