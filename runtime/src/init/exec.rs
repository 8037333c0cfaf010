//! The last steps before the payload: its descriptors, terminal, environment and program.
//!
//! ```text
//!   seal      nothing of the host stays open but what is asked for       before anything the image can influence
//!   prepare   keyring, terminal, HOME, labels                            privileged
//!   (credentials::apply: becomes the user, finds the program)
//!   execute   signals, filter, execve                                    as the user
//! ```

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, execve, faccessat};

use super::console::Console;
use super::{home, keyring, seccomp};
use crate::error::{Context, Error, Kind, Result};
use crate::lsm;
use crate::plan::process::{ProcessPlan, Rlimit};
use crate::plan::seccomp::Seccomp;
use crate::sys::sched::set_limit;
use crate::sys::{fds, signals};

/// Where a program without a slash is looked for if the container's environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that has its terminal and its environment, and is still privileged.
#[derive(Debug)]
pub struct Prepared<'a> {
    pub(super) plan: &'a ProcessPlan,
    pub(super) env: Vec<CString>,
}

/// A process that only has to execute its program.
#[derive(Debug)]
pub struct Ready<'a> {
    pub(super) program: CString,
    pub(super) args: &'a [CString],
    pub(super) env: Vec<CString>,
    pub(super) limits: &'a [Rlimit],
    pub(super) filter: Option<&'a Seccomp>,
}

/// Closes every descriptor but the standard ones, those the payload is to get, and those in `keep`. It allocates nothing unless it
/// fails.
///
/// CVE-2024-21626: a descriptor of the host is a way out of the container for whatever the image makes the process look up.
/// The close-on-exec flag alone would only shut it at execve.
pub fn seal(plan: &ProcessPlan, keep: &[Option<BorrowedFd<'_>>]) -> Result<()> {
    fds::close_all_but(plan.preserved_fds, keep).on("close", "the descriptors of the host")
}

/// Everything that still needs privileges, or the descriptors as they are, but none of the identity.
pub fn prepare<'a>(plan: &'a ProcessPlan, console: Option<Console>) -> Result<Prepared<'a>> {
    if let Some(name) = &plan.keyring {
        keyring::join(name)?;
    }
    if let Some(console) = console {
        console.attach()?;
    }
    let env = environment(plan);
    lsm::prepare(plan)?;
    Ok(Prepared { plan, env })
}

/// The plan's environment, with what only this process knows.
fn environment(plan: &ProcessPlan) -> Vec<CString> {
    let mut env = Vec::with_capacity(plan.env.len() + 2);
    env.extend(
        plan.env.iter().filter(|entry| plan.listen_fds == 0 || !entry.to_bytes().starts_with(b"LISTEN_PID=")).cloned(),
    );
    let mut push = |name: &[u8], value: &[u8]| {
        // Neither part can contain a NUL byte: both come from C strings or are digits.
        env.extend(CString::new([name, value].concat()));
    };
    if plan.listen_fds > 0 {
        push(b"LISTEN_PID=", std::process::id().to_string().as_bytes());
    }
    if variable(&plan.env, b"HOME").is_none_or(<[u8]>::is_empty) {
        push(b"HOME=", home::of(plan.user.uid).to_bytes());
    }
    env
}

fn variable<'a>(env: &'a [CString], name: &[u8]) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name)?.strip_prefix(b"="))
}

/// Finds the program as execvp(3) would, by the container's PATH, as the user and in the working directory it will have.
///
/// Done ahead of execve so that a program which is not there fails the create and not the start.
pub fn find_program(name: &CStr, env: &[CString]) -> Result<CString> {
    let not_found =
        |cause: &str| Error::caused(Kind::NotFound, format!("run program {}", quoted(name.to_bytes())), cause);
    let failed = |errno| Error::sys(format!("run program {}", quoted(name.to_bytes())), errno);
    if name.to_bytes().contains(&b'/') {
        return match check_program(name) {
            Ok(()) => Ok(name.into()),
            Err(Errno::ENOENT) => Err(not_found("no such file or directory")),
            // execve's own answer: docker and podman tell 126 from 125 by its words.
            Err(Errno::EISDIR) => Err(failed(Errno::EACCES).hint("it is a directory")),
            Err(errno) => Err(failed(errno)),
        };
    }
    let mut forbidden = None;
    let path = variable(env, b"PATH").unwrap_or(DEFAULT_PATH);
    for dir in path.split(|&byte| byte == b':').filter(|_| !name.is_empty()) {
        // An empty entry is the current directory (POSIX, "Environment Variables").
        let dir = if dir.is_empty() { b"." } else { dir };
        let Ok(candidate) = CString::new([dir, b"/", name.to_bytes()].concat()) else { continue };
        match check_program(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => forbidden = forbidden.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match forbidden {
        Some(candidate) => {
            let what = format!("run program {} ({})", quoted(name.to_bytes()), candidate.to_string_lossy());
            Err(Error::sys(what, Errno::EACCES))
        }
        None => Err(not_found("executable file not found in $PATH")),
    }
}

/// Whether this user may execute `path`.
fn check_program(path: &CStr) -> Result<(), Errno> {
    let mode = stat(path)?.st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // Not this call's own answers: the container's filter is in force already and does not know it. The mode bits say
        // enough then, as the kernel decides at execve.
        Err(Errno::EPERM | Errno::ENOSYS) if mode & 0o111 != 0 => Ok(()),
        Err(Errno::EPERM | Errno::ENOSYS) => Err(Errno::EACCES),
        result => result,
    }
}

/// Becomes the program. It comes back only if that fails.
pub fn execute(ready: Ready<'_>) -> Result<Infallible> {
    let Ready { program, args, env, limits, filter } = ready;
    // The payload starts as if it were the first process: nothing blocked, nothing ignored. What was held back meanwhile
    // is delivered at once, to defaults.
    signals::reset_all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).on("unblock", "the signals")?;
    limit(limits)?;
    if let Some(filter) = filter {
        // Last of all: what comes after the filter needs the profile's consent, and that should be execve alone.
        seccomp::load(filter)?;
    }
    let Err(errno) = execve(&program, args, &env);
    Err(explain(&program, errno))
}

/// Lowers this process's limits. The parent has raised the hard ones where that was needed.
pub(super) fn limit(limits: &[Rlimit]) -> Result<()> {
    limits.iter().try_for_each(|limit| set_limit(0, limit.number(), limit.soft, limit.hard).on("set", limit))
}

fn explain(program: &CStr, errno: Errno) -> Error {
    let error = Error::sys(format!("execute {}", quoted(program.to_bytes())), errno);
    match errno {
        // find_program has seen the file.
        Errno::ENOENT => error.hint("the file is there, but the interpreter or dynamic loader it names is not"),
        Errno::ENOEXEC => error.hint("it is neither a program for this machine nor a script with a #! line"),
        Errno::E2BIG => error.hint("process.args and process.env are too long together"),
        _ => error,
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", Path::new(OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        let dir = std::env::current_exe().unwrap().with_file_name(format!("exec-{}", std::process::id()));
        let (first, second) = (dir.join("first"), dir.join("second"));
        for (path, mode) in [(first.join("tool"), 0o644), (second.join("tool"), 0o755), (first.join("locked"), 0o600)] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir_all(first.join("folder")).unwrap();
        let (first, second) = (first.to_str().unwrap().to_owned(), second.to_str().unwrap().to_owned());
        let env = [c(&format!("PATH={first}:{second}"))];
        let find = |name: &str| find_program(&c(name), &env).map_err(|error| error.to_string());

        assert_eq!(find("tool"), Ok(c(&format!("{second}/tool"))));
        assert_eq!(find(&format!("{second}/tool")), Ok(c(&format!("{second}/tool"))));
        for (name, sentence) in [
            ("nothing", "run program \"nothing\": executable file not found in $PATH".to_owned()),
            ("", "run program \"\": executable file not found in $PATH".to_owned()),
            ("folder", "run program \"folder\": executable file not found in $PATH".to_owned()),
            ("locked", format!("run program \"locked\" ({first}/locked): permission denied")),
            ("/no/such", "run program \"/no/such\": no such file or directory".to_owned()),
            ("/", "run program \"/\": permission denied; it is a directory".to_owned()),
        ] {
            assert_eq!(find(name), Err(sentence), "{name}");
        }
        let locked = format!("{first}/locked");
        assert_eq!(find(&locked), Err(format!("run program \"{locked}\": permission denied")));
        // Without PATH the usual places are searched, and nothing of this process's own environment.
        assert_eq!(find_program(c"sh", &[]).unwrap().to_bytes().rsplit(|b| *b == b'/').next(), Some(&b"sh"[..]));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_failing_execve_says_what_is_behind_it() {
        for (errno, sentence) in [
            (
                Errno::ENOENT,
                "execute \"/x\": no such file or directory; the file is there, but the interpreter or dynamic loader it names is not",
            ),
            (
                Errno::ENOEXEC,
                "execute \"/x\": exec format error; it is neither a program for this machine nor a script with a #! line",
            ),
            (Errno::EACCES, "execute \"/x\": permission denied"),
        ] {
            assert_eq!(explain(c"/x", errno).to_string(), sentence);
        }
    }
}
