//! The end of a process: what is done between the kernel's word and the client's.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tare_proto::Timestamp;
use tare_proto::events::TaskExit;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::container::Container;
use crate::exits::Exit;
use crate::process::{Phase, Process};
use crate::tasks::Shim;

/// How long the first process's exit is held back for others that should be told before it and do not end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the end of an exec and tells it.
pub async fn of_exec(shim: Rc<Shim>, container: Rc<Container>, process: Rc<Process>, pidfd: OwnedFd) {
    let exit = reaped(&shim, process.pid(), pidfd).await;
    process.hang_up();
    tell(&shim, &container, &process, exit);
    container.exec_ended();
}

/// Waits for the end of a container's first process, lets all that belongs to it end before, and tells it.
pub async fn of_init(shim: Rc<Shim>, container: Rc<Container>, pidfd: OwnedFd) {
    let init = container.init.clone();
    let exit = reaped(&shim, init.pid(), pidfd).await;
    container.end();
    init.hang_up();
    last_oom_look(&container).await;
    if timeout(PATIENCE, init.settled()).await.is_err() {
        tracing::warn!("container {} has ended while the runtime still starts it", container.id);
    }
    if !container.own_pid_namespace {
        kill_rest(&container).await;
    }
    if timeout(PATIENCE, container.until_execs_ended()).await.is_err() {
        tracing::warn!("container {} has ended, but processes of it have not", container.id);
    }
    tell(&shim, &container, &init, exit);
}

async fn reaped(shim: &Shim, pid: u32, pidfd: OwnedFd) -> Exit {
    shim.children.wait(pid, pidfd).await.unwrap_or_else(|error| {
        tracing::error!("{error}");
        Exit { status: 255, at: SystemTime::now() }
    })
}

/// The client's word: first the event, then the answers of all who wait.
fn tell(shim: &Shim, container: &Container, process: &Process, exit: Exit) {
    let event = TaskExit {
        container_id: container.id.clone(),
        id: process.id.clone(),
        pid: process.pid(),
        exit_status: exit.status,
        exited_at: Some(timestamp(exit.at)).into(),
        ..Default::default()
    };
    shim.publish("/tasks/exit", &event);
    process.stop(exit);
}

/// A process that was killed for lack of memory is told of after the lack itself.
async fn last_oom_look(container: &Container) {
    let asks = container.last_oom_look.borrow_mut().take();
    let (answer, answered) = oneshot::channel();
    if asks.is_some_and(|asks| asks.send(answer).is_ok()) {
        let _ = answered.await;
    }
}

/// What shares its pid namespace with others does not end with its first process by itself.
async fn kill_rest(container: &Container) {
    match timeout(PATIENCE, container.runtime.kill_all(&container.id, libc::SIGKILL.cast_unsigned())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("kill the rest of container {}: {error}", container.id),
        Err(_) => tracing::warn!("kill the rest of container {}: the runtime takes too long", container.id),
    }
    for exec in container.execs() {
        if exec.phase() == Phase::Running {
            let _ = exec.signal(libc::SIGKILL.cast_unsigned());
        }
    }
}

/// A time as the protocol has it.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos().cast_signed(),
        ..Default::default()
    }
}
