//! What the centre tells a site: written by one end, read by the other.

use std::fs;

use spillway_config::units::ByteSize;
use spillway_config::{Count, Problem, Profile, SiteFile, SiteSettings};
use spillway_plan::Rate;
use spillway_proto::SiteName;
use spillway_proto::limits::MAX_SETTINGS;

fn settings(text: &str) -> SiteSettings {
    SiteSettings::parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn said(text: &str) -> String {
    SiteSettings::parse(text).unwrap_err().to_string()
}

const ALL: &str = "\
[link]
rate_max = \"512kbit\"
count = \"both\"
time_zone = \"Europe/Berlin\"
timetable = [\"Mon-Fri 08:00 512kbit, 12:00 10Mbit, 23:00 off\", \"Sat 09:00 unlimited\"]
profile = \"metered\"
[budget]
daily = \"20MB\"
monthly = \"300MiB\"
month_begins = 15
reserve = \"10%\"
";

#[test]
fn what_is_written_is_read_again() {
    assert_eq!(settings(ALL).to_text(), ALL);
    assert_eq!(settings(""), SiteSettings::default());
    assert_eq!(SiteSettings::default().to_text(), "");
    let session = "[link]\nprofile = \"session\"\n";
    assert_eq!((settings(session).profile, settings(session).to_text().as_str()), (Profile::Session, session));
    // Each alone, and with blanks and comments that are not kept.
    for line in ALL.lines().filter(|line| line.contains(" = ")) {
        let table = if ALL.split("[budget]").nth(1).unwrap().contains(line) { "budget" } else { "link" };
        let text = format!("[{table}]\n{line}\n");
        assert_eq!(settings(&format!("# a comment\n\n[{table}]\n  {line}  # why\n")).to_text(), text);
    }
}

#[test]
fn settings_mean_what_they_say() {
    let all = settings(ALL);
    assert_eq!((all.count, all.profile, all.reserve, all.month_begins), (Count::Both, Profile::Metered, 10, 15));
    assert_eq!((all.daily, all.monthly), (Some(ByteSize::from_bytes(20_000_000)), Some(ByteSize::from_mib(300))));
    let limits = all.limits(Some("2Mbit".parse().unwrap()));
    assert_eq!((limits.own, limits.site), (Rate::bits(2_000_000), Rate::bits(512_000)));
    // 23:30 in Berlin.
    assert!(limits.is_off("2026-03-03T22:30:00Z".parse().unwrap()));
    let none = SiteSettings::default().limits(None);
    assert_eq!((none.site, none.timetable, none.budget), (Rate::Unlimited, None, None));
}

#[test]
fn the_centre_names_no_files_of_the_site() {
    let said = said("[link]\nrate_max_file = '/etc/passwd'\n");
    assert!(said.contains("settings of the centre:2:1: rate_max_file: a file cannot be named here"), "{said}");
}

#[test]
fn what_a_later_centre_says_is_refused_with_its_line() {
    let said = said("[link]\nrate_max = '9kbit'\ncolour = 'red'\n");
    assert!(said.contains("settings of the centre:3:1: link.colour: no such key"), "{said}");
}

#[test]
fn settings_that_cannot_be_sent_are_refused() {
    let texts: Vec<String> = (0..60).map(|day| format!("'Mon{} {:02}:{:02} 9kbit'", " ".repeat(300), day / 60, day % 60)).collect();
    let said = said(&format!("[link]\ntimetable = [{}]\n", texts.join(", ")));
    assert!(said.contains(&format!("{MAX_SETTINGS} can be sent to a site")), "{said}");
}

#[test]
fn a_site_file_has_settings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plant-7.toml"), format!("enabled = false\n{ALL}")).unwrap();
    let site = SiteName::parse("plant-7").unwrap();
    assert_eq!(SiteFile::load_for(folder.path(), &site), Ok(Some((SiteFile { enabled: false, settings: settings(ALL) }, Vec::new()))));
}

/// Writes these files into the folder of the site files, and answers what is said of them: problems, then warnings.
fn found(files: &[(&str, &[u8])]) -> [Vec<String>; 2] {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::create_dir(folder.path().join("plant-9.toml")).unwrap();
    let found = SiteFile::check_all(folder.path());
    let text = |problem: &Problem| problem.to_string().replace(&format!("{}/", folder.path().display()), "");
    [found.problems, found.warnings].map(|list| list.iter().map(text).collect())
}

#[test]
fn a_site_file_that_is_no_text_gets_a_remedy_that_helps() {
    let [problems, warnings] = found(&[("plant-7.toml", b"# 5 \xb0C\n"), ("plant-8.toml", b"")]);
    let expected = [
        "plant-7.toml: not UTF-8\n    fix: save it as UTF-8",
        "plant-9.toml: cannot be read: is a directory\n    fix: put a file in its place, or name another one",
    ];
    assert_eq!((problems.as_slice(), warnings.len()), (expected.map(String::from).as_slice(), 0));
}

#[test]
fn keys_without_effect_are_told() {
    let odd = b"[link]\ntimetable = []\n[budget]\nreserve = '10%'\n".as_slice();
    let (swapped, good) =
        (b"[budget]\ndaily = '50MB'\nmonthly = '40MB'\nreserve = '10%'\n", b"[budget]\ndaily = '40MB'\nmonthly = '40MB'\n");
    let [_, warnings] = found(&[("a.toml", odd), ("b.toml", swapped), ("c.toml", good)]);
    let expected = [
        "a.toml:2:13: link.timetable = []: without effect: it is empty",
        "a.toml:4:11: budget.reserve = \"10%\": without effect: there is no budget",
        "b.toml:2:9: budget.daily = \"50MB\": without effect: a month has 40MB",
    ];
    let said: Vec<&str> = warnings.iter().map(|warning| warning.lines().next().unwrap()).collect();
    assert_eq!(said, expected);
}
