//! Signals, the log and the ready line, on a process of its own: this test binary, run again.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use spillway_ops::{Exit, logging, notify, signals};

/// Tells [`child`] how to drain; without it that test does nothing.
const DRAIN: &str = "SPILLWAY_TEST_DRAIN";

/// The program under test. Run by the others only.
#[test]
fn child() {
    let Ok(drain) = std::env::var(DRAIN) else { return };
    logging::init(logging::Format::Json).unwrap();
    let stop = signals::install().unwrap();
    notify::ready("spillway-test", Some("127.0.0.1:9610".parse().unwrap()), None);
    while !stop.is_cancelled() {
        thread::sleep(Duration::from_millis(5));
    }
    if drain == "stuck" {
        thread::sleep(Duration::from_secs(60));
    }
    std::process::exit(Exit::Done.code().into());
}

struct Running {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(drain: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::child", "--nocapture"])
            .env(DRAIN, drain)
            .env_remove("SPILLWAY_LOG")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        Self { process, log }
    }

    /// The next line of the log.
    fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn code(&mut self) -> Option<i32> {
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), None, "left by itself");
        status.code()
    }
}

#[test]
fn the_first_signal_drains() {
    for name in ["TERM", "INT"] {
        let mut program = Running::start("quick");
        let ready = program.line();
        assert_eq!(ready["event"], "ready");
        assert_eq!(ready["message"], "ready");
        assert_eq!(ready["level"], "INFO");
        assert_eq!((&ready["program"], &ready["admin"]), (&"spillway-test".into(), &"127.0.0.1:9610".into()));
        assert_eq!(ready.get("listen"), None);
        program.signal(name);
        assert_eq!(program.line()["signal"], format!("SIG{name}"));
        assert_eq!(program.code(), Some(0));
    }
}

#[test]
fn the_second_signal_leaves_at_once() {
    for (first, second, code) in [("TERM", "TERM", 143), ("TERM", "INT", 130), ("INT", "TERM", 143)] {
        let mut program = Running::start("stuck");
        assert_eq!(program.line()["event"], "ready");
        program.signal(first);
        assert_eq!(program.line()["level"], "INFO");
        program.signal(second);
        assert_eq!(program.line()["level"], "WARN");
        assert_eq!(program.code(), Some(code));
    }
}
