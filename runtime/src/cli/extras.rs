//! What is made from the definition of the command line: completions and manual pages.

use std::fs;

use super::{CompletionArgs, ManArgs, tree};
use crate::error::{Context, Result};
use crate::output::print;

/// Prints the completion script of a shell.
pub fn completion(args: &CompletionArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree(), "tare", &mut script);
    print(&script)
}

/// Writes one page for the program and one for each command: `tare.1`, `tare-create.1` and so on.
pub fn man(args: &ManArgs) -> Result<()> {
    fs::create_dir_all(&args.dir).on("make", args.dir.display())?;
    clap_mangen::generate_to(tree(), &args.dir).on("write the manual pages to", args.dir.display())
}
