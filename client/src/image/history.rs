//! `history`: the steps that made an image, the last one first.

use serde_json::{Value, json};

use super::reference::short;
use super::{layers, list, resolve};
use crate::client::Client;
use crate::error::Result;
use crate::table::shortened;
use crate::units::human_size_short;

/// Headings, and the fields below them.
pub const COLUMNS: &[(&str, &str)] = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// The same with times and sizes for programs.
pub const COLUMNS_EXACT: &[(&str, &str)] = &[
    ("IMAGE", "ID"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// As docker has it of what no image of its own is.
const MISSING: &str = "<missing>";
/// Characters of a command and of a comment.
const SHORT: usize = 45;

/// How the rows are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Sizes in bytes, times as such.
    pub exact: bool,
    /// Whole ids and commands.
    pub no_trunc: bool,
}

/// A row for each step. Only the last one has the image's id.
///
/// # Errors
/// There is no such image.
pub async fn rows(client: &Client, word: &str, options: Options) -> Result<Vec<Value>> {
    let image = resolve::find(client, word).await?;
    let mut chain = layers::chain(client, &image.chain_id).await?.into_iter();
    let mut rows = Vec::new();
    for (at, step) in image.document.history.iter().rev().enumerate() {
        let layer = if step.empty_layer { None } else { chain.next() };
        let size = match layer {
            Some(layer) => layers::size(client, &layer).await?,
            None => 0,
        };
        let id = match (at, options.no_trunc) {
            (0, true) => image.id.as_str(),
            (0, false) => short(&image.id),
            _ => MISSING,
        };
        let cut = |text: &str| if options.no_trunc { text.to_owned() } else { shortened(text, SHORT) };
        // Docker shows a command on one line.
        let by = step.created_by.replace('\t', " ");
        rows.push(json!({
            "ID": id,
            "CreatedSince": list::since(step.created),
            "CreatedAt": if step.created.is_never() { String::new() } else { rfc3339(&step.created.to_string()) },
            "CreatedBy": cut(&by),
            "Size": if options.exact { size.to_string() } else { human_size_short(size) },
            "Comment": cut(&step.comment),
        }));
    }
    Ok(rows)
}

/// To the second, as docker.
fn rfc3339(time: &str) -> String {
    format!("{}Z", time.get(..19).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_programs_are_to_the_second() {
        assert_eq!(rfc3339("2026-01-31T10:00:00.5Z"), "2026-01-31T10:00:00Z");
        assert_eq!(rfc3339("2026-01-31T10:00:00Z"), "2026-01-31T10:00:00Z");
    }
}
