//! Exit codes, the same for both programs. Service managers and scripts rely on them.

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    iter,
    process::{ExitCode, Termination},
};

/// Says something on stderr; where that is closed, nobody is left to tell, and the exit code still does.
pub fn say(text: impl fmt::Display) {
    let _closed = writeln!(io::stderr(), "{text}");
}

/// How a program ended. The numbers are part of the outside interface and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done, or stopped by one signal after draining.
    Done = 0,
    /// 1: a command that is no service (`check`, `status`, `pki`, `spill`) did not succeed.
    Failed = 1,
    /// 2: the command line is wrong (clap's own code as well). Nothing was done.
    Usage = 2,
    /// 3: the configuration is wrong. Nothing was started; starting again without changing it is of no use.
    Configuration = 3,
    /// 4: cannot start: a port, a directory, a certificate. Starting again helps once that is there.
    CannotStart = 4,
    /// 5: stopped because going on would lose or duplicate data. Starting again without a person's decision stops again.
    Stopped = 5,
    /// 130: a second SIGINT came while draining; left at once, losing nothing that was acknowledged (128 + 2, as shells do).
    Interrupted = 130,
    /// 143: a second SIGTERM came while draining, as above (128 + 15).
    Terminated = 143,
}

impl Exit {
    /// Every code with its meaning in a few words, for help texts and the manual.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Done, "done, or stopped by a signal after draining"),
        (Self::Failed, "the command did not succeed"),
        (Self::Usage, "wrong command line"),
        (Self::Configuration, "wrong configuration, nothing was started"),
        (Self::CannotStart, "cannot start: port, directory, certificate"),
        (Self::Stopped, "stopped because going on would lose or duplicate data"),
        (Self::Interrupted, "second SIGINT while draining"),
        (Self::Terminated, "second SIGTERM while draining"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}

/// The error and its causes as one line: `what: why: why`. To be printed once, at the top.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        // Transparent wrappers show their source's text as their own.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = source.source();
    }
    line
}

/// Text for the end of `--help`: every exit code in a line of its own.
pub fn help() -> String {
    let lines = Exit::ALL.iter().map(|(exit, meaning)| format!("  {code:<4} {meaning}\n", code = exit.code()));
    iter::once("Exit codes:\n".to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on {0}")]
    struct Outer(u16, #[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Middle(#[from] io::Error);

    #[test]
    fn a_chain_prints_every_cause_once() {
        let error = Outer(9610, Middle(io::Error::other("address in use")));
        assert_eq!(chain(&error), "cannot listen on 9610: address in use");
        assert_eq!(chain(&fmt::Error), "an error occurred when formatting an argument");
    }

    #[test]
    fn codes_are_what_the_documentation_says() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130, 143]);
        assert!(help().contains("  143  second SIGTERM while draining\n"), "{}", help());
    }
}
