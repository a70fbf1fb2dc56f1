//! Values to types. A parser takes an [`Item`] and returns what it means, or the [`Flaw`] in it; the reader adds where and which key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::layer::{Item, Origin, Source, Value, parse_toml};
use crate::units::{self, BitRate, ByteSize, DurationText, Kind, parse_duration};

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) what: String,
    pub(crate) fix: String,
}

impl Flaw {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

impl From<units::Error> for Flaw {
    fn from(error: units::Error) -> Self {
        Self::new(error.to_string(), error.fix())
    }
}

/// A text that is not empty.
pub(crate) fn text(item: &Item) -> Result<String, Flaw> {
    match &item.value {
        Value::Text(text) | Value::Untyped(text) if text.is_empty() => Err(Flaw::new("empty", "write a value, or leave the key out")),
        Value::Text(text) | Value::Untyped(text) => Ok(text.clone()),
        other => Err(Flaw::new(format!("must be a text, not {}", other.noun()), "write it in quotes")),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(item: &Item) -> Result<bool, Flaw> {
    match &item.value {
        Value::Boolean(flag) => Ok(*flag),
        Value::Untyped(text) if text == "true" => Ok(true),
        Value::Untyped(text) if text == "false" => Ok(false),
        Value::Text(_) | Value::Untyped(_) => Err(Flaw::new("must be true or false", "write true or false, without quotes")),
        other => Err(Flaw::new(format!("must be true or false, not {}", other.noun()), "write true or false, without quotes")),
    }
}

/// A whole number within bounds.
pub(crate) fn integer<T>(bounds: RangeInclusive<T>) -> impl Fn(&Item) -> Result<T, Flaw>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |item| {
        let advice = || format!("write a whole number from {} to {}, without quotes", bounds.start(), bounds.end());
        let number = match &item.value {
            Value::Integer(number) => Some(*number),
            Value::Untyped(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| Flaw::new("must be a whole number", advice()))?;
        match T::try_from(number) {
            Ok(number) if bounds.contains(&number) => Ok(number),
            _ => Err(Flaw::new("out of bounds", advice())),
        }
    }
}

/// A size within bounds.
pub(crate) fn size(bounds: RangeInclusive<ByteSize>) -> impl Fn(&Item) -> Result<ByteSize, Flaw> {
    move |item| within(quantity_text(item, Kind::Size)?.parse()?, &bounds)
}

/// A duration within bounds.
pub(crate) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Item) -> Result<Duration, Flaw> {
    let bounds = DurationText(*bounds.start())..=DurationText(*bounds.end());
    move |item| {
        let DurationText(duration) = within(DurationText(parse_duration(&quantity_text(item, Kind::Duration)?)?), &bounds)?;
        Ok(duration)
    }
}

/// A rate of at least so many bits a second, or "unlimited".
pub(crate) fn rate_limit(least_bits: u64) -> impl Fn(&Item) -> Result<Option<BitRate>, Flaw> {
    move |item| match BitRate::parse_limit(&quantity_text(item, Kind::Rate)?)? {
        Some(rate) if rate.bits_per_second() < least_bits => {
            let least = units::rate_text(least_bits);
            Err(Flaw::new(format!("less than {least}"), format!("write \"{least}\" or more, or \"unlimited\"")))
        }
        limit => Ok(limit),
    }
}

/// What `parse` reads, or a word that stands for none of it: "off", "unlimited".
pub(crate) fn unless<T>(word: &'static str, parse: impl Fn(&Item) -> Result<T, Flaw>) -> impl Fn(&Item) -> Result<Option<T>, Flaw> {
    move |item| match &item.value {
        Value::Text(text) | Value::Untyped(text) if text == word => Ok(None),
        _ => parse(item).map(Some).map_err(|flaw| Flaw { fix: format!("{}, or \"{word}\"", flaw.fix), ..flaw }),
    }
}

/// One of a few words.
pub(crate) fn word<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&Item) -> Result<T, Flaw> {
    move |item| {
        let advice = || {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("write {}", alternatives(&words))
        };
        let written = text(item).map_err(|flaw| Flaw { fix: advice(), ..flaw })?;
        let chosen = choices.iter().find(|(word, _)| *word == written);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| Flaw::new("not one of the words known here", advice()))
    }
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The elements of a list. A variable or a value file holds either a TOML list or elements with commas between them.
pub(crate) fn elements(item: &Item) -> Result<Vec<Item>, Flaw> {
    match &item.value {
        Value::List(items) => Ok(items.clone()),
        Value::Untyped(text) if text.trim_start().starts_with('[') => toml_list(item, text),
        Value::Untyped(text) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(parts.map(|part| Item { value: Value::Untyped(part.to_owned()), ..item.clone() }).collect())
        }
        Value::Text(_) => Err(Flaw::new("must be a list, not a text", format!("put it in brackets: [{}]", item.value.shown()))),
        other => Err(Flaw::new(format!("must be a list, not {}", other.noun()), "write a list of texts: [\"…\", \"…\"]")),
    }
}

/// Reads a TOML list that stands alone; its elements get the place of the whole.
fn toml_list(item: &Item, text: &str) -> Result<Vec<Item>, Flaw> {
    const NAME: &str = "list";
    let text = format!("{NAME} = {text}");
    let source = Source::new(Origin::Variable(String::new()), &text);
    let flaw = |what: String| {
        let fix = "what begins with a bracket is read as a TOML list: write ['…', '…'], also around a single element";
        Flaw::new(what, fix)
    };
    let mut tree = parse_toml(&source).map_err(|problem| flaw(problem.what))?;
    match tree.remove(NAME).map(|list| list.value) {
        Some(Value::List(items)) if tree.is_empty() => Ok(items.into_iter().map(|element| relocated(element, item)).collect()),
        _ => Err(flaw("not a list".to_owned())),
    }
}

/// The element of a list with the place and the layer of the list, all the way down.
fn relocated(element: Item, list: &Item) -> Item {
    let value = match element.value {
        Value::List(items) => Value::List(items.into_iter().map(|item| relocated(item, list)).collect()),
        Value::Table(tree) => Value::Table(tree.into_iter().map(|(key, item)| (key, relocated(item, list))).collect()),
        scalar => scalar,
    };
    Item { value, ..list.clone() }
}

/// The text of a quantity; a number becomes the text of it, so that the message is about the missing unit.
fn quantity_text(item: &Item, kind: Kind) -> Result<String, Flaw> {
    match &item.value {
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => text(item).map_err(|flaw| Flaw { fix: kind.advice().to_owned(), ..flaw }),
    }
}

fn within<T: PartialOrd + Display>(value: T, bounds: &RangeInclusive<T>) -> Result<T, Flaw> {
    let (least, most) = (bounds.start(), bounds.end());
    let flaw = |what| Err(Flaw::new(what, format!("write a value from \"{least}\" to \"{most}\"")));
    if value < *least {
        flaw(format!("less than {least}"))
    } else if value > *most {
        flaw(format!("more than {most}"))
    } else {
        Ok(value)
    }
}
