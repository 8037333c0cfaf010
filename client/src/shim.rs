//! One container's shim, as a client: started as containerd's daemon starts one, called over ttrpc.
//!
//! ```text
//! containerd-shim-tare-v2 -namespace tarectl -id ID -address RUN -publish-binary tarectl start     in the bundle
//!     stdin: BootstrapParams with the directory of sockets          stdout: BootstrapResult with the address
//! ```
//!
//! The shim outlives us. What it runs at events is this very program, with the roots of this instance in its environment.

mod gone;
mod runtime;

use std::io::Write;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tare_proto::bootstrap::{BootstrapParams, BootstrapResult};
use tare_proto::task_types::ProcessInfo;
use tare_proto::task_v3::*;
use tare_proto::task_v3_ttrpc::TaskClient;
use tare_proto::ttrpc::{
    asynchronous::{Client as Connection, transport::Socket},
    context::{self, Context as CallContext},
};
use tare_proto::types::Mount;
use tare_proto::{Any, Message, MessageField, any, runc};
use tokio::net::UnixStream;

pub use self::gone::clean_up;
pub(crate) use self::gone::is_anything_left;
pub(crate) use self::runtime::check as check_runtime;
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::paths;
use crate::record::{Container, Status};
use crate::store::NAMESPACE;

/// How long any call but `wait` may take. Only a runtime that hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// After so many seconds without a container a shim ends: one whose starter, or whoever cleaned up after its container, was killed.
const IDLE_VARIABLE: &str = "TARE_SHIM_IDLE";
const IDLE: &str = "10";

/// A process's standard streams: paths or URIs; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// A fifo.
    pub stdin: String,
    /// A path or a URI.
    pub stdout: String,
    /// As `stdout`; unused with a terminal.
    pub stderr: String,
    /// They are one terminal.
    pub terminal: bool,
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessState {
    /// `Created`, `Running`, `Paused` or `Exited`.
    pub status: Status,
    /// As the host counts.
    pub pid: u32,
    /// Of one that has ended.
    pub exit: Exit,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, or 128 and the number of the signal that killed it.
    pub code: i64,
    /// When.
    pub at: crate::time::Time,
}

/// A connection to the shim of one container.
#[derive(Clone)]
pub struct Shim {
    tasks: TaskClient,
    id: String,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the shim of {}", self.id)
    }
}

impl Shim {
    /// Connects to the shim that a record names.
    ///
    /// # Errors
    /// None listens there: `NotFound`.
    pub async fn of(record: &Container) -> Result<Self> {
        if record.state.shim.is_empty() {
            return Err(Error::not_found(format!("container {} is not running", record.name)));
        }
        Self::connect(&record.state.shim, &record.id).await
    }

    /// Connects to the shim at this address (`unix://PATH`).
    ///
    /// # Errors
    /// None listens there: `NotFound`.
    pub async fn connect(address: &str, id: &str) -> Result<Self> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let stream = UnixStream::connect(path).await.map_err(|error| {
            Error::not_found(format!("connect to the shim of container {id} at {address}: {error}: it is gone"))
        })?;
        Ok(Self { tasks: TaskClient::new(Connection::new(Socket::from(stream))), id: id.to_owned() })
    }

    /// Whether it has taken the connection up: one that ends closes those that it has not, and then nothing was begun.
    pub async fn answers(&self) -> bool {
        let request = ConnectRequest { id: self.id.clone(), ..ConnectRequest::default() };
        let answer = self.tasks.connect(soon(), &request).await.context(|| self.what("ask for"));
        // What it says (it has no such container) is of no interest.
        answer.map_or_else(|error| error.kind != Kind::CutOff, |_| true)
    }

    /// Makes the container in its bundle, with these mounts as its root.
    ///
    /// # Errors
    /// The runtime's sentence.
    pub async fn create(
        &self,
        client: &Client,
        record: &Container,
        rootfs: Vec<Mount>,
        streams: &Streams,
    ) -> Result<u32> {
        let options = runc::Options {
            binary_name: runtime::of(client, record),
            root: paths::text(&client.paths.runtime()),
            ..runc::Options::default()
        };
        let options =
            any::pack(&options).map_err(|error| Error::failed(format!("write the runtime's options: {error}")))?;
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: paths::text(&client.paths.bundle(&self.id)),
            rootfs,
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: MessageField::some(options),
            ..CreateTaskRequest::default()
        };
        let created = self.tasks.create(soon(), &request).await;
        Ok(created.context(|| self.what("make"))?.pid)
    }

    /// Lets the container's process run, or one of its execs; its pid.
    ///
    /// # Errors
    /// The runtime's sentence.
    pub async fn start(&self, exec: &str) -> Result<u32> {
        let request = StartRequest { id: self.id.clone(), exec_id: exec.into(), ..StartRequest::default() };
        Ok(self.tasks.start(soon(), &request).await.context(|| self.what("start"))?.pid)
    }

    /// Adds a process, which waits for its start; `process` is that of an OCI configuration.
    ///
    /// # Errors
    /// The container does not run, or is paused.
    pub async fn exec(&self, exec: &str, process: &serde_json::Value, streams: &Streams) -> Result<()> {
        let request = ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            spec: MessageField::some(any::json(any::PROCESS, process.to_string().into_bytes())),
            ..ExecProcessRequest::default()
        };
        self.tasks.exec(soon(), &request).await.map(drop).context(|| self.what("execute in"))
    }

    /// Waits for the end of a process, however long that takes.
    ///
    /// # Errors
    /// There is no such process, or the shim went away.
    pub async fn wait(&self, exec: &str) -> Result<Exit> {
        let request = WaitRequest { id: self.id.clone(), exec_id: exec.into(), ..WaitRequest::default() };
        let ended = self.tasks.wait(CallContext::default(), &request).await.context(|| self.what("wait for"))?;
        Ok(Exit { code: ended.exit_status.into(), at: time(&ended.exited_at) })
    }

    /// How a process is.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn state(&self, exec: &str) -> Result<ProcessState> {
        use tare_proto::task_types::Status as Told;
        let request = StateRequest { id: self.id.clone(), exec_id: exec.into(), ..StateRequest::default() };
        let state = self.tasks.state(soon(), &request).await.context(|| self.what("look at"))?;
        let status = match state.status.enum_value_or_default() {
            Told::RUNNING => Status::Running,
            Told::PAUSED | Told::PAUSING => Status::Paused,
            Told::STOPPED => Status::Exited,
            Told::UNKNOWN | Told::CREATED => Status::Created,
        };
        let exit = Exit { code: state.exit_status.into(), at: time(&state.exited_at) };
        Ok(ProcessState { status, pid: state.pid, exit })
    }

    /// Sends a signal to the container's process, or to an exec.
    ///
    /// # Errors
    /// It has ended.
    pub async fn kill(&self, exec: &str, signal: i32) -> Result<()> {
        self.send(exec, signal, false).await
    }

    /// Sends a signal to all processes of the container.
    ///
    /// # Errors
    /// The runtime's sentence.
    pub async fn kill_all(&self, signal: i32) -> Result<()> {
        self.send("", signal, true).await
    }

    async fn send(&self, exec: &str, signal: i32, all: bool) -> Result<()> {
        let signal = signal.unsigned_abs();
        let request = KillRequest { id: self.id.clone(), exec_id: exec.into(), signal, all, ..KillRequest::default() };
        self.tasks.kill(soon(), &request).await.map(drop).context(|| self.what("send a signal to"))
    }

    /// Deletes the ended container, or an ended exec, when its output has been taken; how it ended.
    ///
    /// # Errors
    /// It runs.
    pub async fn delete(&self, exec: &str) -> Result<Exit> {
        let request = DeleteRequest { id: self.id.clone(), exec_id: exec.into(), ..DeleteRequest::default() };
        let deleted = self.tasks.delete(soon(), &request).await.context(|| self.what("delete"))?;
        Ok(Exit { code: deleted.exit_status.into(), at: time(&deleted.exited_at) })
    }

    /// Lets the shim end, which holds nothing any more. It may be gone before it has answered.
    pub async fn shutdown(&self) {
        let request = ShutdownRequest { id: self.id.clone(), ..ShutdownRequest::default() };
        let _ = self.tasks.shutdown(soon(), &request).await;
    }

    /// Stops all processes where they are.
    ///
    /// # Errors
    /// The container does not run, or is paused.
    pub async fn pause(&self) -> Result<()> {
        let request = PauseRequest { id: self.id.clone(), ..PauseRequest::default() };
        self.tasks.pause(soon(), &request).await.map(drop).context(|| self.what("pause"))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The container is not paused.
    pub async fn resume(&self) -> Result<()> {
        let request = ResumeRequest { id: self.id.clone(), ..ResumeRequest::default() };
        self.tasks.resume(soon(), &request).await.map(drop).context(|| self.what("resume"))
    }

    /// No more input comes from us: when other writers are gone too, the process reads the end.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn close_stdin(&self, exec: &str) -> Result<()> {
        let request =
            CloseIORequest { id: self.id.clone(), exec_id: exec.into(), stdin: true, ..CloseIORequest::default() };
        self.tasks.close_io(soon(), &request).await.map(drop).context(|| self.what("close the input of"))
    }

    /// Sets the size of a terminal, in characters.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn resize(&self, exec: &str, columns: u16, rows: u16) -> Result<()> {
        let request = ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            width: columns.into(),
            height: rows.into(),
            ..ResizePtyRequest::default()
        };
        self.tasks.resize_pty(soon(), &request).await.map(drop).context(|| self.what("resize the terminal of"))
    }

    /// The container's processes.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let request = PidsRequest { id: self.id.clone(), ..PidsRequest::default() };
        Ok(self.tasks.pids(soon(), &request).await.context(|| self.what("list the processes of"))?.processes)
    }

    /// Sets limits; `resources` are those of an OCI configuration.
    ///
    /// # Errors
    /// The runtime's sentence.
    pub async fn update(&self, resources: &serde_json::Value) -> Result<()> {
        let resources = any::json(any::LINUX_RESOURCES, resources.to_string().into_bytes());
        let request = UpdateTaskRequest {
            id: self.id.clone(),
            resources: MessageField::some(resources),
            ..UpdateTaskRequest::default()
        };
        self.tasks.update(soon(), &request).await.map(drop).context(|| self.what("update"))
    }

    /// The statistics of its cgroup: `io.containerd.cgroups.v1.Metrics` or v2's.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stats(&self) -> Result<Any> {
        let request = StatsRequest { id: self.id.clone(), ..StatsRequest::default() };
        Ok(self.tasks.stats(soon(), &request).await.context(|| self.what("count for"))?.stats.unwrap_or_default())
    }

    fn what(&self, what: &str) -> String {
        format!("{what} container {}: its shim went away", crate::records::short(&self.id))
    }
}

/// A shim that is being started.
#[derive(Debug)]
#[must_use]
pub struct Starting {
    child: Child,
    what: String,
}

/// Begins to start a shim in the container's bundle.
///
/// # Errors
/// There is no such program.
pub fn spawn(client: &Client, id: &str) -> Result<Starting> {
    let bundle = client.paths.bundle(id);
    let what = format!("start the shim {}", client.programs.shim.display());
    crate::disk::make_private(&client.paths.shims())?;
    // The shim logs there if it finds it.
    crate::disk::replace(&bundle.join("log"), b"", 0o600)?;
    let params = BootstrapParams {
        instance_id: id.to_owned(),
        namespace: NAMESPACE.to_owned(),
        containerd_grpc_address: paths::text(&client.paths.run),
        containerd_binary: paths::text(&client.programs.tarectl),
        socket_dir: Some(paths::text(&client.paths.shims())),
        ..BootstrapParams::default()
    };
    let params = params.write_to_bytes().map_err(|error| Error::failed(format!("{what}: {error}")))?;
    let child = feed(command(client, id, &bundle).arg("start"), &params, &|| what.clone())?;
    Ok(Starting { child, what })
}

impl Starting {
    /// Waits until it serves; where.
    ///
    /// # Errors
    /// It failed: its sentence.
    pub fn address(self) -> Result<String> {
        let Self { child, what } = self;
        let output = child.wait_with_output().context(|| what.clone())?;
        if !output.status.success() {
            let words = [&output.stdout[..], &output.stderr[..]].concat();
            return Err(Error::failed(format!("{what}: {}", String::from_utf8_lossy(&words).trim())));
        }
        let started = BootstrapResult::parse_from_bytes(&output.stdout)
            .map_err(|error| Error::failed(format!("{what}: its answer is none: {error}")))?;
        Ok(started.address)
    }
}

/// Whether somebody listens at a shim's address.
#[must_use]
pub fn is_alive(address: &str) -> bool {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    !path.is_empty() && BlockingStream::connect(path).is_ok()
}

fn command(client: &Client, id: &str, bundle: &Path) -> Command {
    let mut command = Command::new(&client.programs.shim);
    command.args(["-namespace", NAMESPACE, "-id", id, "-address"]).arg(&client.paths.run);
    command.arg("-publish-binary").arg(&client.programs.tarectl).current_dir(bundle);
    // It lives longer than the caller's session: no more of that than programs need.
    let kept = |name: &str| matches!(name, "PATH" | "HOME" | "TMPDIR") || name.starts_with("TARE");
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(kept)));
    command.envs(client.environment());
    if std::env::var_os(IDLE_VARIABLE).is_none() {
        command.env(IDLE_VARIABLE, IDLE);
    }
    command
}

fn run(command: &mut Command, input: &[u8], what: &dyn Fn() -> String) -> Result<Output> {
    feed(command, input, what)?.wait_with_output().context(what)
}

fn feed(command: &mut Command, input: &[u8], what: &dyn Fn() -> String) -> Result<Child> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(
        |error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::failed(format!(
                "{}: there is no such program: install it, or name it with TARECTL_SHIM_PROGRAM",
                what()
            )),
            _ => Error::failed(format!("{}: {error}", what())),
        },
    )?;
    // It may answer without having read all of it.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    Ok(child)
}

fn soon() -> CallContext {
    context::with_duration(PATIENCE)
}

fn time(at: &MessageField<tare_proto::Timestamp>) -> crate::time::Time {
    at.as_ref()
        .map_or(crate::time::Time::NEVER, |at| crate::time::Time::since_epoch(at.seconds, at.nanos.unsigned_abs()))
}
