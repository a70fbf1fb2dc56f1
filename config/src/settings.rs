use std::fmt::Write;
use std::path::Path;

use jiff::tz::TimeZone;
use spillway_plan::timetable::{Flaw as RateFlaw, TEXTS_MAX};
use spillway_plan::{Budget, Calendar, Limits, Rate, Timetable, period};
use spillway_proto::limits::MAX_SETTINGS;

use crate::layer::Item;
use crate::load;
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::site::REFERENCE;
use crate::units::{BitRate, ByteSize, rate_text};
use crate::{Problem, Problems, SiteFile};

/// What the centre tells a site: the part of its [`SiteFile`] that the agent follows. The collector writes it as a text, the agent
/// reads that text; both with this type, so that what one end takes the other understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSettings {
    /// Most bits a second on the wire. Default `None`: unlimited. At least 8 kbit. The agent's own `link.rate_max` holds as well.
    pub rate_max: Option<BitRate>,
    /// Which bytes count, for rates and budgets. Default: those sent.
    pub count: Count,
    /// Name of the zone of timetable and budget, as in the IANA database. Default UTC.
    pub time_zone: String,
    /// The texts of the timetable. Default empty: there is none.
    pub timetable: Vec<String>,
    /// What the line is paid by. Default normal.
    pub profile: Profile,
    /// Bytes of a day. Default `None`: unlimited. 5 MB to 1 TiB.
    pub daily: Option<ByteSize>,
    /// Bytes of a month. Default `None`: unlimited. 5 MB to 1 TiB.
    pub monthly: Option<ByteSize>,
    /// Day on which the budget's month begins. Default 1, up to 28.
    pub month_begins: i8,
    /// Part of the budgets that is kept for class 0, in percent. Default 0, up to 90.
    pub reserve: u8,
    parsed: Parsed,
}

/// What texts stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parsed {
    zone: TimeZone,
    timetable: Option<Timetable>,
}

/// Which bytes on the wire count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Those that the agent sends.
    Sent,
    /// Those that it receives as well.
    Both,
}

/// `link.profile`: what the line is paid by.
///
/// In order: of two that are asked for, the greater holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// By its rate.
    Normal,
    /// By the byte: a quiet connection costs next to nothing.
    Metered,
    /// By the minute, or the connection: there is none, unless there is reason.
    Session,
}

impl Profile {
    /// As it is written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Metered => "metered",
            Self::Session => "session",
        }
    }
}

/// Below this, not even acks and keep-alives get through.
pub(crate) const RATE_LEAST_BITS: u64 = 8_000;

/// The durable counter runs ahead in steps of a 400th: a handshake, some 6 kB, should not need many of them.
const BUDGET_LEAST: ByteSize = ByteSize::from_bytes(5_000_000);

/// More than any line that is billed by the byte: a slip of the pen.
const BUDGET_MOST: ByteSize = ByteSize::from_mib(1 << 20);

/// More than this, and the budget is for class 0 alone.
const RESERVE_MOST: u8 = 90;

const COUNTS: &[(&str, Count)] = &[("sent", Count::Sent), ("both", Count::Both)];
pub(crate) const PROFILES: &[(&str, Profile)] = &[
    (Profile::Normal.as_str(), Profile::Normal),
    (Profile::Metered.as_str(), Profile::Metered),
    (Profile::Session.as_str(), Profile::Session),
];

/// What an agent calls the text that it was sent, in messages.
const FROM_CENTRE: &str = "settings of the centre";

impl SiteSettings {
    /// Reads what [`SiteSettings::to_text`] wrote, at this version or another one.
    ///
    /// # Errors
    /// [`Problems`] has all of them, with their lines in `text`.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let file = load::load_text(&REFERENCE, Path::new(FROM_CENTRE), text, SiteFile::read)?;
        Ok(file.settings)
    }

    /// The settings as a TOML text of at most [`MAX_SETTINGS`] bytes. Only those that are not the default are in it: so an agent of an older version
    /// refuses only a setting that is in use and that it does not have.
    pub fn to_text(&self) -> String {
        let default = Self::default();
        let rate = BitRate::limit_text(self.rate_max);
        let timetable: Vec<String> = self.timetable.iter().map(|text| quoted(text)).collect();
        let link = [
            (self.rate_max != default.rate_max).then(|| ("rate_max", quoted(&rate))),
            (self.count != default.count).then(|| ("count", quoted(word(COUNTS, self.count)))),
            (self.time_zone != default.time_zone).then(|| ("time_zone", quoted(&self.time_zone))),
            (!timetable.is_empty()).then(|| ("timetable", format!("[{}]", timetable.join(", ")))),
            (self.profile != default.profile).then(|| ("profile", quoted(word(PROFILES, self.profile)))),
        ];
        let budget = [
            self.daily.map(|bytes| ("daily", quoted(&bytes.to_string()))),
            self.monthly.map(|bytes| ("monthly", quoted(&bytes.to_string()))),
            (self.month_begins != default.month_begins).then(|| ("month_begins", self.month_begins.to_string())),
            (self.reserve != default.reserve).then(|| ("reserve", quoted(&format!("{}%", self.reserve)))),
        ];
        let mut text = String::new();
        for (name, keys) in [("link", link.as_slice()), ("budget", budget.as_slice())] {
            if keys.iter().flatten().next().is_some() {
                let _infallible = writeln!(text, "[{name}]");
            }
            for (key, value) in keys.iter().flatten() {
                let _infallible = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// All that limits a site with these settings; `own` is `link.rate_max` of the agent's own file.
    pub fn limits(&self, own: Option<BitRate>) -> Limits {
        let bytes = |size: Option<ByteSize>| size.map(ByteSize::bytes);
        let budget = Budget {
            calendar: Calendar::new(self.parsed.zone.clone(), self.month_begins),
            daily: bytes(self.daily),
            monthly: bytes(self.monthly),
            reserve_percent: self.reserve,
        };
        let has_budget = budget.daily.is_some() || budget.monthly.is_some();
        Limits { own: rate(own), site: rate(self.rate_max), timetable: self.parsed.timetable.clone(), budget: has_budget.then_some(budget) }
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let link = table.table("link", |table| {
            let rate_max = table.required("rate_max", parse::rate_limit(RATE_LEAST_BITS));
            let count = table.required("count", parse::word(COUNTS));
            let zone = table.required("time_zone", time_zone);
            let texts = table.list("timetable", TEXTS_MAX, parse::text);
            let profile = table.required("profile", parse::word(PROFILES));
            let ((time_zone, zone), texts) = (zone?, texts?);
            let timetable = read_timetable(table, &zone, &texts);
            if texts.is_empty() {
                table.odd("timetable", Flaw::new("without effect: it is empty", "write a text as in the example, or leave the key out"));
            }
            Ok((rate_max?, count?, time_zone, texts, profile?, Parsed { zone, timetable: timetable? }))
        });
        let budget = table.table("budget", |table| {
            let size = || parse::unless("unlimited", parse::size(BUDGET_LEAST..=BUDGET_MOST));
            let (daily, monthly) = (table.required("daily", size()), table.required("monthly", size()));
            let month_begins = table.required("month_begins", parse::integer(1..=period::MONTH_BEGINS_MAX));
            let reserve = table.required("reserve", percent);
            let (daily, monthly, month_begins, reserve) = (daily?, monthly?, month_begins?, reserve?);
            if let (Some(day), Some(month)) = (daily, monthly)
                && day > month
            {
                let what = format!("without effect: a month has {month}");
                table.odd("daily", Flaw::new(what, "write less than monthly, or leave the key out; or is it monthly that is wrong?"));
            }
            if reserve > 0 && daily.is_none() && monthly.is_none() {
                table.odd(
                    "reserve",
                    Flaw::new("without effect: there is no budget", "write daily or monthly as well, or leave the key out"),
                );
            }
            Ok((daily, monthly, month_begins, reserve))
        });
        let ((rate_max, count, time_zone, timetable, profile, parsed), (daily, monthly, month_begins, reserve)) = (link?, budget?);
        let settings = Self { rate_max, count, time_zone, timetable, profile, daily, monthly, month_begins, reserve, parsed };
        let length = settings.to_text().len();
        if length > MAX_SETTINGS {
            let what = format!("makes the settings {length} bytes long, {MAX_SETTINGS} can be sent to a site");
            let fix = "join days that are alike: Mon-Fri, daily";
            return Err(table
                .table("link", |link| Err::<(), _>(link.contradiction("timetable", Flaw::new(what, fix))))
                .err()
                .unwrap_or(Reported));
        }
        Ok(settings)
    }
}

impl Default for SiteSettings {
    /// What a site is told that has an empty file: nothing.
    fn default() -> Self {
        let parsed = Parsed { zone: TimeZone::UTC, timetable: None };
        Self {
            rate_max: None,
            count: Count::Sent,
            time_zone: "UTC".to_owned(),
            timetable: Vec::new(),
            profile: Profile::Normal,
            daily: None,
            monthly: None,
            month_begins: 1,
            reserve: 0,
            parsed,
        }
    }
}

/// Refuses keys `…_file`: what the centre sends names no files of the site.
pub(crate) fn refuse_files(tree: &crate::layer::Tree, problems: &mut Vec<Problem>) {
    for (key, item) in tree {
        if let crate::layer::Value::Table(inner) = &item.value {
            refuse_files(inner, problems);
        } else if key.ends_with("_file") {
            let what = "a file cannot be named here".to_owned();
            let fix = "write the value itself".to_owned();
            problems.push(Problem { place: item.key_place.clone(), key: Some(key.clone()), value: None, what, fix });
        }
    }
}

fn rate(limit: Option<BitRate>) -> Rate {
    limit.map_or(Rate::Unlimited, |rate| Rate::bits(rate.bits_per_second()))
}

fn word<T: PartialEq + Copy>(choices: &[(&'static str, T)], value: T) -> &'static str {
    choices.iter().find(|(_, choice)| *choice == value).map_or("", |(word, _)| word)
}

/// As TOML.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn time_zone(item: &Item) -> Result<(String, TimeZone), Flaw> {
    let name = parse::text(item)?;
    match TimeZone::get(&name) {
        Ok(zone) => Ok((name, zone)),
        Err(_) => Err(Flaw::new("no time zone", "write a name of the IANA database, for example \"Europe/Berlin\" or \"UTC\"")),
    }
}

fn percent(item: &Item) -> Result<u8, Flaw> {
    let flaw = |what: &str| Flaw::new(what, format!("write a part in percent from \"0%\" to \"{RESERVE_MOST}%\""));
    let text = parse::text(item).map_err(|_| flaw("must be a part in percent"))?;
    let digits = text.strip_suffix('%').filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let percent: u8 = digits.ok_or_else(|| flaw("not a part in percent"))?.parse().map_err(|_| flaw("out of bounds"))?;
    if percent > RESERVE_MOST { Err(flaw("out of bounds")) } else { Ok(percent) }
}

fn read_timetable(table: &Table<'_>, zone: &TimeZone, texts: &[String]) -> Result<Option<Timetable>, Reported> {
    if texts.is_empty() {
        return Ok(None);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let timetable = Timetable::parse(zone.clone(), &texts, timetable_rate).map_err(|error| {
        let what = if texts.len() > 1 { format!("element {}: {error}", error.text() + 1) } else { error.to_string() };
        table.contradiction("timetable", Flaw::new(what, error.fix()))
    })?;
    if timetable.is_always_off() {
        let flaw = Flaw::new("off all week: the site could never be told otherwise", "write a rate for some hour, or enabled = false");
        return Err(table.contradiction("timetable", flaw));
    }
    Ok(Some(timetable))
}

/// A rate in a timetable.
fn timetable_rate(text: &str) -> Result<Rate, RateFlaw> {
    if text == "off" {
        return Ok(Rate::Off);
    }
    let limit =
        BitRate::parse_limit(text).map_err(|error| RateFlaw { what: error.to_string(), fix: format!("{}, or \"off\"", error.fix()) })?;
    if let Some(slow) = limit.filter(|rate| rate.bits_per_second() < RATE_LEAST_BITS) {
        let least = rate_text(RATE_LEAST_BITS);
        return Err(RateFlaw { what: format!("less than {least} ({slow})"), fix: format!("write {least} or more, or off") });
    }
    Ok(rate(limit))
}
