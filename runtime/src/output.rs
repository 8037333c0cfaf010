//! Standard output: what a command answers. Whatever goes wrong is the log's.

use std::io::Write;

use crate::error::{Context, Result};

/// Writes to standard output, all of it or an error.
pub fn print(text: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text).and_then(|()| output.flush()).on("write to", "standard output")
}
