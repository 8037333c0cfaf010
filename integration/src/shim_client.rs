//! A small client of containerd's shims: starts one as the daemon does, calls it, and takes its events in the daemon's place.
//!
//! ```no_run
//! use integration::shim_client::{EventSink, Launch, Shim, Streams, block_on};
//!
//! # let (shim, bundle, directory) = ("containerd-shim-tare-v2".as_ref(), "/bundle".as_ref(), std::path::Path::new("/tmp"));
//! block_on(async {
//!     let mut events = EventSink::bind(&directory.join("events.sock")).await;
//!     let mut launch = Launch::new(shim, "some-id", bundle);
//!     launch.events = Some(events.path().to_owned());
//!     launch.socket_dir = Some(directory.to_owned());
//!     let started = launch.start().unwrap();
//!     let shim = Shim::connect(&started).await.unwrap();
//!     shim.create("some-id", bundle, &Streams::default()).await.unwrap();
//!     shim.start("some-id", "").await.unwrap();
//!     assert_eq!(shim.wait("some-id", "").await.unwrap().exit_status, 0);
//!     shim.delete("some-id", "").await.unwrap();
//!     assert_eq!(events.until("delete").await, ["create some-id", "start some-id", "exit some-id 0", "delete some-id 0"]);
//!     shim.shutdown("some-id").await.unwrap();
//! });
//! ```
//!
//! It does what containerd's daemon does, in both the form of the daemons before 2.3 and the form since ([`Bootstrap`]), and so
//! starts containerd's own shim as well. Its calls have the deadline of [`crate::wait`]; only [`Shim::wait`] may last.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tare_proto::any::{Packed, unpack};
use tare_proto::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use tare_proto::forward::ForwardRequest;
use tare_proto::forward_ttrpc::{Events, create_events};
use tare_proto::task_v3::*;
use tare_proto::ttrpc::Request;
use tare_proto::ttrpc::asynchronous::{Client, Server, TtrpcContext};
use tare_proto::ttrpc::context::{self, Context};
use tare_proto::types::{Mount, RuntimeInfo};
use tare_proto::{Any, Empty, Message, MessageField, events};
use tokio::sync::{mpsc, oneshot};

use crate::wait;

/// Runs a test's asynchronous part on this thread, as the shim runs on one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make an event loop").block_on(future)
}

/// How the daemon tells `start` what it must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Since containerd 2.3: parameters on standard input, a result on standard output, both protobuf.
    Params,
    /// Before: the options on standard input, an address on standard output, as text or within JSON.
    Options,
}

/// What the daemon says to a shim's program. [`Launch::new`] fills in what seldom matters.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub shim: PathBuf,
    /// The daemon's namespace.
    pub namespace: String,
    /// The container's or sandbox's id.
    pub id: String,
    /// The bundle's directory, in which `start` runs.
    pub bundle: PathBuf,
    /// In which form.
    pub bootstrap: Bootstrap,
    /// The runtime's options.
    pub options: Option<Any>,
    /// The daemon's gRPC socket, of which only the name matters.
    pub address: PathBuf,
    /// Its ttrpc socket, where events go.
    pub events: Option<PathBuf>,
    /// Its program, which publishes events when it has no ttrpc socket.
    pub publish_binary: PathBuf,
    /// Where the shim's socket is to lie. Daemons before 2.3 cannot say it.
    pub socket_dir: Option<PathBuf>,
    /// Whether it shall log the details.
    pub debug: bool,
    /// Whether nobody shall see what `delete` says beside its answer.
    pub quiet: bool,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Where a started shim listens.
#[derive(Debug)]
pub struct Started {
    /// `unix://` and a path.
    pub address: String,
    /// The version of its task service.
    pub version: i32,
    /// `ttrpc`.
    pub protocol: String,
    /// All that `start` wrote.
    pub output: Vec<u8>,
    /// Our end of the fifo for the shim's log. When it is dropped, the shim writes into the void.
    pub log: File,
    launch: Launch,
}

impl Started {
    /// What the shim has logged and nobody has read yet. Its log is a pipe, and holds no more than that does.
    pub fn read_log(&mut self) -> String {
        let mut text = Vec::new();
        // Ends with "would block": we hold the other end too.
        let _ = self.log.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A failed test leaves no shim and no container behind.
impl Drop for Started {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("the shim's log: {}", self.read_log());
        let path = self.address.trim_start_matches("unix://");
        let peer = UnixStream::connect(path).ok().and_then(|it| getsockopt(&it, PeerCredentials).ok());
        if let Some(peer) = peer {
            let _ = kill(Pid::from_raw(peer.pid()), Signal::SIGKILL);
        }
        let _ = self.launch.delete();
        let _ = fs::remove_file(path);
    }
}

impl Launch {
    /// The form of containerd 2.3, in the namespace `default`.
    pub fn new(shim: &Path, id: &str, bundle: &Path) -> Launch {
        Launch {
            shim: shim.to_owned(),
            namespace: "default".to_owned(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            bootstrap: Bootstrap::Params,
            options: None,
            address: bundle.join("daemon.sock"),
            events: None,
            publish_binary: PathBuf::from("/nonexistent/publish"),
            socket_dir: None,
            debug: false,
            quiet: false,
            environment: Vec::new(),
        }
    }

    /// Makes the fifo for the shim's log, and opens it.
    pub fn open_log(&self) -> io::Result<File> {
        match nix::unistd::mkfifo(&self.bundle.join("log"), Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
        // For writing too, so that it can be opened with nobody at the other end.
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(self.bundle.join("log"))
    }

    /// Runs `start`. The error has what the shim wrote.
    ///
    /// # Panics
    /// If the shim's server keeps the standard output of `start` open: the daemon would wait for ever.
    pub fn start(&self) -> io::Result<Started> {
        // The shim opens it too, and waits until somebody has it open for reading.
        let log = self.open_log()?;
        let mut command = self.command();
        command.arg("start").current_dir(&self.bundle);
        let output = run(command, &self.input()?, None)?;
        let (version, address, protocol) = match self.bootstrap {
            Bootstrap::Params => {
                let result = BootstrapResult::parse_from_bytes(&output).map_err(io::Error::other)?;
                (result.version, result.address, result.protocol)
            }
            Bootstrap::Options => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(json) => (
                        json["version"].as_i64().and_then(|it| it.try_into().ok()).unwrap_or(2),
                        json["address"].as_str().unwrap_or_default().to_owned(),
                        json["protocol"].as_str().unwrap_or_default().to_owned(),
                    ),
                    Err(_) => (2, text, "ttrpc".to_owned()),
                }
            }
        };
        Ok(Started { address, version, protocol, output, log, launch: self.clone() })
    }

    /// Runs `delete`, as the daemon does after each task and for a shim that is gone.
    pub fn delete(&self) -> io::Result<DeleteResponse> {
        let mut command = self.command();
        command.arg("-bundle").arg(&self.bundle).arg("delete").current_dir(&self.bundle);
        let stderr = if self.quiet { Stdio::null() } else { Stdio::inherit() };
        DeleteResponse::parse_from_bytes(&run(command, &[], Some(stderr))?).map_err(io::Error::other)
    }

    /// Runs `-info`.
    pub fn info(&self) -> io::Result<RuntimeInfo> {
        let mut command = Command::new(&self.shim);
        command.arg("-info");
        let input = self.options.as_ref().map(Message::write_to_bytes).transpose().map_err(io::Error::other)?;
        RuntimeInfo::parse_from_bytes(&run(command, &input.unwrap_or_default(), Some(Stdio::inherit()))?)
            .map_err(io::Error::other)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.shim);
        command.arg("-namespace").arg(&self.namespace).arg("-address").arg(&self.address);
        command.arg("-publish-binary").arg(&self.publish_binary).arg("-id").arg(&self.id);
        if self.debug {
            command.arg("-debug");
        }
        command.env_remove("TTRPC_ADDRESS");
        if let Some(events) = &self.events {
            command.env("TTRPC_ADDRESS", events);
        }
        command.env("GRPC_ADDRESS", &self.address).env("NAMESPACE", &self.namespace);
        command.env("MAX_SHIM_VERSION", "2").env("GOMAXPROCS", "2");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn input(&self) -> io::Result<Vec<u8>> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(io::ErrorKind::InvalidInput);
        let bytes = match self.bootstrap {
            Bootstrap::Options => self.options.as_ref().map_or(Ok(Vec::new()), Message::write_to_bytes),
            Bootstrap::Params => BootstrapParams {
                instance_id: self.id.clone(),
                namespace: self.namespace.clone(),
                log_level: if self.debug {
                    tare_proto::bootstrap::LogLevel::LOG_LEVEL_DEBUG.into()
                } else {
                    tare_proto::bootstrap::LogLevel::LOG_LEVEL_INFO.into()
                },
                containerd_version: "v2.3.4".to_owned(),
                containerd_ttrpc_address: self.events.as_deref().map_or(Ok(String::new()), text)?,
                containerd_grpc_address: text(&self.address)?,
                containerd_binary: text(&self.publish_binary)?,
                extensions: self
                    .options
                    .iter()
                    .map(|it| Extension { value: MessageField::some(it.clone()), ..Default::default() })
                    .collect(),
                socket_dir: self.socket_dir.as_deref().map(text).transpose()?,
                ..Default::default()
            }
            .write_to_bytes(),
        };
        bytes.map_err(io::Error::other)
    }
}

/// Runs one of the shim's commands and returns what came out of it; without a standard error of its own that is in the same
/// pipe, as the daemon has it for `start`.
fn run(mut command: Command, input: &[u8], stderr: Option<Stdio>) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = io::pipe()?;
    let what = command.get_args().last().unwrap_or_default().to_string_lossy().into_owned();
    let stderr = stderr.map_or_else(|| writer.try_clone().map(Stdio::from), Ok)?;
    let mut child = command.stdin(Stdio::piped()).stdout(writer).stderr(stderr).spawn()?;
    // With it go the ends of the pipe that the command holds.
    drop(command);
    // A shim may answer without having read all of it.
    let _ = child.stdin.take().expect("a pipe was asked for").write_all(input);
    let until = wait::deadline();
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // A `delete` of the containers of a shim that was killed: their processes are left to us as they are to a daemon.
        if !wait::readable_while_reaping(reader.as_fd(), until) {
            let _ = child.kill();
            let state = child.wait()?;
            panic!("{what} of the shim does not come to its end ({state}), or something keeps its output open");
        }
        match reader.read(&mut buffer)? {
            0 => break,
            count => output.extend_from_slice(&buffer[..count]),
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!("{what} of the shim: {status}: {}", String::from_utf8_lossy(&output))))
}

/// A process's standard streams: paths or URIs; empty for none.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// For its input.
    pub stdin: String,
    /// For its output.
    pub stdout: String,
    /// For its errors.
    pub stderr: String,
    /// Whether they are one terminal.
    pub terminal: bool,
}

/// A connection to a shim, with a method for each call of the task service, in the version that `start` answered.
#[derive(Clone)]
pub struct Shim {
    /// For the clients of all services, such as `SandboxClient::new(shim.client.clone())`.
    pub client: Client,
    service: &'static str,
}

/// What a call answers.
pub type Answer<T> = tare_proto::ttrpc::Result<T>;

impl Shim {
    /// Connects to where `start` said.
    pub async fn connect(started: &Started) -> Answer<Shim> {
        let client = Client::connect(&started.address).await?;
        let service = if started.version >= 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
        Ok(Shim { client, service })
    }

    /// Calls a method of the task service.
    pub async fn call<Q: Message, A: Message>(&self, context: Context, method: &str, request: &Q) -> Answer<A> {
        let broken = |e: tare_proto::protobuf::Error| tare_proto::ttrpc::Error::Others(e.to_string());
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            payload: request.write_to_bytes().map_err(broken)?,
            timeout_nano: context.timeout_nano,
            metadata: context::to_pb(context.metadata),
            ..Default::default()
        };
        let response = self.client.request(request).await?;
        A::parse_from_bytes(&response.payload).map_err(broken)
    }

    async fn done<Q: Message>(&self, method: &str, request: &Q) -> Answer<()> {
        self.call::<Q, Empty>(soon(), method, request).await.map(drop)
    }

    /// Creates a task of a bundle that has its root file system; the pid is its first process's.
    pub async fn create(&self, id: &str, bundle: &Path, streams: &Streams) -> Answer<u32> {
        self.create_from(CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_str().expect("a plain path").into(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            ..Default::default()
        })
        .await
    }

    /// Creates a task of a bundle with mounts that are its root file system, and options.
    pub async fn create_with(
        &self,
        id: &str,
        bundle: &Path,
        streams: &Streams,
        rootfs: Vec<Mount>,
        options: Option<Any>,
    ) -> Answer<u32> {
        self.create_from(CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_str().expect("a plain path").into(),
            rootfs,
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: options.into(),
            ..Default::default()
        })
        .await
    }

    /// Creates a task as the request says.
    pub async fn create_from(&self, request: CreateTaskRequest) -> Answer<u32> {
        self.call(soon(), "Create", &request).await.map(|it: CreateTaskResponse| it.pid)
    }

    /// Starts the task, or one of its execs.
    pub async fn start(&self, id: &str, exec_id: &str) -> Answer<u32> {
        let request = StartRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call(soon(), "Start", &request).await.map(|it: StartResponse| it.pid)
    }

    /// Adds a process to the task; `process` is that of an OCI configuration.
    pub async fn exec(&self, id: &str, exec_id: &str, process: &serde_json::Value, streams: &Streams) -> Answer<()> {
        let spec = tare_proto::any::json(tare_proto::any::PROCESS, process.to_string().into_bytes());
        let request = ExecProcessRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.done("Exec", &request).await
    }

    /// Waits for a process's end, however long it takes.
    pub async fn wait(&self, id: &str, exec_id: &str) -> Answer<WaitResponse> {
        let request = WaitRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call(Context::default(), "Wait", &request).await
    }

    /// How a process is.
    pub async fn state(&self, id: &str, exec_id: &str) -> Answer<StateResponse> {
        let request = StateRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call(soon(), "State", &request).await
    }

    /// Sends a signal to one process.
    pub async fn kill(&self, id: &str, exec_id: &str, signal: i32) -> Answer<()> {
        let signal = signal.try_into().expect("a signal's number");
        let request = KillRequest { id: id.into(), exec_id: exec_id.into(), signal, ..Default::default() };
        self.done("Kill", &request).await
    }

    /// Sends a signal to all processes of a task.
    pub async fn kill_all(&self, id: &str, signal: i32) -> Answer<()> {
        let signal = signal.try_into().expect("a signal's number");
        let request = KillRequest { id: id.into(), signal, all: true, ..Default::default() };
        self.done("Kill", &request).await
    }

    /// Deletes an ended task, or one of its ended execs.
    pub async fn delete(&self, id: &str, exec_id: &str) -> Answer<DeleteResponse> {
        let request = DeleteRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call(soon(), "Delete", &request).await
    }

    /// The pids of a task's processes, with their exec ids where they have one.
    pub async fn pids(&self, id: &str) -> Answer<Vec<(u32, Option<String>)>> {
        let response: PidsResponse =
            self.call(soon(), "Pids", &PidsRequest { id: id.into(), ..Default::default() }).await?;
        let exec_id = |info: &Any| unpack::<tare_proto::runc::ProcessDetails>(info).ok().flatten().map(|it| it.exec_id);
        Ok(response.processes.iter().map(|it| (it.pid, it.info.as_ref().and_then(exec_id))).collect())
    }

    /// Stops all processes of a task where they are.
    pub async fn pause(&self, id: &str) -> Answer<()> {
        self.done("Pause", &PauseRequest { id: id.into(), ..Default::default() }).await
    }

    /// Lets them go on.
    pub async fn resume(&self, id: &str) -> Answer<()> {
        self.done("Resume", &ResumeRequest { id: id.into(), ..Default::default() }).await
    }

    /// Closes a process's standard input.
    pub async fn close_stdin(&self, id: &str, exec_id: &str) -> Answer<()> {
        let request = CloseIORequest { id: id.into(), exec_id: exec_id.into(), stdin: true, ..Default::default() };
        self.done("CloseIO", &request).await
    }

    /// Sets the size of a process's terminal.
    pub async fn resize(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Answer<()> {
        let request = ResizePtyRequest { id: id.into(), exec_id: exec_id.into(), width, height, ..Default::default() };
        self.done("ResizePty", &request).await
    }

    /// Sets limits; `resources` are those of an OCI configuration.
    pub async fn update(&self, id: &str, resources: &serde_json::Value) -> Answer<()> {
        let resources = tare_proto::any::json(tare_proto::any::LINUX_RESOURCES, resources.to_string().into_bytes());
        let request =
            UpdateTaskRequest { id: id.into(), resources: MessageField::some(resources), ..Default::default() };
        self.done("Update", &request).await
    }

    /// The statistics of a task, when they are of the type asked for.
    pub async fn stats<M: Packed>(&self, id: &str) -> Answer<Option<M>> {
        let response: StatsResponse =
            self.call(soon(), "Stats", &StatsRequest { id: id.into(), ..Default::default() }).await?;
        Ok(response.stats.as_ref().and_then(|it| unpack(it).ok().flatten()))
    }

    /// Writes a running task into a directory; it goes on afterwards unless the options say that it ends.
    pub async fn checkpoint(&self, id: &str, path: &Path, options: Option<Any>) -> Answer<()> {
        let path = path.to_str().expect("a plain path").into();
        let request = CheckpointTaskRequest { id: id.into(), path, options: options.into(), ..Default::default() };
        self.done("Checkpoint", &request).await
    }

    /// The pids of the shim and of a task.
    pub async fn pids_of_shim_and_task(&self, id: &str) -> Answer<(u32, u32)> {
        let response: ConnectResponse =
            self.call(soon(), "Connect", &ConnectRequest { id: id.into(), ..Default::default() }).await?;
        Ok((response.shim_pid, response.task_pid))
    }

    /// Asks the shim to end, which it does when it has no task. Its answer may be lost with it.
    pub async fn shutdown(&self, id: &str) -> Answer<()> {
        self.done("Shutdown", &ShutdownRequest { id: id.into(), ..Default::default() }).await
    }
}

/// The deadline of a call that is answered at once.
pub fn soon() -> Context {
    context::with_duration(wait::deadline().saturating_duration_since(Instant::now()))
}

/// The code a call was refused with; None when it failed otherwise.
pub fn refusal(error: &tare_proto::ttrpc::Error) -> Option<tare_proto::ttrpc::Code> {
    match error {
        tare_proto::ttrpc::Error::RpcStatus(status) => status.code.enum_value().ok(),
        _ => None,
    }
}

/// Waits until the shim's process is gone, and reaps it if that falls to us.
///
/// # Panics
/// If it is still there at the deadline.
pub fn wait_gone(shim_pid: u32) {
    let pid = i32::try_from(shim_pid).expect("a pid");
    // An error: it is gone and was reaped.
    if let Ok(pidfd) = crate::sys::pidfd_open(pid) {
        assert!(wait::readable(pidfd.as_fd(), wait::deadline()), "the shim {pid} is still there");
        let _ = nix::sys::wait::waitpid(Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    }
}

/// As [`wait_gone`], and meanwhile this thread's event loop goes on: a shim may still have events for its daemon.
///
/// # Panics
/// If it is still there at the deadline.
pub async fn until_gone(shim_pid: u32) {
    if let Ok(pidfd) = crate::sys::pidfd_open(shim_pid.try_into().expect("a pid")) {
        let pidfd = crate::sys::watch(pidfd).expect("watch a process");
        let until = tokio::time::Instant::from_std(wait::deadline());
        let ended = tokio::time::timeout_at(until, pidfd.readable()).await;
        assert!(ended.is_ok(), "the shim {shim_pid} is still there");
    }
    wait_gone(shim_pid);
}

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub namespace: String,
    /// Its topic, such as `/tasks/exit`.
    pub topic: String,
    /// What happened.
    pub event: Any,
}

impl Event {
    /// What happened, when it is of the type asked for.
    pub fn get<M: Packed>(&self) -> Option<M> {
        unpack(&self.event).ok().flatten()
    }

    /// In a line: what happened, to which container, to which exec of it, and the status where one belongs to it.
    pub fn line(&self) -> String {
        let join = |what: &str, container: &str, rest: &[&str]| {
            let words = [what, container].into_iter().chain(rest.iter().copied()).filter(|it| !it.is_empty());
            words.collect::<Vec<_>>().join(" ")
        };
        // The first process has its container's id.
        let exec = |id: &str, container: &str| if id == container { String::new() } else { id.to_owned() };
        if let Some(it) = self.get::<events::TaskCreate>() {
            join("create", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskStart>() {
            join("start", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskExit>() {
            join("exit", &it.container_id, &[&exec(&it.id, &it.container_id), &it.exit_status.to_string()])
        } else if let Some(it) = self.get::<events::TaskDelete>() {
            join("delete", &it.container_id, &[&exec(&it.id, &it.container_id), &it.exit_status.to_string()])
        } else if let Some(it) = self.get::<events::TaskExecAdded>() {
            join("exec-added", &it.container_id, &[&it.exec_id])
        } else if let Some(it) = self.get::<events::TaskExecStarted>() {
            join("exec-started", &it.container_id, &[&it.exec_id])
        } else if let Some(it) = self.get::<events::TaskOOM>() {
            join("oom", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskPaused>() {
            join("paused", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskResumed>() {
            join("resumed", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskCheckpointed>() {
            join("checkpointed", &it.container_id, &[])
        } else {
            format!("{} {}", self.topic, self.event.type_url)
        }
    }
}

/// The daemon's side of the events, on a thread of its own: so it takes them while a test waits for something. Dropped, it is
/// a daemon that was killed, its connections with it; bound again, one that came back.
pub struct EventSink {
    path: PathBuf,
    events: mpsc::UnboundedReceiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EventSink {
    /// Listens at the path, where a socket may have been left.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn bind(path: &Path) -> EventSink {
        let _ = fs::remove_file(path);
        let (sender, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, listens) = oneshot::channel();
        let address = format!("unix://{}", path.display());
        let serve = async move {
            let mut server = Server::new()
                .bind(&address)
                .unwrap_or_else(|e| panic!("listen at {address}: {e}"))
                .register_service(create_events(Arc::new(Forwarder(sender))));
            server.start().await.expect("serve events");
            let _ = ready.send(());
            let _ = stopped.await;
        };
        // With its event loop end all that the server has begun.
        let thread = std::thread::spawn(move || block_on(serve));
        listens.await.expect("the thread of the events listens");
        EventSink { path: path.to_owned(), events, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends as if killed; the lines that it had taken and nobody has read.
    pub fn kill(mut self) -> Vec<String> {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next event.
    ///
    /// # Panics
    /// If none comes before the deadline.
    pub async fn next(&mut self) -> Event {
        let until = tokio::time::Instant::from_std(wait::deadline());
        let next = tokio::time::timeout_at(until, self.events.recv()).await;
        next.expect("no event came before the deadline").expect("the server has the other end")
    }

    /// The events up to the first whose line begins with these words, in lines.
    ///
    /// # Panics
    /// If it does not come before the deadline.
    pub async fn until(&mut self, beginning: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.next().await.line();
            let last = line.starts_with(beginning);
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// The events that have come, in lines, without waiting.
    pub fn so_far(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|it| it.line()).collect()
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.end();
    }
}

struct Forwarder(mpsc::UnboundedSender<Event>);

#[async_trait::async_trait]
impl Events for Forwarder {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> Answer<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let event = envelope.event.unwrap_or_default();
        // Whoever holds the other end waits for this thread before.
        let _ = self.0.send(Event { namespace: envelope.namespace, topic: envelope.topic, event });
        Ok(Empty::new())
    }
}
