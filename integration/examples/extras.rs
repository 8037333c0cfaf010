//! What is made from the definition of the command lines, for `integration/install` and for packagers:
//!
//! ```text
//! extras PROGRAM completion bash|zsh|fish     prints the completion script of a shell
//! extras PROGRAM man DIR                      writes one page for the program and one for each command
//! ```
//!
//! `PROGRAM` is `tare`, `tare-store` or `tarectl`. It is no command of theirs: generators that run once, at an installation, would
//! be a part of every start.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let [program, what, where_to] = args else {
        return Err("usage: extras PROGRAM completion bash|zsh|fish, or extras PROGRAM man DIR".into());
    };
    let mut tree = match *program {
        "tare" => tare::cli::tree(),
        "tare-store" => tare_store::cli::args::Cli::command(),
        "tarectl" => tarectl::cli::tree(),
        other => return Err(format!("{other:?} is none of the programs: tare, tare-store, tarectl").into()),
    };
    match *what {
        "completion" => {
            let shell: Shell = where_to.parse()?;
            clap_complete::generate(shell, &mut tree, *program, &mut std::io::stdout());
            Ok(())
        }
        "man" => {
            // Only then does every command know its whole name.
            tree.build();
            fs::create_dir_all(where_to)?;
            page(where_to.as_ref(), program, &tree)
        }
        other => Err(format!("{other:?} cannot be made: ask for completion or man").into()),
    }
}

/// A page of a command, in section 8 as runc's, and of those below it: `tare-store.8`, `tare-store-snapshot-prepare.8` and so on.
fn page(dir: &Path, program: &str, command: &Command) -> Result<(), Box<dyn Error>> {
    // The name of a page is one word.
    let name = command.get_bin_name().unwrap_or(program).replace(' ', "-");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(&name)).title(&name).section("8").render(&mut page)?;
    fs::write(dir.join(format!("{name}.8")), page)?;
    let mut below = command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
    below.try_for_each(|it| self::page(dir, program, it))
}
