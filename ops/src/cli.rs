//! What both commands print about themselves, from the one definition that clap holds.

use std::io::{self, Write};

use clap::Command;
pub use clap_complete::Shell;

/// Version of both programs: they are released together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes the completion script of `command` for `shell`.
///
/// # Errors
/// When `out` does.
pub fn completions(shell: Shell, mut command: Command, out: &mut impl Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // clap_complete panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script)
}

/// Writes the manual page of `command` and, after it, of each of its subcommands (roff, section 1).
///
/// # Errors
/// When `out` does.
pub fn man(command: Command, out: &mut impl Write) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    man_of(&command, out)
}

fn man_of(command: &Command, out: &mut impl Write) -> io::Result<()> {
    // Building has given every subcommand its full name, `spillway-agent-run`, which becomes its page's.
    clap_mangen::Man::new(command.clone()).render(out)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        man_of(subcommand, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        Command::new("spillway-test")
            .about("Tests")
            .subcommand(Command::new("run").about("Runs it").arg(Arg::new("config").long("config")))
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn completions_know_the_subcommands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            completions(shell, command(), &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("run") && script.contains("config"), "{shell}: {script}");
        }
    }

    #[test]
    fn the_manual_covers_what_is_not_hidden() {
        let mut page = Vec::new();
        man(command(), &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("Runs it") && page.contains("spillway\\-test\\-run"), "{page}");
        assert!(!page.contains("spillway\\-test\\-secret"), "{page}");
    }
}
