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
