//! What the agent remembers of the centre's settings. A file of three lines (the second: a revision, or `none`), and the settings as they were sent:
//! ```text
//! # spillway-settings 1
//! # given up: 85944171f73967e8
//! # crc32c of what follows: 0123abcd
//! [link]
//! rate_max = "512kbit"
//! ```

use crate::kept::{FileError, after_first_line};

/// What is known to work, and what is known not to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The last settings that were proven; empty: the defaults.
    pub text: String,
    /// Revision of those that were given up since, if the centre has not sent others.
    pub given_up: Option<u64>,
}

const MAGIC: &str = "# spillway-settings 1";
const GIVEN_UP: &str = "# given up: ";
const NONE: &str = "none";
const SUM: &str = "# crc32c of what follows: ";

impl Kept {
    /// As it is kept on disk.
    pub fn to_file(&self) -> String {
        let given_up = self.given_up.map_or_else(|| NONE.to_owned(), |revision| format!("{revision:016x}"));
        let body = &self.text;
        format!("{MAGIC}\n{GIVEN_UP}{given_up}\n{SUM}{:08x}\n{body}", sum(&given_up, body))
    }

    /// Reads what [`Kept::to_file`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_file(file: &str) -> Result<Self, FileError> {
        let rest = after_first_line(file, MAGIC)?;
        let (given_up, rest) = line(rest, GIVEN_UP)?;
        let (written, body) = line(rest, SUM)?;
        if written != format!("{:08x}", sum(given_up, body)) {
            return Err(FileError::Damaged);
        }
        let given_up = match given_up {
            NONE => None,
            digits => Some(u64::from_str_radix(digits, 16).map_err(|_| FileError::Damaged)?),
        };
        Ok(Self { text: body.to_owned(), given_up })
    }
}

fn line<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str), FileError> {
    text.strip_prefix(name).and_then(|rest| rest.split_once('\n')).ok_or(FileError::Damaged)
}

fn sum(given_up: &str, body: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(given_up.as_bytes()), body.as_bytes())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The bytes of version 1.
    const V1: &str =
        "# spillway-settings 1\n# given up: 85944171f73967e8\n# crc32c of what follows: 164f5414\n[link]\nrate_max = \"512kbit\"\n";

    #[test]
    fn the_file_is_what_it_always_was() {
        let kept = Kept { text: "[link]\nrate_max = \"512kbit\"\n".to_owned(), given_up: Some(0x8594_4171_f739_67e8) };
        assert_eq!(kept.to_file(), V1);
        assert_eq!(Kept::from_file(V1), Ok(kept));
        let nothing = Kept::default();
        assert_eq!(Kept::from_file(&nothing.to_file()), Ok(nothing));
    }

    #[test]
    fn a_damaged_file_is_told_from_a_sound_one() {
        for place in 0..V1.len() {
            let mut bytes = V1.as_bytes().to_vec();
            bytes[place] ^= 1;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(Kept::from_file(&text).is_err(), "byte {place}: {text}");
            assert!(Kept::from_file(V1.get(..place).unwrap()).is_err(), "cut at {place}");
        }
    }
}
