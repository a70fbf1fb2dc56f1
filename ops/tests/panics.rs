//! What a panic does to a program.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use spillway_ops::panics;

/// Tells this test, run as a program of its own, what to do.
const ROLE: &str = "SPILLWAY_TEST_PANIC";

fn run_again(role: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", "a_panic_ends_the_program_from_any_thread", "--nocapture"]).env(ROLE, role).output().unwrap()
}

#[test]
fn a_panic_ends_the_program_from_any_thread() {
    match std::env::var(ROLE).as_deref() {
        Ok("unexpected") => {
            panics::end_the_program(|| false);
            drop(std::thread::spawn(|| panic!("a bug")).join());
            println!("went on");
        }
        Ok(_) => {
            panics::end_the_program(|| std::thread::current().name() == Some("guarded"));
            let guarded = std::thread::Builder::new().name("guarded".to_owned());
            assert!(guarded.spawn(|| panic!("a library's bug")).unwrap().join().is_err());
            println!("went on");
        }
        Err(_) => {
            let ended = run_again("unexpected");
            assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
            assert!(
                String::from_utf8_lossy(&ended.stderr).contains("a bug") && !String::from_utf8_lossy(&ended.stdout).contains("went on")
            );
            let went_on = run_again("guarded");
            assert!(went_on.status.success() && String::from_utf8_lossy(&went_on.stdout).contains("went on"), "{went_on:?}");
        }
    }
}
