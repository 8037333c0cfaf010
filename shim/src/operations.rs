//! What is done with a container that exists: signals, pauses, limits, checkpoints, looking, and the delete.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tare_proto::events::{TaskCheckpointed, TaskDelete, TaskPaused, TaskResumed};
use tare_proto::{Any, runc};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::container::{Container, Frozen};
use crate::ends::timestamp;
use crate::error::{Error, Kind, Result};
use crate::exits::Exit;
use crate::mounts::unmount_recursive;
use crate::process::{Phase, Process, exited};
use crate::runtime::Images;
use crate::start::exec_pid_file;
use crate::tasks::Shim;

/// How long a delete waits for output that others still hold open.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a delete waits for the end of a process that the runtime killed for it.
const KILLED: Duration = Duration::from_secs(5);
/// Where criu's log of a failed checkpoint is kept in the bundle.
const DUMP_LOG: &str = "criu-dump.log";

/// What a delete tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// The process that was.
    pub pid: u32,
    /// How it ended; None if it never ran.
    pub exit: Option<Exit>,
}

/// Sends a signal to one process or to all of a container.
pub async fn kill(shim: Rc<Shim>, id: String, exec_id: String, signal: u32, all: bool) -> Result<()> {
    let container = shim.container(&id)?;
    if !exec_id.is_empty() {
        return container.process(&exec_id)?.signal(signal);
    }
    if all {
        return container.runtime.kill_all(&id, signal).await;
    }
    if container.init.phase() == Phase::Stopped {
        return Err(Error::new(Kind::NotFound, "process already finished"));
    }
    // By the runtime, not by us: it knows what a signal means to its containers, and to one that is paused.
    container.runtime.kill(&id, signal).await
}

/// Stops a container's processes where they are.
pub async fn pause(shim: Rc<Shim>, id: String) -> Result<()> {
    let container = shim.container(&id)?;
    let _turn = container.turn.lock().await;
    if container.frozen() == Frozen::Yes {
        return Err(Error::precondition(format!("cannot pause a paused container ({id})")));
    }
    must_run(&container, "pause")?;
    container.set_frozen(Frozen::Pausing);
    let paused = container.runtime.pause(&id).await;
    if container.has_ended() {
        return paused;
    }
    container.set_frozen(if paused.is_ok() { Frozen::Yes } else { Frozen::No });
    paused?;
    shim.publish("/tasks/paused", &TaskPaused { container_id: id, ..Default::default() });
    Ok(())
}

/// Lets them go on.
pub async fn resume(shim: Rc<Shim>, id: String) -> Result<()> {
    let container = shim.container(&id)?;
    let _turn = container.turn.lock().await;
    must_run(&container, "resume")?;
    if container.frozen() != Frozen::Yes {
        return Err(Error::precondition(format!("cannot resume a container that is not paused ({id})")));
    }
    container.runtime.resume(&id).await?;
    container.set_frozen(Frozen::No);
    shim.publish("/tasks/resumed", &TaskResumed { container_id: id, ..Default::default() });
    Ok(())
}

/// Changes a container's limits; the resources are JSON.
pub async fn update(shim: Rc<Shim>, id: String, resources: Any) -> Result<()> {
    let container = shim.container(&id)?;
    let _turn = container.turn.lock().await;
    if container.init.phase() == Phase::Stopped || container.has_ended() {
        return Err(Error::precondition(format!("cannot update a stopped container ({id})")));
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&resources.value).is_err() {
        return Err(Error::invalid(format!("the resources for {id} are no JSON ({})", resources.type_url)));
    }
    container.runtime.update(&id, &resources.value).await
}

/// Saves a container's processes.
pub async fn checkpoint(shim: Rc<Shim>, id: String, path: String, options: runc::CheckpointOptions) -> Result<()> {
    let container = shim.container(&id)?;
    let _turn = container.turn.lock().await;
    must_run(&container, "checkpoint")?;
    let (work, keep_work) = match options.work_path.as_str() {
        "" => (container.bundle.join("criu-work"), false),
        given => (given.into(), true),
    };
    let work_text = work.to_string_lossy();
    let switches = [
        ("--leave-running", !options.exit),
        ("--tcp-established", options.open_tcp),
        ("--ext-unix-sk", options.external_unix_sockets),
        ("--shell-job", options.terminal),
        ("--file-locks", options.file_locks),
    ];
    let images = Images {
        path: if path.is_empty() { &options.image_path } else { &path },
        work: &work_text,
        parent: &options.parent_path,
        flags: switches.into_iter().filter_map(|(flag, on)| on.then_some(flag)).collect(),
        empty_namespaces: &options.empty_namespaces,
        cgroups_mode: &options.cgroups_mode,
    };
    let saved = container.runtime.checkpoint(&id, images).await.map_err(|mut error| {
        let kept = container.bundle.join(DUMP_LOG);
        if std::fs::copy(work.join("dump.log"), &kept).is_ok() {
            error.message = format!("{} (criu's log is {})", error.message, kept.display());
        }
        error
    });
    if !keep_work {
        let _ = std::fs::remove_dir_all(&work);
    }
    saved?;
    let event = TaskCheckpointed { container_id: id, checkpoint: path, ..Default::default() };
    shim.publish("/tasks/checkpointed", &event);
    Ok(())
}

fn must_run(container: &Container, what: &str) -> Result<()> {
    let state = match container.init.phase() {
        Phase::Running if !container.has_ended() => return Ok(()),
        Phase::Created | Phase::Starting => "created",
        Phase::Running | Phase::Stopped => "stopped",
    };
    Err(Error::precondition(format!("cannot {what} a {state} container ({})", container.id)))
}

/// The end to come of a process. Subscribed at once, so that a delete that follows takes nothing away.
pub fn subscribe(shim: &Shim, id: &str, exec_id: &str) -> Result<watch::Receiver<Option<Exit>>> {
    Ok(shim.container(id)?.process(exec_id)?.exits())
}

/// Deletes an exec that does not run.
pub async fn delete_exec(shim: Rc<Shim>, id: String, exec_id: String) -> Result<Deleted> {
    let container = shim.container(&id)?;
    let process = container.process(&exec_id)?;
    let _turn = process.turn.lock().await;
    must_not_run(&process)?;
    drain_and_close(&shim, &container, &process).await;
    let _ = std::fs::remove_file(container.bundle.join(exec_pid_file(&exec_id)));
    container.remove_exec(&exec_id);
    Ok(Deleted { pid: process.pid(), exit: process.exit() })
}

/// Deletes a container that does not run, with all that the shim and the runtime made for it. One that is still being made is given up:
/// whoever is told that there is none finds nothing of it.
pub async fn delete_container(shim: Rc<Shim>, id: String) -> Result<Deleted> {
    shim.give_up(&id).await;
    let container = shim.container(&id)?;
    let _turn = container.turn.lock().await;
    // Another delete may have come before ours.
    shim.container(&id)?;
    let init = &container.init;
    must_not_run(init)?;
    if init.phase() == Phase::Created {
        // By force: a start that was given up may have gone through all the same.
        container.runtime.delete_force(&id).await?;
        if init.pid() != 0 && timeout(KILLED, exited(init.exits())).await.is_err() {
            return Err(Error::internal(format!("delete {id}: its process {} does not end", init.pid())));
        }
        drain_and_close(&shim, &container, init).await;
    } else {
        // What the runtime removes and what is still to be read have nothing to do with each other.
        let (deleted, ()) = tokio::join!(container.runtime.delete(&id), drain_and_close(&shim, &container, init));
        deleted?;
    }
    for exec in container.execs() {
        exec.close_streams(&shim.children).await;
        let _ = std::fs::remove_file(container.bundle.join(exec_pid_file(&exec.id)));
    }
    if let Some(rootfs) = &container.rootfs {
        unmount_recursive(rootfs)?;
    }
    shim.remove(&id);
    let deleted = Deleted { pid: init.pid(), exit: init.exit() };
    shim.publish("/tasks/delete", &deleted_event(id, deleted));
    Ok(deleted)
}

fn deleted_event(container_id: String, deleted: Deleted) -> TaskDelete {
    TaskDelete {
        container_id,
        pid: deleted.pid,
        exit_status: deleted.exit.map_or(0, |exit| exit.status),
        exited_at: Some(timestamp(deleted.exit.map_or_else(SystemTime::now, |exit| exit.at))).into(),
        ..Default::default()
    }
}

fn must_not_run(process: &Process) -> Result<()> {
    match process.phase() {
        Phase::Created | Phase::Stopped => Ok(()),
        Phase::Starting | Phase::Running => {
            Err(Error::precondition(format!("cannot delete a running process ({}): kill it first", process.id)))
        }
    }
}

/// Lets the output reach its reader, as long as that is worth waiting for, and closes the streams.
async fn drain_and_close(shim: &Shim, container: &Container, process: &Process) {
    let drained = process.streams.borrow().as_ref().map(|it| it.io.drained());
    if let Some(drained) = drained
        && timeout(DRAIN, drained).await.is_err()
    {
        let (container, process) = (&container.id, &process.id);
        tracing::warn!("the output of {process} of container {container} is held open or not read: it is closed now");
    }
    process.close_streams(&shim.children).await;
}

/// The processes in a container; those that are execs, with their names.
///
/// Of one that has ended and was not deleted, its first process: since 1.7 containerd takes a shim without processes, when it
/// starts again, for one whose container was never made, and ends it; the exit would be lost.
pub async fn pids(shim: Rc<Shim>, id: String) -> Result<Vec<(u32, Option<String>)>> {
    let container = shim.container(&id)?;
    let mut pids = match container.runtime.ps(&id).await {
        Err(_) if container.init.phase() == Phase::Stopped => Vec::new(),
        found => found?,
    };
    if pids.is_empty() {
        pids.push(container.init.pid());
    }
    let execs = container.execs();
    let name = |pid: u32| execs.iter().find(|it| it.pid() == pid).map(|it| it.id.clone());
    Ok(pids.into_iter().map(|pid| (pid, name(pid))).collect())
}

/// What the host counts of a container.
pub fn stats(shim: &Shim, id: &str) -> Result<Any> {
    let container = shim.container(id)?;
    let cgroup = container.cgroup.borrow().clone();
    let cgroup = cgroup.ok_or_else(|| Error::new(Kind::NotFound, format!("container {id} has no cgroup")))?;
    crate::stats::stats(&cgroup)
}

/// Sets the size of a process's terminal.
pub fn resize(shim: &Shim, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
    let process = shim.container(id)?.process(exec_id)?;
    if process.phase() == Phase::Stopped && !exec_id.is_empty() {
        return Err(Error::precondition(format!("cannot resize a stopped process ({exec_id})")));
    }
    let streams = process.streams.borrow();
    streams.as_ref().map_or(Ok(()), |it| it.io.resize(width, height))
}

/// No more input will come.
pub fn close_stdin(shim: &Shim, id: &str, exec_id: &str) -> Result<()> {
    let process = shim.container(id)?.process(exec_id)?;
    if let Some(streams) = process.streams.borrow_mut().as_mut() {
        streams.io.close_stdin();
    }
    Ok(())
}
