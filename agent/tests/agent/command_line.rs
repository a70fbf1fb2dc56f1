//! What scripts and service managers see of the program.

use std::fs::File;
use std::process::Command;

#[test]
fn the_exit_code_stands_also_where_nobody_can_be_told() {
    for stderr in ["/dev/null", "/dev/full"] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_spillway-agent"));
        check.args(["check", "--config", "/nowhere/agent.toml"]);
        let status = check.stderr(File::options().write(true).open(stderr).unwrap()).status().unwrap();
        assert_eq!(status.code(), Some(3), "{stderr}");
    }
}
