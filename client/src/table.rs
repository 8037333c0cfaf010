//! Tables as docker prints them: columns as wide as their widest cell and three spaces, ten characters at least.

use std::io::{self, Write};

/// Prints a header and rows; every row has as many cells as the header.
///
/// # Errors
/// What it is written to fails.
pub fn print(to: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    // What docker sets its tabwriter to.
    aligned(to, header, rows, 10, 3)
}

/// As [`print`], with the columns of `docker top`: twenty characters at least.
///
/// # Errors
/// What it is written to fails.
pub fn print_wide(to: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    aligned(to, header, rows, 20, 3)
}

fn aligned(to: &mut impl Write, header: &[&str], rows: &[Vec<String>], least: usize, padding: usize) -> io::Result<()> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0).max(least - padding) + padding
        })
        .collect();
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < row.len() {
                let width = widths.get(column).copied().unwrap_or(0);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        writeln!(to, "{line}")?;
    }
    Ok(())
}

/// A text of at most so many characters; a longer one ends with an ellipsis.
#[must_use]
pub fn shortened(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_apart_and_the_last_is_not_padded() {
        let mut out = Vec::new();
        let rows = [vec!["0123456789ab".to_owned(), "busybox".to_owned(), "x".to_owned()]];
        print(&mut out, &["CONTAINER ID", "IMAGE", "NAMES"], &rows).unwrap();
        let expected = "CONTAINER ID   IMAGE     NAMES\n0123456789ab   busybox   x\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(shortened("\"sleep infinity and more\"", 20), "\"sleep infinity and…");
    }
}
