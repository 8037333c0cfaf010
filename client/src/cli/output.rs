//! What is printed: lines, tables, templates, errors.

use std::io::{self, Write};

use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::table;
use crate::template::Template;

/// Writes text to standard output, all of it. Who reads no more (`tarectl ps | head -1`) ends it without a word.
pub(super) fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| failed(&error))
}

/// Writes a line to standard output.
pub(super) fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

fn failed(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::new(Kind::Failed, "");
    }
    Error::failed(format!("write to standard output: {error}"))
}

/// Writes an error to standard error, as one line.
pub(super) fn complain(error: &Error) {
    if error.message.is_empty() {
        return;
    }
    // There is nobody to tell that nobody can be told.
    let _ = writeln!(io::stderr(), "tarectl: {}", error.message);
}

/// Tells of the containers that a list lacks, whose records cannot be read; the status that the command ends with.
pub(super) fn lacking(damaged: &[(String, Error)]) -> u8 {
    damaged.iter().for_each(|(_, error)| complain(error));
    damaged.first().map_or(0, |(_, error)| error.exit_code())
}

/// Does something with each of several things; those that fail are told of and do not keep the others from theirs.
pub(super) async fn each(names: &[String], mut act: impl AsyncFnMut(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(name).await {
            code = error.exit_code();
            complain(&error);
        }
    }
    Ok(code)
}

/// One field of each row, a line each.
pub(super) fn column(rows: &[Value], field: &str) -> String {
    rows.iter().map(|row| cell(row, field) + "\n").collect()
}

/// How a list is printed: `--format`.
#[derive(Debug)]
pub(super) enum Format {
    /// The usual table.
    Table,
    /// `table TEMPLATE`: cells between tabs, under headings.
    TableOf(Template, String),
    /// A line of JSON each.
    Json,
    /// A line of a template each.
    Lines(Template),
}

impl Format {
    /// As `--format` says; empty: the usual table.
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text.trim() {
            "" | "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            other => match other.strip_prefix("table").filter(|it| it.starts_with([' ', '\t'])) {
                Some(cells) => {
                    let cells = unescaped(cells.trim_start());
                    Template::parse(&cells).map(|it| Self::TableOf(it, cells))
                }
                None => Template::parse(&unescaped(text)).map(Self::Lines),
            },
        }
    }

    /// The list as text. `rows` are objects; `columns` are the headings of the usual table with the fields below them; `headings` are
    /// those of other fields. A field that is asked for and that none has is an error also when there is no row.
    pub(super) fn list(&self, columns: &[(&str, &str)], headings: &[(&str, &str)], rows: &[Value]) -> Result<String> {
        let mut out = Vec::new();
        let written = match self {
            Self::Table => {
                let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
                let cells: Vec<Vec<String>> =
                    rows.iter().map(|row| columns.iter().map(|(_, field)| cell(row, field)).collect()).collect();
                table::print(&mut out, &titles, &cells)
            }
            Self::TableOf(template, text) => {
                let heading = headings_of(text, columns, headings);
                let titles: Vec<&str> = heading.iter().map(String::as_str).collect();
                let mut cells = Vec::with_capacity(rows.len());
                for row in rows {
                    cells.push(template.run(row)?.split('\t').map(str::to_owned).collect());
                }
                table::print(&mut out, &titles, &cells)
            }
            Self::Json => rows.iter().try_for_each(|row| writeln!(out, "{row}")),
            Self::Lines(template) => {
                for row in rows {
                    // Writing to memory cannot fail.
                    let _ = writeln!(out, "{}", template.run(row)?);
                }
                Ok(())
            }
        };
        // As above.
        let _ = written;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

/// A field as text.
fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// A shell's `'\t'` and `'\n'`, which docker reads too.
fn unescaped(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}

/// The heading of each cell of a table's template: of the first field in it.
fn headings_of(template: &str, columns: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<String> {
    let heading = |cell: &str| {
        let field = cell.split("{{").skip(1).find_map(|action| {
            let start = action.find('.')? + 1;
            let name: String = action[start..].chars().take_while(char::is_ascii_alphanumeric).collect();
            (!name.is_empty()).then_some(name)
        });
        let Some(field) = field else { return cell.to_owned() };
        let known = columns.iter().chain(more).find(|(_, it)| *it == field);
        known.map_or_else(|| field.to_uppercase(), |(title, _)| (*title).to_owned())
    };
    template.split('\t').map(heading).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[(&str, &str)] = &[("CONTAINER ID", "ID"), ("NAMES", "Names")];

    fn listed(format: &str, rows: &[Value]) -> String {
        Format::parse(format).unwrap().list(COLUMNS, &[("STATUS", "State")], rows).unwrap()
    }

    #[test]
    fn lists_are_printed_as_docker_prints_them() {
        let rows = [json!({"ID": "0123456789ab", "Names": "web", "State": "running"})];
        assert_eq!(listed("", &rows), "CONTAINER ID   NAMES\n0123456789ab   web\n");
        assert_eq!(listed("table", &rows), listed("", &rows));
        assert_eq!(listed("json", &rows), "{\"ID\":\"0123456789ab\",\"Names\":\"web\",\"State\":\"running\"}\n");
        assert_eq!(listed("{{.Names}}\\t{{.State}}", &rows), "web\trunning\n");
        assert_eq!(listed("table {{.Names}}\\t{{upper .State}}", &rows), "NAMES     STATUS\nweb       RUNNING\n");
        assert_eq!(listed("table {{.Names}}\\t{{.State}}", &[]), "NAMES     STATUS\n");
        assert_eq!(listed("", &[]), "CONTAINER ID   NAMES\n");
        assert_eq!(listed("{{.ID}}", &[]), "");
    }
}
