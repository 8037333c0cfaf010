//! The runtime, as a program that is executed: `tare`, or any other with runc's command line.
//!
//! Each call has a log of its own in the bundle, from which the sentence of a failure is taken as every caller of runc
//! does: the `msg` of the last line whose `level` is `error`. A call's standard error is read only until the runtime ends,
//! never until it is closed: whatever the runtime left behind may hold it open for as long as it likes.
//!
//! ```text
//! tare --root R/NAMESPACE --log BUNDLE/log-3.json --log-format json create --bundle BUNDLE --pid-file BUNDLE/init.pid ID
//! ```

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Error, Kind, Result};
use crate::exits::Children;
use crate::io::ChildStdio;
use crate::sys::process::{Spawned, pidfd_send_signal, spawn_bound};
use crate::sys::watch::watch;

/// What runs a container unless its options name another program.
pub const DEFAULT_BINARY: &str = "tare";
/// Where states lie unless the options say otherwise; each namespace of the daemon has a directory of its own below.
pub const DEFAULT_ROOT: &str = "/run/containerd/tare";
/// What is kept of a runtime's output and log; the rest, at its beginning, is passed over.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// The answer of `ps` grows with the container.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// The runtime of one container, with the flags that all calls share.
#[derive(Debug)]
pub struct Runtime {
    binary: OsString,
    root: PathBuf,
    bundle: PathBuf,
    systemd_cgroup: bool,
    children: Rc<Children>,
    calls: Cell<u32>,
}

/// What a container's options say of its runtime.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name or path; empty for the default.
    pub binary: String,
    /// Empty for the default.
    pub root: String,
    /// Whether cgroups are systemd's.
    pub systemd_cgroup: bool,
}

impl Settings {
    /// The program.
    pub fn binary(&self) -> &str {
        if self.binary.is_empty() { DEFAULT_BINARY } else { &self.binary }
    }

    /// The directory of the states of this namespace.
    pub fn root(&self, namespace: &str) -> PathBuf {
        Path::new(if self.root.is_empty() { DEFAULT_ROOT } else { &self.root }).join(namespace)
    }
}

/// What `create`, `restore` and `exec` have in common.
#[derive(Debug, Default)]
pub struct Streams<'a> {
    /// Where the runtime sends the terminal's other end, if there is a terminal.
    pub console_socket: Option<&'a Path>,
    /// The standard streams without a terminal.
    pub stdio: Option<ChildStdio>,
}

/// What is to be done by `checkpoint` and `restore`, in criu's terms.
#[derive(Debug, Default)]
pub struct Images<'a> {
    /// The directory of the images.
    pub path: &'a str,
    /// criu's directory for its log.
    pub work: &'a str,
    /// An earlier checkpoint that this one builds upon.
    pub parent: &'a str,
    /// Flags without a value, in the runtime's spelling.
    pub flags: Vec<&'static str>,
    /// Namespaces that are not to be saved.
    pub empty_namespaces: &'a [String],
    /// How cgroups are treated; empty for the runtime's default.
    pub cgroups_mode: &'a str,
}

impl Runtime {
    /// The runtime of the container whose bundle this is.
    pub fn new(settings: &Settings, namespace: &str, bundle: &Path, children: Rc<Children>) -> Self {
        Self {
            binary: settings.binary().into(),
            root: settings.root(namespace),
            bundle: bundle.to_owned(),
            systemd_cgroup: settings.systemd_cgroup,
            children,
            calls: Cell::new(0),
        }
    }

    /// Makes the container; its first process waits for `start`.
    pub async fn create(&self, id: &str, pid_file: &Path, flags: &[&str], streams: Streams<'_>) -> Result<()> {
        let mut call = self.call("create");
        call.command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(pid_file).args(flags);
        call.streams(streams)?;
        call.command.arg(id);
        self.run(call).await.map(drop)
    }

    /// Makes the container again from a checkpoint, running.
    pub async fn restore(&self, id: &str, pid_file: &Path, images: Images<'_>, streams: Streams<'_>) -> Result<()> {
        let mut call = self.call("restore");
        call.command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(pid_file);
        call.command.args(["--detach", "--no-subreaper"]);
        call.images(images);
        call.streams(streams)?;
        call.command.arg(id);
        self.run(call).await.map(drop)
    }

    /// Lets the container's process run.
    pub async fn start(&self, id: &str) -> Result<()> {
        self.plain("start", &[id]).await
    }

    /// Starts another process, described by a file with the JSON of an OCI process.
    pub async fn exec(&self, id: &str, process: &Path, pid_file: &Path, streams: Streams<'_>) -> Result<()> {
        let mut call = self.call("exec");
        call.command.arg("--process").arg(process).arg("--detach").arg("--pid-file").arg(pid_file);
        call.streams(streams)?;
        call.command.arg(id);
        self.run(call).await.map(drop)
    }

    /// Sends the first process a signal.
    pub async fn kill(&self, id: &str, signal: u32) -> Result<()> {
        self.plain("kill", &[id, &signal.to_string()]).await.map_err(gone)
    }

    /// Sends every process of the container a signal.
    pub async fn kill_all(&self, id: &str, signal: u32) -> Result<()> {
        self.plain("kill", &["--all", id, &signal.to_string()]).await.map_err(gone)
    }

    /// Removes what the runtime keeps of an ended container; that nothing is left to remove is success.
    pub async fn delete(&self, id: &str) -> Result<()> {
        absent_is_fine(self.plain("delete", &[id]).await)
    }

    /// Ends the container if need be, and removes it.
    pub async fn delete_force(&self, id: &str) -> Result<()> {
        absent_is_fine(self.plain("delete", &["--force", id]).await)
    }

    /// Stops the container's processes where they are.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.plain("pause", &[id]).await
    }

    /// Lets them go on.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.plain("resume", &[id]).await
    }

    /// Changes limits; `resources` is the JSON of OCI Linux resources.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let mut call = self.call("update");
        call.command.args(["--resources", "-", id]);
        call.command.stdin(in_memory(resources)?);
        self.run(call).await.map(drop)
    }

    /// Saves the container's processes.
    pub async fn checkpoint(&self, id: &str, images: Images<'_>) -> Result<()> {
        let mut call = self.call("checkpoint");
        call.images(images);
        call.command.arg(id);
        self.run(call).await.map(drop)
    }

    /// The ids of the container's processes, as the host numbers them.
    pub async fn ps(&self, id: &str) -> Result<Vec<u32>> {
        let mut call = self.call("ps");
        call.command.args(["--format", "json", id]);
        call.answer = true;
        let answer = self.run(call).await?;
        // runc prints null for none.
        serde_json::from_slice::<Option<Vec<u32>>>(&answer)
            .map(Option::unwrap_or_default)
            .map_err(|error| Error::internal(format!("the runtime's list of processes of {id} is not one: {error}")))
    }

    async fn plain(&self, command: &'static str, arguments: &[&str]) -> Result<()> {
        let mut call = self.call(command);
        call.command.args(arguments);
        self.run(call).await.map(drop)
    }

    fn call(&self, name: &'static str) -> RuntimeCall {
        let number = self.calls.get();
        self.calls.set(number.wrapping_add(1));
        let log = self.bundle.join(format!("log-{number}.json"));
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(name).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        RuntimeCall { name, command, log: Log(log), streams: false, answer: false }
    }

    /// Executes the call to its end and returns what it printed, if that was asked for.
    ///
    /// Dropped before the end, it kills the runtime and waits for nothing.
    async fn run(&self, mut call: RuntimeCall) -> Result<Vec<u8>> {
        let reader = call.read_output()?;
        // A new child may be the container's process as well, which nobody knows yet.
        let unknown_children_stay = self.children.call();
        let spawned = spawn_bound(&mut call.command);
        // Our copies of the container's streams go, or their end would never come.
        let RuntimeCall { name, command, log, answer, .. } = call;
        drop(command);
        let Spawned { pid, pidfd } = spawned.map_err(|error| not_started(&self.binary, &error))?;
        tracing::debug!("runtime {name}: process {pid}");
        self.children.expect(pid);
        let mut running = Running { children: &self.children, pid, pidfd: pidfd.try_clone().ok() };
        let ended = self.children.wait(pid, pidfd);
        let (exit, output) = match reader {
            Some(reader) => read_until(reader, if answer { ANSWER_LIMIT } else { OUTPUT_LIMIT }, ended).await?,
            None => (ended.await?, Vec::new()),
        };
        running.pidfd = None;
        drop(unknown_children_stay);
        if exit.status == 0 {
            return Ok(output);
        }
        let said = log.last_error().unwrap_or_else(|| last_words(&output));
        Err(Error::internal(match (said.as_str(), exit.status) {
            ("", 129..=192) => format!("the runtime's {name} was killed by signal {}", exit.status - 128),
            ("", status) => format!("the runtime's {name} ended with status {status} and said nothing"),
            (said, _) => said.to_owned(),
        }))
    }
}

/// A call that is being put together.
struct RuntimeCall {
    name: &'static str,
    command: Command,
    log: Log,
    /// Whether the standard streams are the container's.
    streams: bool,
    /// Whether the standard output is wanted.
    answer: bool,
}

impl RuntimeCall {
    fn streams(&mut self, streams: Streams<'_>) -> Result<()> {
        if let Some(socket) = streams.console_socket {
            self.command.arg("--console-socket").arg(socket);
        }
        if let Some(ChildStdio { stdin, stdout, stderr }) = streams.stdio {
            let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
            self.command.stdin(stdio(stdin)).stdout(stdio(stdout)).stderr(stdio(stderr));
            self.streams = true;
        }
        Ok(())
    }

    fn images(&mut self, images: Images<'_>) {
        self.command.args(images.flags);
        let values = [
            ("--image-path", images.path),
            ("--work-path", images.work),
            ("--parent-path", images.parent),
            ("--manage-cgroups-mode", images.cgroups_mode),
        ];
        for (flag, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
            self.command.args([flag, value]);
        }
        for namespace in images.empty_namespaces {
            self.command.args(["--empty-ns", namespace]);
        }
    }

    /// A pipe for what the runtime prints, unless its streams are the container's.
    fn read_output(&mut self) -> Result<Option<AsyncFd<OwnedFd>>> {
        if self.streams {
            return Ok(None);
        }
        let (reader, writer) = io::pipe().context(|| format!("make a pipe for the runtime's {}", self.name))?;
        set_nonblocking(&reader).context(|| "make a pipe non-blocking".to_owned())?;
        if self.answer {
            self.command.stdout(writer);
        } else {
            let both = writer.try_clone().context(|| "copy a pipe's descriptor".to_owned())?;
            self.command.stdout(both).stderr(writer);
        }
        let reader = watch(reader.into(), Interest::READABLE).context(|| "watch a pipe".to_owned())?;
        Ok(Some(reader))
    }
}

/// Kills the runtime when a call is given up, and leaves it to be reaped with the unknown.
struct Running<'a> {
    children: &'a Children,
    pid: u32,
    pidfd: Option<OwnedFd>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
            self.children.forget(self.pid);
        }
    }
}

/// Reads, keeping the last `limit` bytes, until the process has ended; what it had written by then is read to the end.
async fn read_until<T>(
    reader: AsyncFd<OwnedFd>,
    limit: usize,
    ended: impl Future<Output = Result<T>>,
) -> Result<(T, Vec<u8>)> {
    let mut output = Vec::new();
    let mut ended = std::pin::pin!(ended);
    let mut open = true;
    let exit = loop {
        tokio::select! {
            exit = &mut ended => break exit?,
            ready = reader.readable(), if open => {
                let mut ready = ready.context(|| "watch a pipe".to_owned())?;
                match read_some(reader.get_ref(), &mut output, limit) {
                    Ok(read) => open = read,
                    Err(_) => ready.clear_ready(),
                }
            }
        }
    };
    // A pipe holds a bounded amount, but somebody may go on writing.
    let mut rounds = 0;
    while rounds < 64 && open && matches!(read_some(reader.get_ref(), &mut output, limit), Ok(true)) {
        rounds += 1;
    }
    Ok((exit, output))
}

/// Reads once; false at the end of the file, an error when there is nothing now.
fn read_some(reader: &OwnedFd, output: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    let read = nix::unistd::read(reader, &mut chunk)?;
    output.extend_from_slice(&chunk[..read]);
    if output.len() > limit * 2 {
        output.drain(..output.len() - limit);
    }
    Ok(read > 0)
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A file in memory with this content, read from its beginning.
fn in_memory(content: &[u8]) -> Result<fs::File> {
    let fd = memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC).context(|| "make a file in memory".to_owned())?;
    let mut file = fs::File::from(fd);
    file.write_all(content)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .context(|| "fill a file in memory".to_owned())?;
    Ok(file)
}

/// The log of one call; it goes with the call.
struct Log(PathBuf);

impl Log {
    /// What the runtime said last with level `error`.
    fn last_error(&self) -> Option<String> {
        let mut file = fs::File::open(&self.0).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_LIMIT as u64))).ok()?;
        let mut text = Vec::new();
        file.take(OUTPUT_LIMIT as u64).read_to_end(&mut text).ok()?;
        last_error_of(&text)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn last_error_of(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        level: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        msg: std::borrow::Cow<'a, str>,
    }
    log.split(|byte| *byte == b'\n')
        .rev()
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .find(|line| line.level == "error")
        .map(|line| line.msg.trim().to_owned())
        .filter(|message| !message.is_empty())
}

/// The end of what was printed, as one line that a person can read.
fn last_words(output: &[u8]) -> String {
    const SENTENCE: usize = 1024;
    let text = String::from_utf8_lossy(&output[output.len().saturating_sub(SENTENCE)..]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn not_started(binary: &OsStr, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => ": install it, or name another by the option BinaryName",
        _ => "",
    };
    // The kind is ours, not the file's: a container that is not found means something else to a daemon.
    Error::internal(format!("start the runtime {}: {error}{remedy}", binary.display()))
}

/// Tells apart what callers act on: that the process or the container is no more.
fn gone(error: Error) -> Error {
    let text = error.message.to_ascii_lowercase();
    let signs = ["process already finished", "container not running", "no such process"];
    if signs.iter().any(|sign| text.contains(sign)) {
        return Error::new(Kind::NotFound, "process already finished");
    }
    if text.contains("does not exist") {
        return Error::new(Kind::NotFound, "no such container");
    }
    error
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        // A checkpoint that ends the container removes it, too.
        Err(error) if error.message.contains("does not exist") => Ok(()),
        other => other,
    }
}
