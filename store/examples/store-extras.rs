//! What is made from the definition of the command line, for `integration/install` and for packagers:
//!
//! ```text
//! store-extras completion bash|zsh|fish     prints the completion script of a shell
//! store-extras man DIR                      writes one page for the program and one for each command
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use tare_store::cli::args::Cli;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["completion", shell] => completion(shell),
        ["man", dir] => man(dir.as_ref()),
        _ => Err("usage: store-extras completion bash|zsh|fish, or store-extras man DIR".into()),
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
    clap_complete::generate(shell, &mut Cli::command(), "tare-store", &mut std::io::stdout());
    Ok(())
}

/// In section 8: `tare-store.8`, `tare-store-pull.8`, `tare-store-snapshot-prepare.8` and so on.
fn man(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut program = Cli::command();
    // Only then does every command know its whole name.
    program.build();
    fs::create_dir_all(dir)?;
    page(dir, &program)
}

/// A page of a command, and of those below it.
fn page(dir: &Path, command: &clap::Command) -> Result<(), Box<dyn Error>> {
    let name = command.get_bin_name().unwrap_or("tare-store").replace(' ', "-");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(&name)).title(&name).section("8").render(&mut page)?;
    fs::write(dir.join(format!("{name}.8")), page)?;
    command.get_subcommands().filter(|it| it.get_name() != "help").try_for_each(|it| self::page(dir, it))
}
