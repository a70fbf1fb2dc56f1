use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, line and column counted from 1; without them the file as a whole, for what is missing in it.
    File {
        /// The file, as it was named on the command line.
        path: PathBuf,
        /// Line and column in characters.
        at: Option<(usize, usize)>,
    },
    /// In a variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// In the reference file embedded in the binary.
    Reference {
        /// `agent.toml` or `collector.toml`.
        name: &'static str,
        /// Line and column in characters.
        at: Option<(usize, usize)>,
    },
}

/// One thing that is wrong with a configuration, for a person to read and repair. Nothing decides by its texts.
///
/// Printed as
/// ```text
/// agent.toml:12:12: link.rate_max = "2 Mb": not a rate
///     fix: write bits per second with a unit, for example "2Mbit" or "512kbit", or "unlimited"
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Path of the key, `link.rate_max`; `None` where it is not about a key (the file is not TOML).
    pub key: Option<String>,
    /// The value as TOML; `None` for a secret, or where there is none.
    pub value: Option<String>,
    /// What is wrong: a lower-case fragment.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// All that is wrong with a configuration; at least one [`Problem`]: first what is missing, then line by line, then
/// the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(list: Vec<Problem>) -> Self {
        Self(list)
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 problem in the configuration"),
            count => write!(f, "{count} problems in the configuration"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}")?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}\n    fix: {}", self.what, self.fix)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self {
            Self::File { path, at } => {
                write!(f, "{}", path.display())?;
                at
            }
            Self::Reference { name, at } => {
                write!(f, "built-in {name}")?;
                at
            }
            Self::Environment { variable } => return write!(f, "environment {variable}"),
        };
        match at {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}
