//! Log lines to stderr, one event a line.
//!
//! Levels: error = data lost or an operator is needed; warn = odd, and recovered from; info = lifecycle; debug = rare events;
//! trace = per batch. Messages are constant, values are fields.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, util::TryInitError};

/// The environment variable that sets the filter: `debug`, or `info,spillway_link=trace`.
pub const FILTER_VARIABLE: &str = "SPILLWAY_LOG";

/// What holds without [`FILTER_VARIABLE`], and beneath it: libraries speak only of trouble, unless asked for by name.
const BASE_FILTER: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,hyper=warn,rdkafka=warn,librdkafka=warn";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message` and the event's fields beside them.
    Json,
}

/// Starts logging for the whole process, with the filter from the environment. Call once, before the first event.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn init(format: Format) -> Result<(), Error> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    // Where stderr takes nothing any more, nobody is told; to say so there would end the program.
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match format {
        Format::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            tracing_subscriber::util::SubscriberInitExt::try_init(lines.with_ansi(colour).finish())
        }
        Format::Json => tracing_subscriber::util::SubscriberInitExt::try_init(
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish(),
        ),
    }
    .map_err(Error::Twice)
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is no filter.
    #[error("{FILTER_VARIABLE}={value:?} is no log filter; examples: debug, or info,spillway_link=trace")]
    Filter {
        /// What the variable holds.
        value: String,
        /// What the parser found.
        source: ParseError,
    },
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice(#[source] TryInitError),
}

/// [`BASE_FILTER`] with what the user asked for laid over it: a directive replaces the base's for the same target.
fn filter(asked: Option<&str>) -> Result<EnvFilter, Error> {
    let mut filter = EnvFilter::new(BASE_FILTER);
    let value = asked.unwrap_or_default();
    for directive in value.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let directive = directive.parse().map_err(|source| Error::Filter { value: value.to_owned(), source })?;
        filter = filter.add_directive(directive);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_asked_for_lies_over_the_base() {
        assert_eq!(filter(None).unwrap().to_string(), filter(Some("")).unwrap().to_string());
        let asked = filter(Some("debug, quinn=trace")).unwrap().to_string();
        let directives: Vec<&str> = asked.split(',').collect();
        assert!(directives.contains(&"debug") && !directives.contains(&"info"), "{asked}");
        assert!(directives.contains(&"quinn=trace") && !directives.contains(&"quinn=warn"), "{asked}");
        assert!(directives.contains(&"librdkafka=warn"), "{asked}");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = filter(Some("spillway=loud")).unwrap_err();
        assert!(error.to_string().starts_with("SPILLWAY_LOG=\"spillway=loud\" is no log filter"), "{error}");
    }
}
