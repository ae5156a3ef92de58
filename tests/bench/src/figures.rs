//! What was measured, beside what was aimed at, as a table and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    PerSecond,
    Requests,
    Seconds,
    Nanoseconds,
    Megabytes,
    Percent,
    /// So many times as much.
    Times,
}

impl Unit {
    /// A figure as people read it.
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Requests if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Requests => format!("{value:.2}"),
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.1} s"),
            Self::Nanoseconds => format!("{value:.0} ns"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Percent => format!("{value:.2} %"),
            Self::Times => format!("× {value:.1}"),
        }
    }
}

/// What a figure is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// So much of what the ratio is of.
    Ratio(f64),
    /// This and nothing else.
    Exactly(f64),
    AtMost(f64),
}

/// A figure as a part of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub value: f64,
    /// Of what.
    pub of: &'static str,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// How many resources there were; absent where it does not matter.
    pub size: Option<usize>,
    pub what: String,
    pub value: f64,
    pub unit: Unit,
    pub target: Option<Target>,
    pub ratio: Option<Ratio>,
    /// Whether the target is met.
    pub met: Option<bool>,
}

impl Row {
    pub fn new(size: impl Into<Option<usize>>, what: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self { size: size.into(), what: what.into(), value, unit, target: None, ratio: None, met: None }
    }

    pub fn seconds(size: impl Into<Option<usize>>, what: impl Into<String>, time: Duration) -> Self {
        Self::new(size, what, time.as_secs_f64(), Unit::Seconds)
    }

    /// As a part of this much.
    pub fn of(mut self, whole: f64, of: &'static str) -> Self {
        self.ratio = (whole > 0.0).then(|| Ratio { value: self.value / whole, of });
        self.judged()
    }

    /// With a target, which the ratio is of if there is none yet.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        if let (None, Target::Exactly(aim) | Target::AtMost(aim)) = (self.ratio, target) {
            self = self.of(aim, "the target");
        }
        self.judged()
    }

    fn judged(mut self) -> Self {
        self.met = match (self.target, self.ratio) {
            (Some(Target::Exactly(aim)), _) => Some(self.value == aim),
            (Some(Target::AtMost(aim)), _) => Some(self.value <= aim),
            (Some(Target::Ratio(aim)), Some(ratio)) => Some(ratio.value >= aim),
            // What the ratio is of is still to be said.
            (Some(Target::Ratio(_)), None) | (None, _) => None,
        };
        self
    }

    /// In a line, for who watches.
    pub fn told(&self) -> String {
        let met = self.met.map_or("", |met| if met { ", as aimed at" } else { ", NOT as aimed at" });
        format!("{}: {}{met}", self.what, self.unit.show(self.value))
    }

    fn line(&self) -> String {
        let none = || "–".to_owned();
        let target = match self.target {
            Some(Target::Ratio(aim)) => format!("≥ {aim} of it"),
            Some(Target::Exactly(aim)) => self.unit.show(aim),
            Some(Target::AtMost(aim)) => format!("≤ {}", self.unit.show(aim)),
            None => none(),
        };
        let ratio = self.ratio.map_or_else(none, |Ratio { value, of }| format!("{value:.2} of {of}"));
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let size = self.size.map_or_else(none, grouped);
        format!("| {size} | {} | {} | {target} | {ratio} | {met} |", self.what, self.unit.show(self.value))
    }
}

/// `10000` as `10,000`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The smallest of the samples that so many percent of them do not exceed; `None` without samples.
pub fn percentile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// How much more each costs for so many more resources; at most linear is the target.
pub fn growth(lines: &Growth) -> Vec<Row> {
    let pairs = lines.iter().flat_map(|(line, points)| points.windows(2).map(move |pair| (line, pair)));
    let row = |(line, pair): (&&str, &[(usize, f64)])| {
        let &[(few, less), (many, more)] = pair else { return None };
        let (value, linear) = (more / less, many as f64 / few as f64);
        let row = Row::new(many, format!("{line}: growth since {}", grouped(few)), value, Unit::Times);
        (less > 0.0).then(|| row.of(linear, "linear").target(Target::AtMost(linear)))
    };
    pairs.filter_map(row).collect()
}

/// By what is measured, the figure of each size.
pub type Growth = BTreeMap<&'static str, Vec<(usize, f64)>>;

/// What is in the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub machine: String,
    /// How it was asked for.
    pub command: String,
    /// When it began.
    pub began: String,
    pub rows: Vec<Row>,
    /// For the plot.
    pub growth: Growth,
}

impl Report {
    pub fn table(&self) -> String {
        let mut text =
            "| Resources | What | Figure | Target | Ratio | Met |\n| ---: | --- | ---: | --- | --- | --- |\n"
                .to_owned();
        for row in &self.rows {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{}", row.line());
        }
        text
    }

    /// What the documentation says of it. The plot is beside the page.
    pub fn page(&self) -> String {
        format!(
            "Measured {} on {}, by `{}`.\n\n{}\n![How cost grows with the number of resources](performance.svg)\n",
            self.began,
            self.machine,
            self.command,
            self.table()
        )
    }

    /// How many targets there were, and how many of them were met.
    pub fn targets(&self) -> (usize, usize) {
        let judged: Vec<bool> = self.rows.iter().filter_map(|row| row.met).collect();
        (judged.len(), judged.iter().filter(|met| **met).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(all: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        all.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        assert_eq!(percentile(&[], 99), None);
        assert_eq!(percentile(&milliseconds([7]), 50), Some(Duration::from_millis(7)));
        let hundred = milliseconds((1..=100).rev());
        for (percent, expected) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)] {
            assert_eq!(percentile(&hundred, percent), Some(Duration::from_millis(expected)), "{percent}");
        }
        assert_eq!(percentile(&milliseconds([3, 1, 2]), 99), Some(Duration::from_millis(3)), "few: the worst");
    }

    #[test]
    fn a_row_is_judged_by_its_target() {
        let rate = |value| Row::new(10, "rate", value, Unit::PerSecond).of(100.0, "the ceiling");
        assert_eq!(rate(90.0).target(Target::Ratio(0.9)).met, Some(true));
        assert_eq!(rate(89.0).target(Target::Ratio(0.9)).met, Some(false));
        assert_eq!(rate(89.0).met, None);
        let late = Row::new(10, "rate", 90.0, Unit::PerSecond).target(Target::Ratio(0.9));
        assert_eq!((late.met, late.of(100.0, "the ceiling").met), (None, Some(true)), "in either order");
        let count = |value| Row::new(None, "writes", value, Unit::Requests);
        assert_eq!(count(2.0).target(Target::Exactly(2.0)).met, Some(true));
        assert_eq!(count(2.01).target(Target::Exactly(2.0)).met, Some(false));
        assert_eq!(count(0.0).target(Target::Exactly(0.0)).ratio, None, "of nothing there is no part");
        let time = Row::new(None, "time", 1.0, Unit::Seconds).target(Target::AtMost(2.0));
        assert_eq!((time.met, time.ratio), (Some(true), Some(Ratio { value: 0.5, of: "the target" })));
        assert_eq!(count(1.0).of(0.0, "the ceiling").ratio, None);
    }

    #[test]
    fn the_table_has_target_figure_and_ratio() {
        let rows = vec![
            Row::new(10_000, "cold", 240.0, Unit::PerSecond).of(260.0, "the ceiling").target(Target::Ratio(0.9)),
            Row::new(10_000, "ready", 12.0, Unit::Seconds).target(Target::AtMost(10.0)),
            Row::new(None, "plan::next", 812.4, Unit::Nanoseconds),
        ];
        let report = Report {
            machine: String::new(),
            command: String::new(),
            began: String::new(),
            rows,
            growth: BTreeMap::new(),
        };
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| 10,000 | cold | 240/s | ≥ 0.9 of it | 0.92 of the ceiling | yes |",
                "| 10,000 | ready | 12.0 s | ≤ 10.0 s | 1.20 of the target | **no** |",
                "| – | plan::next | 812 ns | – | – | – |",
            ]
        );
        assert_eq!(report.targets(), (2, 1));
    }

    #[test]
    fn growth_is_beside_linear() {
        let lines =
            [("none", vec![(1000, 0.0), (10_000, 1.0)]), ("time", vec![(1000, 4.0), (10_000, 38.0), (100_000, 500.0)])];
        let rows = growth(&lines.into());
        let told: Vec<String> = rows.iter().map(Row::line).collect();
        assert_eq!(
            told,
            [
                "| 10,000 | time: growth since 1,000 | × 9.5 | ≤ × 10.0 | 0.95 of linear | yes |",
                "| 100,000 | time: growth since 10,000 | × 13.2 | ≤ × 10.0 | 1.32 of linear | **no** |",
            ]
        );
    }

    #[test]
    fn large_numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
