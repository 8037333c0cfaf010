//! Start: lets a created container's process run, restores one from a checkpoint, or starts an exec.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tare_proto::events::{TaskExecAdded, TaskExecStarted, TaskStart};
use tare_proto::task_v3::ExecProcessRequest;

use crate::container::{Checkpoint, Container, Frozen};
use crate::create::{self, INIT_PID_FILE, OpenStreams, read_pid};
use crate::ends;
use crate::error::{Error, Kind, Result};
use crate::exits::Exit;
use crate::io::Stdio;
use crate::options::write_private;
use crate::process::{Phase, Process};
use crate::runtime::Images;
use crate::tasks::{GivenUp, Shim, plain_name};

/// What an exec is given to start after its container's first process has ended: the runtime needs a moment to see it.
const GRACE_AFTER_END: Duration = Duration::from_secs(2);
/// The status of an exec that could not be started.
const NOT_STARTED: u32 = 255;

/// Starts the process that was asked for and returns its id.
pub async fn start(shim: Rc<Shim>, id: String, exec_id: String, given_up: GivenUp) -> Result<u32> {
    let container = shim.container(&id)?;
    if exec_id.is_empty() {
        return start_init(&shim, &container, given_up).await;
    }
    let process = container.process(&exec_id)?;
    start_exec(&shim, &container, &process, given_up).await
}

async fn start_init(shim: &Rc<Shim>, container: &Rc<Container>, given_up: GivenUp) -> Result<u32> {
    let _turn = container.turn.lock().await;
    let init = &container.init;
    may_start(init)?;
    if container.has_ended() {
        return Err(Error::precondition(format!("container {} has ended before its start", container.id)));
    }
    init.starting();
    let started = async {
        match &container.checkpoint {
            None => container.runtime.start(&container.id).await,
            Some(checkpoint) => restore(shim, container, checkpoint).await,
        }
    };
    let started = tokio::select! {
        started = started => started,
        () = given_up => Err(Error::new(Kind::DeadlineExceeded, format!("start {}: the client gave up", container.id))),
    };
    if let Err(error) = started {
        init.settle(Phase::Created);
        return Err(error);
    }
    if init.phase() == Phase::Stopped {
        // The runtime took so long that its end was told before: a start after that would be of a container that runs.
        return Ok(init.pid());
    }
    shim.publish(
        "/tasks/start",
        &TaskStart { container_id: container.id.clone(), pid: init.pid(), ..Default::default() },
    );
    // Not before the event: an exit that is already known waits for this.
    init.settle(Phase::Running);
    if container.checkpoint.is_some() {
        create::watch(shim, container)?;
    }
    Ok(init.pid())
}

async fn restore(shim: &Rc<Shim>, container: &Container, checkpoint: &Checkpoint) -> Result<()> {
    let _unknown_children_stay = shim.children.call();
    let pid_file = container.bundle.join(INIT_PID_FILE);
    let work = match container.options.criu_work_path.as_str() {
        "" => container.bundle.join("work").to_string_lossy().into_owned(),
        path => path.to_owned(),
    };
    let images = Images {
        path: &checkpoint.path,
        work: &work,
        parent: &checkpoint.parent,
        flags: if container.options.no_pivot_root { vec!["--no-pivot"] } else { Vec::new() },
        ..Images::default()
    };
    let mut streams = OpenStreams::open(shim, container, &container.init).await?;
    container.runtime.restore(&container.id, &pid_file, images, streams.for_runtime()).await?;
    streams.connect(shim, &container.init).await?;
    create::began(shim, container, read_pid(&pid_file)?)
}

/// Adds an exec, which waits for its start.
pub async fn add_exec(shim: Rc<Shim>, request: ExecProcessRequest) -> Result<()> {
    let container = shim.container(&request.id)?;
    plain_name(&request.exec_id)?;
    may_exec(&container)?;
    let stdio =
        Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
    let spec = with_terminal(&request.spec.value, request.terminal)?;
    container.add_exec(Process::new(request.exec_id.clone(), stdio, spec))?;
    let event = TaskExecAdded { container_id: request.id, exec_id: request.exec_id, ..Default::default() };
    shim.publish("/tasks/exec-added", &event);
    Ok(())
}

async fn start_exec(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    given_up: GivenUp,
) -> Result<u32> {
    let _turn = process.turn.lock().await;
    may_start(process)?;
    may_exec(container)?;
    process.starting();
    let pidfd = {
        // Until the process is expected, an ended child may be it.
        let _unknown_children_stay = shim.children.call();
        let ended = async {
            container.until_ended().await;
            tokio::time::sleep(GRACE_AFTER_END).await;
        };
        let started = tokio::select! {
            started = run_exec(shim, container, process) => started,
            () = ended => Err(Error::precondition(format!("container {} has ended", container.id))),
            () = given_up => Err(Error::new(Kind::DeadlineExceeded, format!("exec {}: the client gave up", process.id))),
        };
        started.inspect(|_| shim.children.expect(process.pid()))
    };
    match pidfd {
        Ok(pidfd) => {
            let (container_id, exec_id, pid) = (container.id.clone(), process.id.clone(), process.pid());
            shim.publish("/tasks/exec-started", &TaskExecStarted { container_id, exec_id, pid, ..Default::default() });
            process.settle(Phase::Running);
            tokio::task::spawn_local(ends::of_exec(shim.clone(), container.clone(), process.clone(), pidfd));
            Ok(pid)
        }
        Err(error) => {
            // The runtime's words for it are of namespaces and processes that are no more.
            let error = match container.has_ended() {
                true => Error::precondition(format!("container {} has ended: {error}", container.id)),
                false => error,
            };
            process.stop(Exit { status: NOT_STARTED, at: std::time::SystemTime::now() });
            container.exec_ended();
            process.close_streams(&shim.children).await;
            Err(error)
        }
    }
}

/// The runtime's exec, with the streams around it.
async fn run_exec(shim: &Rc<Shim>, container: &Container, process: &Process) -> Result<std::os::fd::OwnedFd> {
    let pid_file = container.bundle.join(exec_pid_file(&process.id));
    let spec_file = Temporary(container.bundle.join(format!("exec-{}.json", process.id)));
    write_private(&spec_file.0, &process.spec)?;
    let mut streams = OpenStreams::open(shim, container, process).await?;
    container.runtime.exec(&container.id, &spec_file.0, &pid_file, streams.for_runtime()).await?;
    streams.connect(shim, process).await?;
    process.began(read_pid(&pid_file)?)
}

/// The file of an exec's id in a bundle; no exec can be called such that it is the first process's.
pub fn exec_pid_file(exec_id: &str) -> String {
    format!("exec-{exec_id}.pid")
}

fn may_start(process: &Process) -> Result<()> {
    match process.phase() {
        Phase::Created => Ok(()),
        Phase::Starting | Phase::Running => {
            Err(Error::precondition(format!("cannot start a running process ({})", process.id)))
        }
        Phase::Stopped => Err(Error::precondition(format!("cannot start a stopped process ({})", process.id))),
    }
}

fn may_exec(container: &Container) -> Result<()> {
    if container.has_ended() || container.init.phase() == Phase::Stopped {
        return Err(Error::precondition(format!("cannot exec in a stopped container ({})", container.id)));
    }
    if container.frozen() != Frozen::No {
        return Err(Error::precondition(format!(
            "cannot exec in a paused container ({}): resume it first",
            container.id
        )));
    }
    if container.checkpoint.is_some() && container.init.phase() == Phase::Created {
        return Err(Error::precondition(format!(
            "cannot exec in a container that is not restored yet ({})",
            container.id
        )));
    }
    Ok(())
}

/// The process as it was sent, with the request's word on the terminal.
fn with_terminal(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let wrong = |error| Error::invalid(format!("the exec's process is no JSON of one: {error}"));
    let mut process: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(spec).map_err(wrong)?;
    process.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&process).map_err(wrong)
}

/// A file that goes when it is no longer needed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
