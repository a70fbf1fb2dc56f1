//! What operators write: agent.toml, collector.toml, a site's file, and the units in them.

use std::path::Path;
use std::str::FromStr;

use jiff::Timestamp;
use spillway_config::units::{BitRate, ByteSize, parse_duration};
use spillway_config::{AgentConfig, CollectorConfig, HostPort, Problems, SiteFile, SiteSettings};
use spillway_proto::{SiteName, limits};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => file(rest, |path| AgentConfig::load(path, NO_ENVIRONMENT).map(drop)),
        1 => file(rest, |path| CollectorConfig::load(path, NO_ENVIRONMENT).map(drop)),
        2 => {
            let site = SiteName::parse("fuzz").expect("a site");
            file(rest, |path| SiteFile::load_for(path.parent().unwrap_or(path), &site).map(drop));
            settings(&String::from_utf8_lossy(rest));
        }
        _ => units(&String::from_utf8_lossy(rest)),
    }
}

const NO_ENVIRONMENT: [(String, String); 0] = [];

fn file(text: &[u8], load: impl FnOnce(&Path) -> Result<(), Problems>) {
    let Err(problems) = load(&crate::file::write("fuzz.toml", text)) else { return };
    assert!(problems.iter().next().is_some(), "refused without a reason");
    for problem in problems.iter() {
        assert!(!problem.what.is_empty() && !problem.fix.is_empty(), "{problem:?}");
    }
    assert!(!problems.to_string().is_empty());
}

/// What a site is told: either end understands what the other one writes.
fn settings(text: &str) {
    let Ok(settings) = SiteSettings::parse(text) else { return };
    let written = settings.to_text();
    assert!(written.len() <= limits::MAX_SETTINGS);
    assert_eq!(SiteSettings::parse(&written).as_ref(), Ok(&settings), "{written}");
    // Whatever the timetable, it can be looked up at any time.
    let plan = settings.limits(None);
    for second in [i64::from(i32::MIN), 0, 1_772_000_000, 1_772_000_000 + text.len() as i64 * 997, i64::from(i32::MAX)] {
        let now = Timestamp::from_second(second).expect("within a century or so");
        let next = plan.now(now, None).until;
        assert!(next.is_none_or(|next| next > now), "{now} {next:?}");
    }
}

/// What is accepted can be printed and read again, and means the same.
fn units(text: &str) {
    if let Ok(size) = ByteSize::from_str(text) {
        assert_eq!(ByteSize::from_str(&size.to_string()).as_ref(), Ok(&size));
    }
    if let Ok(rate) = BitRate::parse_limit(text) {
        assert_eq!(BitRate::parse_limit(&BitRate::limit_text(rate)).as_ref(), Ok(&rate));
    }
    if let Ok(address) = HostPort::from_str(text) {
        assert_eq!(HostPort::from_str(&address.to_string()).as_ref(), Ok(&address));
    }
    let _time = parse_duration(text);
}
