//! Prometheus's text form: a family's help and type, then its samples.

use core::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

/// A text that grows by families and their samples.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// Begins a family of a number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "gauge");
    }

    /// Begins a family of a number that only grows.
    pub fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "counter");
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: &str) {
        self.family = name;
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample of the family begun last.
    pub fn one(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample(labels, &value);
    }

    /// A sample in seconds.
    pub fn seconds(&mut self, value: Duration) {
        self.seconds_of(&[], value);
    }

    /// A sample in seconds of what the labels name.
    pub fn seconds_of(&mut self, labels: &[(&str, &str)], value: Duration) {
        self.sample(labels, &value.as_secs_f64());
    }

    /// A whole family of times: how many took up to each end and no less than the end before, and how many there were
    /// and how long they took together.
    pub fn histogram<'a>(
        &mut self,
        name: &'static str,
        help: &str,
        ends: impl Iterator<Item = (&'a str, u64)>,
        (count, sum): (u64, Duration),
    ) {
        self.begin(name, help, "histogram");
        let mut so_far = 0;
        for (end, within) in ends {
            so_far += within;
            let _ = writeln!(self.out, "{name}_bucket{{le=\"{end}\"}} {so_far}");
        }
        let _ = writeln!(self.out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(self.out, "{name}_sum {}\n{name}_count {count}", sum.as_secs_f64());
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: &dyn Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, word)| format!("{name}=\"{}\"", escape(word))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.out, "{}{braces} {value}", self.family);
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }
}

/// A label's value as it stands between quotes.
fn escape(word: &str) -> String {
    word.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up() {
        let mut text = Text::default();
        let ends = [("0.1", 2), ("1", 3)].into_iter();
        text.histogram("t", "T.", ends, (6, Duration::from_millis(9_500)));
        let wanted = "# HELP t T.\n# TYPE t histogram\nt_bucket{le=\"0.1\"} 2\nt_bucket{le=\"1\"} 5\n\
                      t_bucket{le=\"+Inf\"} 6\nt_sum 9.5\nt_count 6\n";
        assert_eq!(text.finish(), wanted);
    }

    #[test]
    fn whatever_is_in_a_label_stays_in_it() {
        let mut text = Text::default();
        text.gauge("a", "A.");
        text.one(&[("name", "x\"} 1\ny\\")], 2);
        assert_eq!(text.finish(), "# HELP a A.\n# TYPE a gauge\na{name=\"x\\\"} 1\\ny\\\\\"} 2\n");
    }
}
