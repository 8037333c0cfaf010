//! `delete`: what the daemon runs when a shim died, to leave nothing of its container behind.
//!
//! Nothing is known but the bundle, and any part of it may be missing; it may be the second time. So each step stands on its own:
//! one that fails is a warning on stderr, and the next is done. All of them together take less than the five seconds that the
//! daemon gives.
//!
//! ```text
//! options.json  {"binary_name":..,"root":..}    what the container was made with (Go's names of containerd.runc.v1.Options)
//! runtime       the runtime's name or path      wins over binary_name
//! init.pid      the pid of the container's first process
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use protobuf::{Message, MessageField};
use serde::Deserialize;
use tare_proto::Timestamp;
use tare_proto::task_v3::DeleteResponse;

use crate::args::Args;
use crate::bootstrap::socket_of;
use crate::command;
use crate::create::INIT_PID_FILE;
use crate::error::{Context, Error, Result};
use crate::mounts::unmount_recursive;
use crate::options::Options;
use crate::runtime::{DEFAULT_BINARY, DEFAULT_ROOT};
use crate::socket;
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// How long the runtime may take.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(3);
/// How long a killed process may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// As if by SIGKILL: what a process is said to have ended with when nobody saw it end.
const STATUS: u32 = 128 + 9;

/// Cleans up after the shim of this bundle; the answer is a protobuf.
///
/// # Errors
/// There is no namespace or id, or the answer can't be written; nothing else.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    for (value, flag) in [(&args.namespace, "-namespace"), (&args.id, "-id")] {
        if value.is_empty() {
            return Err(Error::invalid(format!("delete needs {flag}")));
        }
    }
    let bundle = if args.bundle.as_os_str().is_empty() {
        std::env::current_dir().context(|| "find the working directory, the bundle".to_owned())?
    } else {
        args.bundle.clone()
    };
    let pid = warned(init_pid(&bundle)).flatten();
    warned(delete_container(&bundle, &args.namespace, &args.id));
    // The runtime's own way kills more than the first process; this is for one that failed, or is gone.
    if let Some(pid) = pid {
        warned(kill(&bundle, pid));
    }
    // After the processes: they hold the mounts.
    warned(unmount_recursive(&bundle.join("rootfs")));
    // One that answers belongs to the other containers of its group.
    warned(
        socket_of(&bundle, &args.address, &args.namespace, &args.id).and_then(|socket| socket::remove_dead(&socket)),
    );
    let response = DeleteResponse {
        pid: pid.unwrap_or_default(),
        exit_status: STATUS,
        exited_at: MessageField::some(Timestamp::from(SystemTime::now())),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|error| Error::internal(format!("write the answer: {error}")))
}

fn warned<T>(done: Result<T>) -> Option<T> {
    done.inspect_err(|error| tracing::warn!(%error, "clean up")).ok()
}

fn delete_container(bundle: &Path, namespace: &str, id: &str) -> Result<()> {
    // Without them the defaults are as good a guess as any.
    let options = warned(Options::load(bundle)).unwrap_or_default();
    let or = |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
    let mut command = Command::new(or(&options.binary_name, DEFAULT_BINARY));
    command.arg("--root").arg(Path::new(&or(&options.root, DEFAULT_ROOT)).join(namespace));
    command.arg("--log").arg(bundle.join("log.json")).args(["--log-format", "json"]);
    if options.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    let output = command::run(command.args(["delete", "--force", id]), RUNTIME_PATIENCE)?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().display();
    Err(Error::internal(format!("{program} delete --force {id}: {}: {}", output.status, output.stderr.trim_end())))
}

/// A small file of the bundle; None if there is none.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).context(|| format!("read {}", path.display())),
    }
}

fn init_pid(bundle: &Path) -> Result<Option<u32>> {
    let path = bundle.join(INIT_PID_FILE);
    let Some(text) = read(&path)? else { return Ok(None) };
    match text.trim().parse::<u32>() {
        Ok(pid) if pid > 1 => Ok(Some(pid)),
        _ => Err(Error::internal(format!("{} holds {text:?}, not a pid", path.display()))),
    }
}

/// Kills the container's first process, if it is still that: the pid may be another's by now. Its root says whose it is.
fn kill(bundle: &Path, pid: u32) -> Result<()> {
    let what = || format!("kill process {pid}, the container's first");
    let process = match pidfd_open(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        process => process.context(what)?,
    };
    let place = |path: PathBuf| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    // Looked at after it was opened: what is there now is what the descriptor means, or has ended.
    let (Ok(its), Ok(containers)) = (place(format!("/proc/{pid}/root").into()), place(rootfs(bundle))) else {
        return Ok(());
    };
    if its != containers {
        return Ok(());
    }
    tracing::warn!(pid, "the runtime left the container's first process, it is killed");
    match pidfd_send_signal(&process, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        sent => sent.context(what)?,
    }
    match command::wait(&process, KILL_PATIENCE).context(what)? {
        true => Ok(()),
        false => Err(Error::internal(format!("{}: it does not end", what()))),
    }
}

/// The container's root on the host: as its `config.json` says, or where bundles have it.
fn rootfs(bundle: &Path) -> PathBuf {
    #[derive(Deserialize)]
    struct Spec {
        root: Option<Root>,
    }
    #[derive(Deserialize)]
    struct Root {
        path: OsString,
    }
    let spec = fs::read(bundle.join("config.json")).ok().and_then(|text| serde_json::from_slice::<Spec>(&text).ok());
    bundle.join(spec.and_then(|spec| spec.root).map_or_else(|| "rootfs".into(), |root| root.path))
}
