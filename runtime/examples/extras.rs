//! What is made from the definition of the command line, for `integration/install` and for packagers:
//!
//! ```text
//! extras completion bash|zsh|fish     prints the completion script of a shell
//! extras man DIR                      writes one page for the program and one for each command
//! ```
//!
//! Not a command of `tare` itself: generators that run once, at an installation, would be a part of every start.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;
use tare::cli::tree;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["completion", shell] => completion(shell),
        ["man", dir] => man(dir.as_ref()),
        _ => Err("usage: extras completion bash|zsh|fish, or extras man DIR".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn completion(shell: &str) -> Result<(), Box<dyn Error>> {
    let shell: Shell = shell.parse()?;
    clap_complete::generate(shell, &mut tree(), "tare", &mut std::io::stdout());
    Ok(())
}

/// In section 8 as runc's: `tare.8`, `tare-create.8` and so on.
fn man(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut program = tree();
    // Only then does every command know its whole name.
    program.build();
    fs::create_dir_all(dir)?;
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help");
    for command in std::iter::once(&program).chain(commands) {
        let name = command.get_bin_name().unwrap_or("tare").replace(' ', "-");
        let mut page = Vec::new();
        // The name of a page is one word.
        clap_mangen::Man::new(command.clone().display_name(&name)).title(&name).section("8").render(&mut page)?;
        fs::write(dir.join(format!("{name}.8")), page)?;
    }
    Ok(())
}
