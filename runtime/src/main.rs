//! The `tare` program: an OCI runtime for Linux.
//!
//! It begins at C's `main` and not at Rust's: Rust's own start-up looks for the end of the stack in /proc/self/maps and makes
//! a second stack, to tell an overflow from other faults of memory. That costs as much as reading the configuration.
#![no_main]

use std::ffi::OsString;
use std::io::Write;

use tare::cli::{self, Asked, Command, Global};
use tare::error::{Context, Error, Result};
use tare::sys::process;
use tare::{
    checkpoint, create, delete, events, exec, features, kill, list, log, pause, ps, restore, run, selfexe, spec, start,
    state_cmd, update,
};

/// `main` itself. It is of this program and not of the library: whose tests have a `main` of their own.
#[path = "sys/entry.rs"]
mod entry;

/// The status of an exec that could not be done, as callers of runc know it; everything else that fails is 1.
const EXEC_FAILED: u8 = 255;

/// The whole program, from its arguments to its exit status.
fn program(words: Vec<OsString>) -> u8 {
    let line = match cli::globals(words) {
        Ok(Asked::For(line)) => line,
        Ok(Asked::Text(text)) => return print(&text),
        Err(error) => return fail(&error, 1),
    };
    if let Err(error) = log::open(&line.global) {
        return fail(&error, 1);
    }
    let global = line.global.clone();
    match line.command() {
        Ok(Asked::Text(text)) => print(&text),
        Err(error) => fail(&error, 1),
        Ok(Asked::For(command)) => {
            log::debug(format_args!("called for {command:?}"));
            let on_failure = if matches!(command, Command::Exec(_)) { EXEC_FAILED } else { 1 };
            match dispatch(&global, command) {
                Ok(status) => status,
                Err(error) => fail(&error, on_failure),
            }
        }
    }
}

/// One line a command. A status is what the process returned; every other command succeeds with 0.
fn dispatch(global: &Global, command: Command) -> Result<u8> {
    match command {
        Command::Create(args) => inside().and_then(|own| create::run(global, &args, &own)).map(|()| 0),
        Command::Run(args) => inside().and_then(|own| run::run(global, &args, &own)).map(status),
        Command::Exec(args) => inside().and_then(|own| exec::run(global, &args, &own)).map(status),
        Command::Start(args) => start::run(global, &args).map(|()| 0),
        Command::Kill(args) => kill::run(global, &args).map(|()| 0),
        Command::Delete(args) => delete::run(global, &args).map(|()| 0),
        Command::State(args) => state_cmd::run(global, &args).map(|()| 0),
        Command::List(args) => list::run(global, &args).map(|()| 0),
        Command::Ps(args) => ps::run(global, &args).map(|()| 0),
        Command::Events(args) => events::run(global, &args).map(|()| 0),
        Command::Pause(args) => pause::pause(global, &args).map(|()| 0),
        Command::Resume(args) => pause::resume(global, &args).map(|()| 0),
        Command::Update(args) => update::run(global, &args).map(|()| 0),
        Command::Spec(args) => spec::run(&args).map(|()| 0),
        Command::Features(_) => features::run().map(|()| 0),
        Command::Checkpoint(args) => checkpoint::run(global, &args).map(|()| 0),
        Command::Restore(args) => inside().and_then(|_| restore::run(global, &args)).map(status),
    }
}

/// Before a command that goes into a container: see `selfexe`. And nobody may look into what this process is about to
/// clone (ptrace(2), /proc/PID); without privileges that would also keep the id mappings from being written.
fn inside() -> Result<selfexe::Mount> {
    let own = selfexe::protect()?;
    if nix::unistd::geteuid().is_root() {
        process::set_undumpable().on("hide", "the runtime from ptrace")?;
    }
    Ok(own)
}

/// Exit statuses are a byte (wait(2)).
fn status(status: i32) -> u8 {
    (status & 0xff) as u8
}

fn print(text: &str) -> u8 {
    let mut output = std::io::stdout().lock();
    // Nothing else would write out what is left of a last line without an end.
    u8::from(output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err())
}

fn fail(error: &Error, status: u8) -> u8 {
    log::fatal(error);
    status
}
