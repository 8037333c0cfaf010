//! A runtime that fails as it is told: it stands where a shim or an engine expects an OCI runtime, plays the fault that its
//! plan has for the command, and lets the real runtime (`TARE_BIN`, or what it is given as REAL) do the rest.
//!
//! The plan is a file in the state root, `ROOT/../faults`, since the root is what every caller passes on. A line is
//! `COMMAND FAULT [ARGUMENT]`; the first line for a command counts:
//!
//! ```text
//! create hang                 says nothing and never returns
//! create signal 9             kills itself before it does anything
//! create after-signal 9       does it, then kills itself
//! create exit 3               ends with this status, silently
//! create error some words     logs the words as the runtime's error and ends with 1
//! create garbage              bytes that are neither JSON nor text, into the log and standard error; ends with 1
//! create chatter 4194304      so many bytes on standard error first, then does it
//! create chatter-error 100000 an error sentence of so many bytes
//! create no-pid               does it, then empties the pid file
//! create wrong-pid            does it, then writes a number into the pid file that no process has
//! create hold                 does it, and leaves a process that holds the standard streams open for a minute
//! create wait FILE            waits until FILE exists, then does it
//! create late FILE            does it, and returns once FILE exists
//! ```
#![allow(clippy::disallowed_methods)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let fault = planned(&arguments).unwrap_or_default();
    let (name, argument) = fault.split_once(' ').unwrap_or((&fault, ""));
    match name {
        "hang" => loop {
            std::thread::park();
        },
        "signal" => kill_self(argument),
        "after-signal" => {
            real(&arguments);
            kill_self(argument)
        }
        "exit" => ExitCode::from(argument.parse::<u8>().expect("a status")),
        "error" => error(&arguments, argument),
        "chatter-error" => error(&arguments, &"very ".repeat(argument.parse::<usize>().expect("a length") / 5)),
        "garbage" => {
            let bytes = [0xff, 0x00, b'{', 0xc3, b'\n', b'{', b'"', b'\n'];
            log(&arguments, &bytes);
            let _ = std::io::stderr().write_all(&bytes);
            ExitCode::FAILURE
        }
        "chatter" => {
            let line = [b'x'; 1023];
            for _ in 0..argument.parse::<usize>().expect("a length") / 1024 {
                let _ = std::io::stderr().write_all(&[line.as_slice(), b"\n"].concat());
            }
            code(real(&arguments))
        }
        "no-pid" => after_pid(&arguments, ""),
        "wrong-pid" => after_pid(&arguments, "4194305"),
        "hold" => {
            let status = real(&arguments);
            leave_a_process();
            code(status)
        }
        "wait" => {
            integration::wait::file(Path::new(argument), |_| true);
            code(real(&arguments))
        }
        "late" => {
            let status = real(&arguments);
            integration::wait::file(Path::new(argument), |_| true);
            code(status)
        }
        "" => code(real(&arguments)),
        other => panic!("no fault is called {other}"),
    }
}

/// What the plan has for this command.
fn planned(arguments: &[OsString]) -> Option<String> {
    let root = PathBuf::from(value_of(arguments, "--root")?);
    let plan = root.ancestors().skip(1).map(|it| it.join("faults")).find_map(|it| fs::read_to_string(it).ok())?;
    plan.lines().find_map(|line| {
        let (command, fault) = line.split_once(' ')?;
        arguments.iter().any(|it| it == command).then(|| fault.to_owned())
    })
}

fn value_of(arguments: &[OsString], flag: &str) -> Option<OsString> {
    arguments.iter().position(|it| it == flag).and_then(|at| arguments.get(at + 1)).cloned()
}

fn real(arguments: &[OsString]) -> ExitStatus {
    let binary = env::var_os("REAL").or_else(|| env::var_os("TARE_BIN")).unwrap_or_else(|| "tare".into());
    Command::new(binary).args(arguments).status().expect("start the real runtime")
}

/// Does it, and puts this where the process id was.
fn after_pid(arguments: &[OsString], text: &str) -> ExitCode {
    let status = real(arguments);
    if let Some(file) = value_of(arguments, "--pid-file") {
        fs::write(file, text).expect("change the pid file");
    }
    code(status)
}

/// It outlives us and is reaped by whoever inherits it.
#[allow(clippy::zombie_processes)]
fn leave_a_process() {
    Command::new("sleep").arg("60").spawn().expect("leave a process behind");
}

fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8)
}

fn kill_self(signal: &str) -> ExitCode {
    // By a shell: the standard library sends no signals.
    let error = Command::new("sh").arg("-c").arg(format!("kill -{signal} $$")).exec();
    panic!("start a shell: {error}")
}

fn error(arguments: &[OsString], words: &str) -> ExitCode {
    let line = serde_json::json!({"level": "error", "msg": words, "time": "2026-01-01T00:00:00Z"});
    log(arguments, format!("{line}\n").as_bytes());
    eprintln!("{words}");
    ExitCode::FAILURE
}

fn log(arguments: &[OsString], bytes: &[u8]) {
    if let Some(path) = value_of(arguments, "--log") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("open the log");
        file.write_all(bytes).expect("write the log");
    }
}
