//! The command line: docker's words, flags and defaults.
//!
//! ```text
//! tarectl ps -a ──> globals: --root …, the words of the command     (what stands before the command)
//!                   commands: the one entry with these words          "ps", "container ls", "container list" are one
//!                   clap: this entry's flags alone                    (a definition of all of them costs as much as `ps`)
//!                   the entry's function ──> Result<u8>               a sentence and 125, or the container's own code
//! ```
//!
//! Nothing here knows how a thing is done: flags become the requests of the modules beside this one, what they return becomes text.

mod about;
mod args;
mod background;
mod commands;
mod container_args;
mod containers;
mod events;
mod files;
mod filter;
mod flags;
mod globals;
mod help;
mod image_args;
mod images;
mod inspect;
mod networks;
mod output;
mod ports;
mod ps;
mod request;
mod sentence;
mod size;
mod stats;
mod system;
mod top;
mod update;
mod volumes;

use std::ffi::OsString;
use std::process::ExitCode;

use self::commands::Entry;
pub use self::commands::tree;
use self::globals::{Globals, Line};
use crate::client::{Client, Programs};
use crate::error::{Context, Error, Result};

/// The whole program.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    match program(words.into_iter().collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn program(words: Vec<OsString>) -> Result<u8> {
    let line = globals::read(words)?;
    let (globals, words) = match line {
        Line::Help(words) => return help::print(&words),
        Line::Version => return output::line(&format!("tarectl version {}", env!("CARGO_PKG_VERSION"))).map(|()| 0),
        Line::Command { globals, words } => (globals, words),
    };
    let (entry, name) = match commands::find(&words)? {
        commands::Found::Entry(entry, name) => (entry, name),
        // A management word alone says what it has.
        commands::Found::Group(group) => return help::print(&[group.to_owned()]),
    };
    let program = OsString::from(format!("tarectl {name}"));
    let arguments = std::iter::once(program).chain(words.into_iter().skip(name.split(' ').count()));
    let matches = match entry.definition(name).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            return help::print(&name.split(' ').map(str::to_owned).collect::<Vec<_>>());
        }
        Err(error) => return Err(sentence::of(&error, name, entry.usage)),
    };
    run(entry, &globals, &matches)
}

/// Runs a command on one thread: there is nothing here that two could do.
fn run(entry: &Entry, globals: &Globals, matches: &clap::ArgMatches) -> Result<u8> {
    if !entry.for_everybody && !nix::unistd::geteuid().is_root() {
        return Err(Error::failed("tarectl makes containers, which only root can: run it with sudo"));
    }
    let client = Client::new(globals.paths()?, Programs::from_env()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the event loop".to_owned())?;
    tokio::task::LocalSet::new().block_on(&runtime, (entry.run)(&client, matches))
}
