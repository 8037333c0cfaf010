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

/// Writes one page for the program and one for each command, in section 8 as runc's: `tare.8`, `tare-create.8` and so on.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut program = tree();
    // Only then does every command know its whole name.
    program.build();
    fs::create_dir_all(&args.dir).on("make", args.dir.display())?;
    let visible = program.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    for command in std::iter::once(&program).chain(visible) {
        let name = command.get_bin_name().unwrap_or("tare").replace(' ', "-");
        let path = args.dir.join(format!("{name}.8"));
        let mut page = Vec::new();
        // The name of a page is one word.
        let page_of = clap_mangen::Man::new(command.clone().display_name(&name)).title(&name).section("8");
        page_of.render(&mut page).and_then(|()| fs::write(&path, page)).on("write", path.display())?;
    }
    Ok(())
}
