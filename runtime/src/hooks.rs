//! Running hooks: one program after the other, each with the container's state on its standard input.
//!
//! Nothing of the runtime's environment reaches a hook, and nothing a hook writes reaches the runtime's own output: its
//! standard output and error are read, and their end is quoted if it fails. A hook has ended when its process has: what
//! it left running in the background is neither waited for nor killed. This module knows neither which stage runs where
//! nor what a failure means; both the parent and init use it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::hooks::{Hook, Stage};
use crate::sys::process::{self, Exit};
use crate::sys::signals::unblock_in;

/// How much of a hook's output is kept for the message of its failure.
const TAIL: usize = 1024;
/// What a pipe holds (pipe(7)).
const PIPE: usize = 64 * 1024;

/// Runs the hooks of a stage in their order, in `cwd`; `state` is the container's state as JSON. The first that fails
/// ends it.
pub fn run(stage: Stage, hooks: &[Hook], state: &[u8], cwd: &Path) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, state, cwd).map_err(|failed| failed.of(stage, index, hook))?;
    }
    Ok(())
}

/// Runs every hook of a stage even if some fail, and returns the failures: what `poststop` needs.
pub fn run_all(stage: Stage, hooks: &[Hook], state: &[u8], cwd: &Path) -> Vec<Error> {
    let run = |(index, hook)| one(hook, state, cwd).map_err(|failed: Failed| failed.of(stage, index, hook)).err();
    hooks.iter().enumerate().filter_map(run).collect()
}

/// Why a hook failed.
enum Failed {
    /// It ended with something else than success, or took too long; its last words follow.
    Ended(String, Vec<u8>),
    /// It could not be run or watched.
    System(&'static str, io::Error),
}

impl Failed {
    fn of(self, stage: Stage, index: usize, hook: &Hook) -> Error {
        let what = format!("error running {} hook #{index}: {}", stage.name(), hook.path.display());
        match self {
            Self::Ended(how, words) => {
                let words = String::from_utf8_lossy(&words);
                let words = words.trim();
                let cause = if words.is_empty() { how } else { format!("{how}: {words}") };
                Error::caused(Kind::System, what, cause)
            }
            Self::System(operation, error) => {
                Err::<(), _>(error).on(operation, "it").map_err(|error| error.within(what)).unwrap_err()
            }
        }
    }
}

fn one(hook: &Hook, state: &[u8], cwd: &Path) -> Result<(), Failed> {
    let mut command = Command::new(&hook.path);
    command
        .arg0(&hook.args[0])
        .args(&hook.args[1..])
        .env_clear()
        .envs(hook.env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, ""))))
        .current_dir(cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    unblock_in(&mut command);
    let mut child = command.spawn().map_err(|error| Failed::System("execute", error))?;
    let end = watch(&mut child, state, hook.timeout);
    if end.is_err() {
        // Whatever went wrong, no hook may outlive the answer. It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    end
}

/// Feeds the state in, reads the output, and waits for the end or the timeout: all with one poll, without a thread.
fn watch(child: &mut Child, state: &[u8], timeout: Option<u32>) -> Result<(), Failed> {
    let failed = |operation| move |error: Errno| Failed::System(operation, error.into());
    // The child is not reaped before this function does it, so its pid is its own until then.
    let pidfd = process::pidfd_open(child.id().cast_signed()).map_err(failed("watch"))?;
    let deadline = timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds.into())));
    let mut input: Option<OwnedFd> = child.stdin.take().map(Into::into);
    let mut outputs: [Option<OwnedFd>; 2] = [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
    for pipe in input.iter().chain(outputs.iter().flatten()) {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed("prepare a pipe to"))?;
    }
    let mut rest = state;
    let mut words = VecDeque::with_capacity(TAIL);
    loop {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(input.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        fds.extend(outputs.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let ready = poll(&mut fds, until(deadline));
        let ended = fds[0].any() == Some(true);
        match ready {
            Ok(0) => {
                let seconds = timeout.unwrap_or_default();
                return Err(Failed::Ended(format!("it took longer than its timeout of {seconds} s"), words.into()));
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(Failed::System("watch", error.into())),
            Ok(_) => {}
        }
        feed(&mut input, &mut rest);
        for output in &mut outputs {
            drain(output, &mut words);
        }
        if ended {
            break;
        }
    }
    match process::wait(&pidfd).map_err(failed("wait for"))? {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(Failed::Ended(format!("exit status {code}"), words.into())),
        Exit::Signal(signal) => Err(Failed::Ended(format!("killed by signal {signal}"), words.into())),
    }
}

/// The time left, rounded up so that a poll never ends early and spins.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
    // A wait longer than poll's longest is asked for again.
    i32::try_from(left).ok().and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::MAX)
}

/// Writes what the pipe takes, and closes it when all is written or the hook reads no more.
fn feed(input: &mut Option<OwnedFd>, rest: &mut &[u8]) {
    while let Some(pipe) = input {
        match nix::unistd::write(&*pipe, rest) {
            Ok(written) => *rest = &rest[written..],
            Err(Errno::EAGAIN) => return,
            Err(Errno::EINTR) => continue,
            // A hook need not read its state (EPIPE): that is no failure of it.
            Err(_) => *rest = &[],
        }
        if rest.is_empty() {
            *input = None;
        }
    }
}

/// Reads what is there, keeps the end of it, and closes the pipe at its end. It reads no more at once than a pipe holds: a
/// hook that writes without end must not keep its timeout from being seen.
fn drain(output: &mut Option<OwnedFd>, words: &mut VecDeque<u8>) {
    let mut buffer = [0; TAIL];
    for _ in 0..PIPE / TAIL {
        let Some(pipe) = output else { return };
        match nix::unistd::read(&*pipe, &mut buffer) {
            Ok(0) => *output = None,
            Ok(length) => {
                words.extend(&buffer[..length]);
                words.drain(..words.len().saturating_sub(TAIL));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(_) => *output = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u32>) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["PATH=/bin:/usr/bin".into()], timeout }
    }

    fn outcome(script: &str, timeout: Option<u32>, state: &[u8]) -> String {
        let hooks = [shell("exit 0", None), shell(script, timeout)];
        match run(Stage::CreateRuntime, &hooks, state, Path::new("/")) {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_end_of_a_hook_decides() {
        let large = vec![b'x'; 1 << 20];
        let failed = |how: &str| format!("error running createRuntime hook #1: /bin/sh: {how}");
        for (name, script, timeout, state, expected) in [
            ("success", "exit 0", None, &b"{}"[..], "done".to_owned()),
            ("failure", "echo out; echo bad >&2; exit 3", None, b"{}", failed("exit status 3: out\nbad")),
            ("signal", "kill -9 $$", None, b"{}", failed("killed by signal 9")),
            (
                "timeout",
                "echo slow; exec sleep 100",
                Some(1),
                b"{}",
                failed("it took longer than its timeout of 1 s: slow"),
            ),
            ("endless output and a timeout", "exec cat /dev/zero", Some(1), b"{}", failed("it took longer than")),
            ("state arrives whole", "test $(wc -c) = 1048576", None, &large, "done".to_owned()),
            ("state is not read", "exec <&-; exit 0", None, &large, "done".to_owned()),
            ("a daemon is left behind", "sleep 100 & echo $!; kill $!", None, b"{}", "done".to_owned()),
            ("only its own environment", "test \"$(env | grep -c ^HOME)\" = 0", None, b"{}", "done".to_owned()),
        ] {
            let outcome = outcome(script, timeout, state);
            assert!(outcome.starts_with(&expected), "{name}: {outcome}");
        }
    }

    #[test]
    fn output_is_quoted_within_limits() {
        let text = outcome("yes word | head -c 100000; exit 1", None, b"");
        assert!(text.len() < TAIL + 200 && text.ends_with("word"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let hook = Hook { path: "/nowhere/hook".into(), args: vec!["hook".into()], env: vec![], timeout: None };
        let error = run(Stage::Prestart, &[hook], b"", Path::new("/")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running prestart hook #0: /nowhere/hook: execute it: no such file or directory"
        );
    }

    #[test]
    fn every_poststop_hook_has_its_turn() {
        let hooks = [shell("exit 1", None), shell("exit 0", None), shell("exit 2", None)];
        let failures = run_all(Stage::Poststop, &hooks, b"", Path::new("/"));
        let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "error running poststop hook #0: /bin/sh: exit status 1",
                "error running poststop hook #2: /bin/sh: exit status 2"
            ]
        );
    }
}
