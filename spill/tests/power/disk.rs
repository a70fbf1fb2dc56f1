//! A disk that has lost its power: what was synced is there; of the rest any part may be, in any order, torn at any page.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::calls::Call;

/// What the page cache writes at once; a write may be torn there.
const PAGE_BYTES: u64 = 4096;

/// How much of what was not synced is there after a cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Luck {
    /// Nothing.
    None,
    /// Everything: as after `kill -9`.
    All,
    /// Any page and any directory entry, each by chance.
    Some,
}

#[derive(Debug, Clone)]
enum Change {
    Bytes { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Clone)]
enum Naming {
    Set { name: String, object: usize },
    Unset { name: String },
    Move { from: String, to: String, object: usize },
}

#[derive(Debug, Default)]
struct Object {
    directory: bool,
    bytes: Vec<u8>,
    changes: Vec<Change>,
    /// Names on disk, and what was done to them since.
    names: BTreeMap<String, usize>,
    namings: Vec<Naming>,
    /// Names as a running system sees them.
    now: BTreeMap<String, usize>,
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    objects: Vec<Object>,
    numbers: HashMap<u64, usize>,
    /// Syncs of files or directories whose name contains this are not done, to see that the tests notice.
    pub(crate) forget: Option<Forget>,
    file_names: HashMap<usize, String>,
}

/// Which syncs are not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// Those of sled's file.
    Database,
    /// Those of directories.
    Directories,
}

impl Disk {
    /// A disk with one directory, whose number is given.
    pub(crate) fn new(root: u64) -> Self {
        let top = Object { directory: true, ..Object::default() };
        Self { objects: vec![top], numbers: HashMap::from([(root, 0)]), forget: None, file_names: HashMap::new() }
    }

    /// Does what was recorded.
    pub(crate) fn apply(&mut self, call: &Call) {
        match call {
            Call::Make { parent, name, object, directory } => {
                let id = self.objects.len();
                self.objects.push(Object { directory: *directory, ..Object::default() });
                self.numbers.insert(*object, id);
                self.file_names.insert(id, name.clone());
                let parent = self.of(*parent);
                parent.now.insert(name.clone(), id);
                parent.namings.push(Naming::Set { name: name.clone(), object: id });
            }
            Call::Remove { parent, name } => {
                let parent = self.of(*parent);
                parent.now.remove(name);
                parent.namings.push(Naming::Unset { name: name.clone() });
            }
            Call::Rename { from, to } => {
                assert_eq!(from.0, to.0, "the store renames within a directory only");
                let parent = self.of(from.0);
                let object = parent.now.remove(&from.1).unwrap();
                parent.now.insert(to.1.clone(), object);
                parent.namings.push(Naming::Move { from: from.1.clone(), to: to.1.clone(), object });
            }
            Call::Write { object, offset, bytes } => {
                self.of(*object).changes.push(Change::Bytes { offset: *offset, bytes: bytes.clone() });
            }
            Call::SetLength { object, length } => self.of(*object).changes.push(Change::Length(*length)),
            Call::Sync { object } => self.sync(*object),
            Call::Mark(_) => {}
        }
    }

    fn of(&mut self, number: u64) -> &mut Object {
        let id = *self.numbers.get(&number).unwrap();
        self.objects.get_mut(id).unwrap()
    }

    fn sync(&mut self, number: u64) {
        let id = *self.numbers.get(&number).unwrap();
        let object = self.objects.get_mut(id).unwrap();
        let forgotten = match self.forget {
            Some(Forget::Database) => self.file_names.get(&id).is_some_and(|name| name == "db"),
            Some(Forget::Directories) => object.directory,
            None => false,
        };
        if forgotten {
            return;
        }
        for change in std::mem::take(&mut object.changes) {
            change.apply(&mut object.bytes, |_| true);
        }
        for naming in std::mem::take(&mut object.namings) {
            naming.apply(&mut object.names);
        }
    }

    /// Leaves in a fresh directory what is there after a cut.
    pub(crate) fn cut(&self, into: &Path, luck: Luck, random: &mut StdRng) {
        self.leave(0, into, luck, random);
    }

    fn leave(&self, id: usize, path: &Path, luck: Luck, random: &mut StdRng) {
        let object = &self.objects[id];
        let mut lucky = |_: u64| match luck {
            Luck::None => false,
            Luck::All => true,
            Luck::Some => random.random_ratio(1, 2),
        };
        if !object.directory {
            let mut bytes = object.bytes.clone();
            for change in &object.changes {
                change.apply(&mut bytes, &mut lucky);
            }
            std::fs::write(path, bytes).unwrap();
            return;
        }
        std::fs::create_dir_all(path).unwrap();
        let mut names = object.names.clone();
        for naming in &object.namings {
            if lucky(0) {
                naming.apply(&mut names);
            }
        }
        for (name, id) in names {
            self.leave(id, &path.join(name), luck, random);
        }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>, mut page_is_there: impl FnMut(u64) -> bool) {
        match self {
            Self::Length(length) => {
                if page_is_there(0) {
                    file.resize(*length as usize, 0);
                }
            }
            Self::Bytes { offset, bytes } => {
                let (mut at, end) = (*offset, offset + bytes.len() as u64);
                while at < end {
                    let page_end = ((at / PAGE_BYTES + 1) * PAGE_BYTES).min(end);
                    if page_is_there(at) {
                        file.resize(file.len().max(page_end as usize), 0);
                        let part = &bytes[(at - offset) as usize..(page_end - offset) as usize];
                        file[at as usize..page_end as usize].copy_from_slice(part);
                    }
                    at = page_end;
                }
            }
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set { name, object } => _ = names.insert(name.clone(), *object),
            Self::Unset { name } => _ = names.remove(name),
            Self::Move { from, to, object } => {
                if names.get(from) == Some(object) {
                    names.remove(from);
                }
                names.insert(to.clone(), *object);
            }
        }
    }
}
