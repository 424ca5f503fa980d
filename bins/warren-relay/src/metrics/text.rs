//! Prometheus's text form: a family's help and type, then its samples.

use core::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

/// A text that grows by families and their samples.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// Begins a family of a number that goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "gauge");
    }

    /// Begins a family of a number that only grows.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "counter");
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: &str) {
        self.family = name;
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family begun last. Labels are our own words, without quotes or backslashes.
    pub(super) fn one(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample(labels, &value);
    }

    /// A sample in seconds.
    pub(super) fn seconds(&mut self, value: Duration) {
        self.sample(&[], &value.as_secs_f64());
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: &dyn Display) {
        let labels: Vec<String> = labels.iter().map(|(name, word)| format!("{name}=\"{word}\"")).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.out, "{}{braces} {value}", self.family);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}
