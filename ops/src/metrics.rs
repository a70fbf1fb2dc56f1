//! Prometheus metrics whose names come from one list a program.
//!
//! A program lists its metrics once with [`metric_names!`](crate::metric_names) by the full name that a scrape shows after
//! `spillway_`, and registers each through [`Metrics`]. The name carries the conventions: it ends in `_total` if, and only if, it is a
//! counter; before that in its unit (`_bytes`, `_seconds`), which becomes the `# UNIT` of OpenMetrics.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};

use crate::process::ProcessCollector;

/// Prefix of every metric of ours.
pub const PREFIX: &str = "spillway";

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A gauge of fractions, such as seconds.
pub type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// A counter of fractions, such as seconds.
pub type FloatCounter = Counter<f64, std::sync::atomic::AtomicU64>;

/// One metric's name and help. Made by [`metric_names!`](crate::metric_names).
pub trait MetricName: Copy + 'static {
    /// Every metric of the program.
    const ALL: &'static [Self];

    /// The name as scraped, without the prefix: `records_acked_total`.
    fn name(self) -> &'static str;

    /// What it counts, as a sentence without its final period.
    fn help(self) -> &'static str;
}

/// Lists a program's metrics as an enum that is a [`MetricName`].
///
/// ```
/// spillway_ops::metric_names! {
///     /// Metrics of the example.
///     pub enum ExampleMetric {
///         RecordsAcked = "records_acked_total", "Records that the centre has committed";
///         LinkUp = "link_up", "1 while a session is open";
///     }
/// }
/// # use spillway_ops::MetricName;
/// assert_eq!(ExampleMetric::LinkUp.name(), "link_up");
/// ```
#[macro_export]
macro_rules! metric_names {
    ($(#[$meta:meta])* $vis:vis enum $enum:ident { $($variant:ident = $name:literal, $help:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $enum {
            $(#[doc = $help] $variant,)+
        }

        impl $crate::MetricName for $enum {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }
        }
    };
}

/// The registry of a program. Fill it at the start, then share it with [`crate::AdminServer`].
pub struct Metrics {
    /// Process and build, under the names that every dashboard knows.
    standard: Registry,
    ours: Registry,
    registered: Vec<&'static str>,
}

impl Metrics {
    /// A registry that holds the process's own metrics and `spillway_build_info{program, version}`.
    pub fn new(program: &'static str) -> Self {
        let mut standard = Registry::default();
        standard.register_collector(Box::new(ProcessCollector::new()));
        let mut ours = Registry::with_prefix(PREFIX);
        let build = prometheus_client::metrics::info::Info::new([("program", program), ("version", crate::cli::VERSION)]);
        ours.register("build", "Version of the running program", build);
        Self { standard, ours, registered: Vec::new() }
    }

    /// Registers `metric`, whose clones the program keeps and steps.
    pub fn register<N: MetricName>(&mut self, name: N, metric: impl Metric) {
        let parts = NameParts::of(name.name());
        debug_assert!(!self.registered.contains(&name.name()), "{} is registered twice", name.name());
        self.registered.push(name.name());
        match parts.unit {
            Some(unit) => self.ours.register_with_unit(parts.base, name.help(), unit, metric),
            None => self.ours.register(parts.base, name.help(), metric),
        }
    }

    /// A new counter under `name`.
    pub fn counter<N: MetricName>(&mut self, name: N) -> Counter {
        let counter = Counter::default();
        self.register(name, counter.clone());
        counter
    }

    /// A new gauge of whole numbers under `name`.
    pub fn gauge<N: MetricName>(&mut self, name: N) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, gauge.clone());
        gauge
    }

    /// A new gauge of fractions under `name`.
    pub fn float_gauge<N: MetricName>(&mut self, name: N) -> FloatGauge {
        let gauge = FloatGauge::default();
        self.register(name, gauge.clone());
        gauge
    }

    /// A new histogram under `name`; `buckets` are upper bounds in the name's unit, ascending.
    pub fn histogram<N: MetricName>(&mut self, name: N, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::new(buckets.iter().copied());
        self.register(name, histogram.clone());
        histogram
    }

    /// New metrics of one kind under `name`, one for each set of labels that is asked for. Labels must be of bounded number.
    pub fn family<L, M>(&mut self, name: impl MetricName) -> Family<L, M>
    where
        L: EncodeLabelSet + Clone + fmt::Debug + Eq + std::hash::Hash + Send + Sync + 'static,
        M: Default + Clone + Metric,
        Family<L, M>: Metric,
    {
        let family = Family::default();
        self.register(name, family.clone());
        family
    }

    /// Names that are listed but not registered: a dashboard would look for them in vain. For a test of each program.
    pub fn missing<N: MetricName>(&self) -> Vec<&'static str> {
        N::ALL.iter().map(|name| name.name()).filter(|name| !self.registered.contains(name)).collect()
    }

    /// Everything, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let encoded = text::encode_registry(&mut text, &self.standard)
            .and_then(|()| text::encode_registry(&mut text, &self.ours))
            .and_then(|()| text::encode_eof(&mut text));
        // Writing to a string cannot fail; a collector of ours that did would leave a text without its end mark.
        if encoded.is_err() {
            tracing::error!("metrics could not be encoded");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("registered", &self.registered).finish_non_exhaustive()
    }
}

/// Alerts of a documentation (`increase(spillway_gaps_total{reason!="expired"}[10m]) > 0`) on a rise of the metrics of `N` of which a scrape, `text`, has no sample that is
/// 0: they would miss the first event. For a test of each program, with the scrape of a fresh registry. Matchers of the form `label="value"` are looked at.
pub fn unseen_alerts<N: MetricName>(documentation: &str, text: &str) -> Vec<String> {
    let alerts = documentation.split("increase(").skip(1).filter_map(|rest| rest.split_once('[')).map(|(selector, _)| selector);
    let has_sample = |selector: &&str| {
        let (name, matchers) = selector.split_once('{').unwrap_or((selector, ""));
        let matcher = matchers.trim_end_matches('}');
        let wanted = if matcher.contains("!=") { "" } else { matcher };
        let fits = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(wanted));
        text.lines().any(|line| fits(line) && line.ends_with(" 0"))
    };
    let is_ours = |selector: &&str| {
        let name = selector.split('{').next().and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix('_'));
        name.is_some_and(|name| N::ALL.iter().any(|known| known.name() == name))
    };
    alerts.filter(is_ours).filter(|selector| !has_sample(selector)).map(str::to_owned).collect()
}

/// A metric's name taken apart as the encoder puts it together again: `base[_unit][_total]`.
struct NameParts {
    base: &'static str,
    unit: Option<Unit>,
}

impl NameParts {
    fn of(name: &'static str) -> Self {
        let name = name.strip_suffix("_total").unwrap_or(name);
        if let Some(base) = name.strip_suffix("_bytes") {
            Self { base, unit: Some(Unit::Bytes) }
        } else if let Some(base) = name.strip_suffix("_seconds") {
            Self { base, unit: Some(Unit::Seconds) }
        } else {
            Self { base: name, unit: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    metric_names! {
        /// Metrics of the tests.
        enum TestMetric {
            Records = "records_total", "Records";
            Wire = "wire_bytes_total", "Bytes on the wire";
            Unacked = "unacked_bytes", "Bytes without an ack";
            Rtt = "link_rtt_seconds", "Round trip";
            Latency = "latency_seconds", "Latency";
            Dead = "dead", "Never registered";
        }
    }

    #[test]
    fn what_is_scraped_is_what_the_list_says() {
        let mut metrics = Metrics::new("test");
        metrics.counter(TestMetric::Records).inc_by(3);
        let wire = metrics.family::<[(&'static str, &'static str); 1], Counter>(TestMetric::Wire);
        wire.get_or_create(&[("direction", "sent")]).inc_by(1500);
        metrics.gauge(TestMetric::Unacked).set(7);
        metrics.float_gauge(TestMetric::Rtt).set(0.25);
        metrics.histogram(TestMetric::Latency, &[0.1, 1.0]).observe(0.5);

        let text = metrics.encode();
        for line in [
            "spillway_records_total 3",
            "spillway_wire_bytes_total{direction=\"sent\"} 1500",
            "# UNIT spillway_wire_bytes bytes",
            "# TYPE spillway_wire_bytes counter",
            "spillway_unacked_bytes 7",
            "spillway_link_rtt_seconds 0.25",
            "spillway_latency_seconds_bucket{le=\"1.0\"} 1",
            "# HELP spillway_records Records.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("spillway_build_info{program=\"test\""), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(metrics.missing::<TestMetric>(), ["dead"]);
    }

    #[test]
    fn an_alert_on_what_is_not_there_yet_is_found() {
        let alerts = "`increase(spillway_records_total[10m]) > 0` `increase(spillway_wire_bytes_total{direction=\"sent\"}[10m])` `increase(spillway_other_total[1m])`";
        let unseen = |text: &str| unseen_alerts::<TestMetric>(alerts, text);
        let sent = "spillway_wire_bytes_total{direction=\"sent\"}";
        assert_eq!(unseen(&format!("spillway_records_total 0\n{sent} 0\n")), Vec::<String>::new());
        assert_eq!(unseen("spillway_records_total 0\nspillway_wire_bytes_total{direction=\"received\"} 0\n"), [sent]);
        assert_eq!(unseen(&format!("{sent} 0\n")), ["spillway_records_total"]);
    }
}
