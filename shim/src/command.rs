//! Runs a program to its end while nothing else can go on: within a time, its output in memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::pidfd_open;

/// What is kept of each stream.
const OUTPUT_LIMIT: u64 = 4 << 20;

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Output {
    /// Its exit.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, as text.
    pub stderr: String,
}

/// Runs it, with nothing on stdin.
///
/// Its output goes to files in memory, not pipes: what it leaves running may hold them as long as it likes.
///
/// # Errors
/// It can't be run, or is not done in time: then it is killed.
pub fn run(command: &mut Command, within: Duration) -> Result<Output> {
    let program = command.get_program().display().to_string();
    let what = || format!("run {program}");
    let (mut stdout, mut stderr) = (memory("stdout")?, memory("stderr")?);
    let copy = |file: &File| file.try_clone().map(Stdio::from).context(what);
    command.stdin(Stdio::null()).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    let mut child = command.spawn().context(what)?;
    let ended = pidfd_open(child.id()).and_then(|process| wait(&process, within));
    if !matches!(ended, Ok(true)) {
        child.kill().context(|| format!("kill {program}"))?;
    }
    let status = child.wait().context(what)?;
    match ended {
        Ok(true) => Ok(Output {
            status,
            stdout: content(&mut stdout).context(what)?,
            stderr: String::from_utf8_lossy(&content(&mut stderr).context(what)?).into_owned(),
        }),
        Ok(false) => Err(Error::new(
            Kind::DeadlineExceeded,
            format!("{program} was killed, it did not end within {} ms", within.as_millis()),
        )),
        Err(error) => Err(error).context(what),
    }
}

/// Waits for the end of a process, at most so long; false if it has not ended.
pub fn wait(process: &OwnedFd, within: Duration) -> std::io::Result<bool> {
    let within = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], within)? > 0)
}

fn memory(name: &str) -> Result<File> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).context(|| "make a file in memory".to_owned())
}

fn content(file: &mut File) -> std::io::Result<Vec<u8>> {
    file.rewind()?;
    let mut content = Vec::new();
    file.take(OUTPUT_LIMIT).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration) -> Result<Output> {
        run(Command::new("sh").args(["-c", script]), within)
    }

    #[test]
    fn output_and_status() {
        let output = shell("echo out; echo err >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(3), &b"out\n"[..], "err\n"));
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for() {
        shell("sleep 600 & echo $!", Duration::from_secs(60))
            .map(|output| {
                let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            })
            .unwrap();
    }

    #[test]
    fn too_late_and_not_there() {
        let error = shell("exec sleep 600", Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind, Kind::DeadlineExceeded, "{error}");
        let error = run(&mut Command::new("/no/such/runtime"), Duration::from_secs(60)).unwrap_err();
        assert_eq!(
            (error.kind, error.message.starts_with("run /no/such/runtime: ")),
            (Kind::NotFound, true),
            "{error}"
        );
    }
}
