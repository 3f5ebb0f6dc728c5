//! What was measured: rows, a table for people, JSON for programs. Pure but for [`Report::write`].

use crate::process::Cpu;
use serde::Serialize;
use std::{fmt, path::Path};

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {}", round(*limit)),
            Self::AtLeast(limit) => write!(f, ">= {}", round(*limit)),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    goal: String,
    met: bool,
    rounds: Vec<f64>,
    /// CPU seconds of each process while it was measured, all rounds together.
    cpu: Cpu,
    /// How it was measured, where the name does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Rounds of one figure as they come in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    values: Vec<f64>,
    cpu: Cpu,
}

impl Rounds {
    /// Adds a round.
    pub(crate) fn add(&mut self, value: f64, cpu: Cpu) {
        self.values.push(value);
        self.cpu += cpu;
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &'static str, goal: Goal, rounds: &Rounds) {
        self.add_with_note(name, unit, goal, rounds, None);
    }

    /// Adds a figure that needs a word.
    pub(crate) fn add_with_note(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        goal: Goal,
        rounds: &Rounds,
        note: Option<String>,
    ) {
        let value = round(rounds.median());
        let row = Row {
            name: name.into(),
            value,
            unit,
            goal: goal.to_string(),
            met: goal.is_met(value),
            rounds: rounds.values.iter().copied().map(round).collect(),
            cpu: rounds.cpu.rounded(),
            note,
        };
        eprintln!("  {} = {} {} ({})", row.name, row.value, row.unit, row.goal);
        self.0.push(row);
    }

    /// Writes the rows as JSON, as a whole or not at all.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(&self.0)?)?;
        Ok(std::fs::rename(&partial, file)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ("figure", "value", "unit", "goal", "met");
        writeln!(
            f,
            "| {:<32} | {:>10} | {:<12} | {:<10} | {:<3} | {}",
            heads.0, heads.1, heads.2, heads.3, heads.4, CPU
        )?;
        writeln!(f, "|{:-<34}|{:->11}:|{:-<14}|{:-<12}|{:-<5}|{:-<27}|", "", "", "", "", "", "")?;
        for row in &self.0 {
            let met = if row.met { "yes" } else { "no" };
            let cpu = format!(
                "{:.1} / {:.1} / {:.1} of {:.1}",
                row.cpu.gateway, row.cpu.simulator, row.cpu.bench, row.cpu.wall
            );
            writeln!(
                f,
                "| {:<32} | {:>10} | {:<12} | {:<10} | {met:<3} | {cpu:<25} |",
                row.name, row.value, row.unit, row.goal
            )?;
        }
        write!(f, "CPU in seconds: gateway / simulator / load generator of elapsed time, all rounds together.")
    }
}

const CPU: &str = "CPU                       |";

/// Four significant digits, or whole numbers: more is noise.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (3 - value.abs().log10().floor() as i32).max(0);
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// The value below which a share of the values is; 0 without values.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Rounds {
        Rounds { values: values.to_vec(), cpu: Cpu::default() }
    }

    #[test]
    fn the_median_counts() {
        assert!((rounds(&[9.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
        assert!((rounds(&[1.0, 2.0]).median() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&sorted, 0.5) - 50.0).abs() < 1e-9);
        assert!((percentile(&sorted, 0.99) - 99.0).abs() < 1e-9);
        assert!((percentile(&[7.0], 0.99) - 7.0).abs() < 1e-9);
        assert!(percentile(&[], 0.99).abs() < 1e-9);
    }

    #[test]
    fn a_row_has_the_documented_form() {
        let mut report = Report::default();
        report.add("send_latency_p50", "ms", Goal::AtMost(3.0), &rounds(&[4.0, 2.0, 2.51234]));
        let row = serde_json::to_value(&report.0[0]).unwrap();
        assert_eq!(row["name"], "send_latency_p50");
        assert_eq!(row["value"], 2.512);
        assert_eq!(row["goal"], "<= 3");
        assert_eq!(row["met"], true);
        assert_eq!(row["rounds"], serde_json::json!([4.0, 2.0, 2.512]));
        assert!(row["cpu"]["gateway"].is_number());
    }

    #[test]
    fn goals_are_judged_on_the_right_side() {
        assert!(Goal::AtMost(5.0).is_met(5.0) && !Goal::AtMost(5.0).is_met(5.1));
        assert!(Goal::AtLeast(5.0).is_met(5.0) && !Goal::AtLeast(5.0).is_met(4.9));
    }
}
