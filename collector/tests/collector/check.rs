//! `spillway-collector check`, as a script that is to stop a bad change calls it.

use std::process::{Command, Output};

use crate::support::Folder;

fn check(folder: &Folder) -> Output {
    let config = folder.config("127.0.0.1:9092", &format!("[sites]\ndir = \"{}\"", folder.path("sites.d").display()));
    Command::new(env!("CARGO_BIN_EXE_spillway-collector")).args(["check", "--config"]).arg(config).output().unwrap()
}

#[test]
fn a_mistake_in_a_site_file_is_told_by_the_exit_code() {
    let folder = Folder::new();
    let write = |name: &str, text: &str| std::fs::write(folder.path("sites.d").join(name), text).unwrap();
    std::fs::create_dir(folder.path("sites.d")).unwrap();
    write("plant-7.toml", "[link]\nrate_max = \"64kbit\"\n");
    // Odd, but no mistake.
    write("plant-8.toml", "[budget]\nreserve = \"10%\"\n");
    let good = check(&folder);
    let text = String::from_utf8(good.stdout).unwrap();
    assert_eq!((good.status.code(), good.stderr.len()), (Some(0), 0), "{text}");
    assert!(text.contains("plant-8.toml:2:11: budget.reserve") && text.ends_with(".toml is good\n"), "{text}");

    write("plant-7.toml", "[link]\nrate_max = \"64kbits\"\n");
    write("default.toml", "enabeld = false\n");
    let bad = check(&folder);
    let text = String::from_utf8(bad.stderr).unwrap();
    assert_eq!(bad.status.code(), Some(3), "{text}");
    assert!(text.contains("default.toml:1:1: enabeld: no such key") && text.contains("plant-7.toml:2:12: link.rate_max"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("2 problems in the site files"), "{text}");
}
