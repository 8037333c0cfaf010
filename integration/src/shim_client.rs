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

mod events;
mod launch;

use std::future::Future;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use nix::unistd::Pid;
use tare_proto::any::{Packed, unpack};
use tare_proto::task_v3::*;
use tare_proto::ttrpc::Request;
use tare_proto::ttrpc::asynchronous::Client;
use tare_proto::ttrpc::context::{self, Context};
use tare_proto::types::Mount;
use tare_proto::{Any, Empty, Message, MessageField};

pub use self::events::{Event, EventSink};
pub use self::launch::{Bootstrap, Launch, Started};
use crate::wait;

/// Runs a test's asynchronous part on this thread, as the shim runs on one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make an event loop").block_on(future)
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
