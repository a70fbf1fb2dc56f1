use std::ffi::OsString;
use std::path::{Path, PathBuf};

use spillway_proto::SiteName;

use crate::load::{self, Reference};
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::{Place, Problem, Problems, SiteSettings};

/// The commented reference file of a site: the bottom layer of every site file.
pub const SITE_REFERENCE: &str = include_str!("../reference/site.toml");

/// Name of the file for sites that have none of their own, without `.toml`.
const DEFAULT: &str = "default";

/// What the collector is told about one site: `<sites.dir>/<site>.toml`, or `default.toml` for sites without a file of their own. The two
/// are not merged. A site with neither is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFile {
    /// Whether the site may connect. Default true.
    pub enabled: bool,
    /// What it is told.
    pub settings: SiteSettings,
}

/// What there is to say of the site files of a folder, file by file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteFindings {
    /// What is wrong: such a file is refused.
    pub problems: Vec<Problem>,
    /// What is allowed but odd.
    pub warnings: Vec<Problem>,
}

pub(crate) const REFERENCE: Reference = Reference { name: "site.toml", text: SITE_REFERENCE };

impl SiteFile {
    /// Loads the file of a site from the folder `sites.dir`, with what is allowed but odd in it; `None` if the site is unknown.
    ///
    /// # Errors
    /// [`Problems`] of the site's file. Refuse the site then, not the others.
    pub fn load_for(dir: &Path, site: &SiteName) -> Result<Option<(Self, Vec<Problem>)>, Problems> {
        let [own, default] = Self::paths(dir, site);
        let path = if own.exists() { own } else { default };
        if path.exists() { Self::load(&path).map(Some) } else { Ok(None) }
    }

    /// Where the file of a site may be: its own, and the one for sites without their own.
    pub fn paths(dir: &Path, site: &SiteName) -> [PathBuf; 2] {
        [file_of(dir, site.as_str()), file_of(dir, DEFAULT)]
    }

    /// What is wrong in any of the site files of a folder, and files that are no site's.
    pub fn check_all(dir: &Path) -> SiteFindings {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                let fix = "make the folder readable for the user that this program runs as";
                return SiteFindings { problems: vec![about(dir, format!("cannot be read: {}", error.kind()), fix)], warnings: Vec::new() };
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let mut found = SiteFindings::default();
        for path in paths {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let Err(flaw) = self::name(name) {
                found.problems.push(about(&path, format!("\"{name}\" is {}", flaw.what), "name the file after its site"));
                continue;
            }
            match Self::load(&path) {
                Ok((_file, warnings)) => found.warnings.extend(warnings),
                Err(problems) => found.problems.extend(problems.iter().cloned()),
            }
        }
        found
    }

    /// With what is allowed but odd.
    fn load(path: &Path) -> Result<(Self, Vec<Problem>), Problems> {
        let no_environment: [(OsString, OsString); 0] = [];
        load::load(&REFERENCE, path, no_environment, Self::read)
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let (enabled, settings) = (table.required("enabled", parse::boolean), SiteSettings::read(table));
        Ok(Self { enabled: enabled?, settings: settings? })
    }
}

/// The name of a site.
pub(crate) fn name(text: &str) -> Result<SiteName, Flaw> {
    let fix = "write 1 to 32 of the characters a-z A-Z 0-9 _ -; it is the name in the site's certificate";
    SiteName::parse(text).map_err(|error| Flaw::new(format!("not the name of a site: {error}"), fix))
}

fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.toml"))
}

fn about(path: &Path, what: String, fix: &str) -> Problem {
    let place = Place::File { path: path.to_owned(), at: None };
    Problem { place, key: None, value: None, what, fix: fix.to_owned() }
}
