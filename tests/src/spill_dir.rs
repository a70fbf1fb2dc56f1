//! A spill's directory as anybody can see it, without asking the agent: whether it holds anything; and damage done to its files.
//!
//! `docs/spill-format.md` has the layout. Frames are in generations, directories `g` and twelve digits, which are deleted as a whole.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use rand::Rng as _;
use rand::rngs::StdRng;

/// Where a generation keeps its frames.
const PAYLOAD: &str = "sled";
const DATABASE: &str = "db";

/// Files without content that counts.
const EMPTY: [&str; 2] = ["lock", "slack"];

/// Most bytes that are overwritten at a time.
const OVERWRITTEN_MAX: usize = 5_000;

/// Generations that hold, or held, frames that are not deleted yet; none where there is no such directory.
#[must_use]
pub fn generations(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| is_generation(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Whether no frame waits in it.
#[must_use]
pub fn is_empty(root: &Path) -> bool {
    generations(root).is_empty()
}

/// Whether frames are on the disk: more than the beginnings of a generation.
#[must_use]
pub fn has_frames(root: &Path) -> bool {
    let file_bytes = |path: PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    generations(root)
        .iter()
        .any(|generation| file_bytes(generation.join("index")) > 0 || file_bytes(generation.join(PAYLOAD).join(DATABASE)) > 0)
}

/// Whether frames were written after `since`.
#[must_use]
pub fn is_written(root: &Path, since: SystemTime) -> bool {
    let written = |path: PathBuf| path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|modified| modified > since);
    generations(root).iter().any(|generation| written(generation.join(PAYLOAD).join(DATABASE)))
}

/// All files below a directory that have content, relative to it, in order.
#[must_use]
pub fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_owned());
            }
        }
    }
    found.retain(|path| !EMPTY.iter().any(|name| path == Path::new(name)));
    found.sort();
    found
}

/// Damages one to three files of a spill whose agent is stopped, at least one of them in a generation: a bit flipped, bytes overwritten, cut, emptied or
/// removed. Answers what was changed.
///
/// # Errors
/// When there is nothing to damage, or it cannot be written.
pub fn damage(root: &Path, rng: &mut StdRng) -> Result<Vec<String>> {
    let all = files(root);
    let in_generations: Vec<PathBuf> =
        all.iter().filter(|path| path.iter().next().is_some_and(|first| is_generation(&first.to_string_lossy()))).cloned().collect();
    let mut done = Vec::new();
    // Changing a byte to what it was is no damage: then another place.
    for _ in 0..100 {
        let path = pick(&in_generations, rng).context("the spill holds nothing that could be damaged")?;
        if let Some(what) = change(&root.join(path), rng)? {
            done.push(format!("{}: {what}", path.display()));
            break;
        }
    }
    for _ in 0..rng.random_range(0..3) {
        if let Some(path) = pick(&all, rng)
            && let Some(what) = change(&root.join(path), rng)?
        {
            done.push(format!("{}: {what}", path.display()));
        }
    }
    Ok(done)
}

fn is_generation(name: &str) -> bool {
    name.strip_prefix('g').is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn pick<'p>(files: &'p [PathBuf], rng: &mut StdRng) -> Option<&'p PathBuf> {
    files.get(rng.random_range(0..files.len().max(1)))
}

/// Changes one file somehow and says how; `None` when it is as it was, or gone.
fn change(path: &Path, rng: &mut StdRng) -> Result<Option<String>> {
    let Ok(before) = std::fs::read(path) else { return Ok(None) };
    let mut bytes = before.clone();
    let at = rng.random_range(0..before.len().max(1));
    let what = match rng.random_range(0..10) {
        0..=4 => {
            let bit = rng.random_range(0..8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            format!("a bit of byte {at} flipped")
        }
        5..=6 => {
            let end = bytes.len().min(at + rng.random_range(1..OVERWRITTEN_MAX));
            let zeros = rng.random_range(0..2) == 0;
            for byte in bytes.get_mut(at..end).into_iter().flatten() {
                *byte = if zeros { 0 } else { rng.random() };
            }
            format!("bytes {at} to {end} overwritten")
        }
        7 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        8 => {
            bytes.clear();
            "emptied".to_owned()
        }
        _ => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            return Ok(Some("removed".to_owned()));
        }
    };
    if bytes == before {
        return Ok(None);
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(what))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rand::SeedableRng as _;

    use super::*;

    fn spill() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["lock", "format", "state", "g000000000007/index", "g000000000007/sled/db"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; 1000]).unwrap();
        }
        dir
    }

    #[test]
    fn a_generation_with_frames_is_told_from_an_empty_spill() {
        let dir = spill();
        assert!(!is_empty(dir.path()) && has_frames(dir.path()));
        assert_eq!(files(dir.path()).len(), 4);
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(is_written(dir.path(), SystemTime::UNIX_EPOCH) && !is_written(dir.path(), later));
        std::fs::write(dir.path().join("g000000000007/sled/db"), b"").unwrap();
        std::fs::write(dir.path().join("g000000000007/index"), b"").unwrap();
        assert!(!is_empty(dir.path()) && !has_frames(dir.path()));
        std::fs::remove_dir_all(dir.path().join("g000000000007")).unwrap();
        assert!(is_empty(dir.path()) && is_empty(&dir.path().join("none")));
    }

    #[test]
    fn damage_changes_a_file_of_a_generation_and_spares_the_lock() {
        for seed in 0..200 {
            let dir = spill();
            let done = damage(dir.path(), &mut StdRng::seed_from_u64(seed)).unwrap();
            let changed = |file: &str| std::fs::read(dir.path().join(file)).map_or(true, |bytes| bytes != [7; 1000]);
            assert!(changed("g000000000007/index") || changed("g000000000007/sled/db"), "seed {seed}: {done:?}");
            assert!(!changed("lock"), "seed {seed}");
            assert!(done.iter().any(|what| what.starts_with('g')), "seed {seed}: {done:?}");
        }
        assert!(damage(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(1)).is_err());
    }
}
