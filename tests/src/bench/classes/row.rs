//! What is told of one without classes.

use std::time::Duration;

/// Alarms, and how old they were at the centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    written: usize,
    /// Of those that have arrived, in order.
    ages: Vec<Duration>,
    line_used: f64,
}

impl Row {
    /// Of `written` alarms these have arrived; `line_used` is the share of the line that was used towards the centre.
    #[must_use]
    pub fn new(written: usize, mut ages: Vec<Duration>, line_used: f64) -> Self {
        ages.sort_unstable();
        Self { written, ages, line_used }
    }

    /// A line, with its end.
    #[must_use]
    pub fn line(&self, name: &str) -> String {
        let Self { written, ages, line_used } = self;
        let arrived = if ages.len() < *written { format!(", {} arrived", ages.len()) } else { String::new() };
        let (p50, p99) = (self.at(50), self.at(99));
        format!("  {name:<15} {written:>4} alarms{arrived}, p50 {p50}, p99 {p99}; the line is used to {:.0} %\n", line_used * 100.0)
    }

    /// What has not arrived is older than all that has.
    fn at(&self, percent: usize) -> String {
        let age = self.ages.get(self.written * percent / 100);
        age.map_or_else(|| "not arrived".to_owned(), |age| format!("{} ms", age.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_arrived_is_among_the_oldest() {
        let ages: Vec<Duration> = (1..=60).rev().map(Duration::from_millis).collect();
        let line = Row::new(100, ages.clone(), 0.987).line("mm2");
        assert_eq!(line.trim(), "mm2              100 alarms, 60 arrived, p50 51 ms, p99 not arrived; the line is used to 99 %");
        assert!(Row::new(60, ages, 0.5).line("mm2").contains("  60 alarms, p50 31 ms, p99 60 ms;"));
        assert!(Row::new(3, Vec::new(), 0.5).line("mm2").contains("   3 alarms, 0 arrived, p50 not arrived, p99 not arrived;"));
    }
}
