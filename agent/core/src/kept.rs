//! Small files of text that the agent keeps over a restart: a first line that names file and version, and a checksum.

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It begins otherwise.
    #[error("it does not begin with {expected:?}: another version has written it, or something else")]
    Version {
        /// The first line of what this agent writes.
        expected: &'static str,
    },
    /// It is cut, or was changed.
    #[error("damaged")]
    Damaged,
}

/// What follows the first line, which has to be `expected`.
pub(crate) fn after_first_line<'a>(text: &'a str, expected: &'static str) -> Result<&'a str, FileError> {
    text.strip_prefix(expected).and_then(|rest| rest.strip_prefix('\n')).ok_or(FileError::Version { expected })
}
