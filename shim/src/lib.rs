//! `containerd-shim-tare-v2`: one process that holds the containers of a pod, between a daemon that may go away and a runtime
//! that only runs for an instant.
//!
//! ```text
//! daemon --starts--> bootstrap (start) --forks--> server: one thread, one tokio runtime
//!   |                                               |
//!   +------------------- ttrpc ------------------> service --sends--> tasks (owns the table)
//!   <--- events (ordered queue, retried) ----------------------------/   |      |
//!                                                    runtime (executes `tare`)  io, console, exits, oom, stats, mounts
//! ```
//!
//! The shim executes a runtime, it never links one.

pub mod args;
pub mod bootstrap;
pub mod cgroup;
pub mod cleanup;
pub mod command;
pub mod console;
pub mod container;
pub mod create;
pub mod ends;
pub mod error;
pub mod events;
pub mod exits;
pub mod info;
pub mod io;
pub mod log;
mod mountinfo;
pub mod mounts;
pub mod oom;
pub mod operations;
pub mod options;
pub mod process;
pub mod resident;
pub mod runtime;
pub mod sandbox;
pub mod serve;
pub mod server;
pub mod service;
pub mod socket;
pub mod start;
pub mod stats;
pub mod streaming;
pub mod sys;
pub mod tasks;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use args::{Action, Args};
use bootstrap::Outcome;
use error::{Context, Error, Result};

const USAGE: &str = "usage: containerd-shim-tare-v2 -namespace NS -id ID [-address A] [-publish-binary B] [-bundle DIR] \
                     [-debug] start|delete\n       containerd-shim-tare-v2 -namespace NS -id ID -socket PATH [-bundle DIR] [-debug]\n       \
                     containerd-shim-tare-v2 -v | -info\n";

/// The program with these words after its name.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::parse(words) {
        Ok(args) => args,
        Err(error) => return failed(&error, 2),
    };
    match act(&args) {
        Ok(Outcome::Reply(reply)) => match std::io::stdout().write_all(&reply).context(|| "write to stdout".to_owned())
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        },
        Ok(Outcome::Serve(inheritance)) => resident::run(*inheritance),
        Err(error) => failed(&error, 1),
    }
}

fn failed(error: &Error, status: u8) -> ExitCode {
    // With nowhere to say it, the status has to do.
    let _ = writeln!(std::io::stderr(), "containerd-shim-tare-v2: {error}");
    status.into()
}

fn act(args: &Args) -> Result<Outcome> {
    if args.help {
        return Ok(Outcome::Reply(USAGE.into()));
    }
    if args.version {
        let version = env!("CARGO_PKG_VERSION");
        return Ok(Outcome::Reply(format!("containerd-shim-tare-v2:\n  Version:  {version}\n").into()));
    }
    if args.info {
        return info::info(&bootstrap::input()?).map(Outcome::Reply);
    }
    match &args.action {
        Action::Start => {
            // Whatever a careless caller left open would stay open as long as the shim lives.
            sys::start::close_inherited();
            bootstrap::start(args)
        }
        Action::Delete => {
            log::to_stderr(if args.debug { tracing::Level::DEBUG } else { tracing::Level::WARN })?;
            cleanup::delete(args).map(Outcome::Reply)
        }
        Action::None if !args.socket.is_empty() => {
            sys::start::close_inherited();
            serve::serve(args)
        }
        Action::None => Err(Error::invalid("say what to do: start, delete, or -socket PATH to serve there")),
        Action::Unknown(word) => Err(Error::invalid(format!("there is no action {word:?}: say start or delete"))),
    }
}
