//! The report: one row a figure, one column a contender, then tare's ratios to the others.

use std::fmt;

use serde_json::{Value, json};

/// The figures measured so far.
pub(crate) struct Table {
    contenders: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    unit: &'static str,
    /// By contender; None where it does not apply or failed.
    values: Vec<Option<f64>>,
}

impl Table {
    pub(crate) fn new(contenders: Vec<String>) -> Table {
        Table { contenders, rows: Vec::new() }
    }

    /// Adds a figure: samples by contender, of which the median counts; no samples, no figure.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, samples: &[Vec<f64>]) {
        let values = samples.iter().map(|samples| median(samples)).collect();
        self.rows.push(Row { name: name.to_owned(), unit, values });
    }

    fn ratios(&self, row: &Row) -> Vec<(String, f64)> {
        let at = |name: &str| self.contenders.iter().position(|contender| contender == name);
        let Some(ours) = at("tare").and_then(|index| row.values[index]) else { return Vec::new() };
        let others = self.contenders.iter().zip(&row.values).filter(|(name, _)| *name != "tare");
        others.filter_map(|(name, value)| Some((name.clone(), ours / (*value)?))).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A JSON object for each row.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let row = |row: &Row| {
            let medians: serde_json::Map<String, Value> =
                self.contenders.iter().zip(&row.values).map(|(name, value)| (name.clone(), json!(value))).collect();
            let ratios: serde_json::Map<String, Value> =
                self.ratios(row).into_iter().map(|(name, ratio)| (name, json!(ratio))).collect();
            json!({"name": row.name, "unit": row.unit, "median": medians, "tare_to": ratios})
        };
        self.rows.iter().map(row).collect()
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<34} {:>5}", "median", "")?;
        self.contenders.iter().try_for_each(|name| write!(f, " {name:>10}"))?;
        writeln!(f, "   tare to the others")?;
        for row in &self.rows {
            write!(f, "{:<34} {:>5}", row.name, row.unit)?;
            for value in &row.values {
                match value {
                    Some(value) if *value >= 1000.0 => write!(f, " {value:>10.0}")?,
                    Some(value) => write!(f, " {value:>10.2}")?,
                    None => write!(f, " {:>10}", "-")?,
                }
            }
            let ratios = self.ratios(row);
            write!(f, "  ")?;
            ratios.iter().try_for_each(|(name, ratio)| write!(f, " {ratio:.2} × {name}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}
