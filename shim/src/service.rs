//! The task service: requests become flows of the table, answers and failures become messages.
//!
//! Versions 2 and 3 of the service have the same messages; both names are served side by side, so the daemon's version need
//! not be believed.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tare_proto::any::{pack, unpack};
use tare_proto::task_types::{ProcessInfo, Status};
use tare_proto::task_v3::*;
use tare_proto::task_v3_ttrpc::Task;
use tare_proto::{Any, Empty, MessageField, Timestamp, linux_runc, runc, task_services};
use ttrpc::r#async::{Service, TtrpcContext};

use crate::container::Frozen;
use crate::ends::timestamp;
use crate::error::{Error, Result};
use crate::exits::Exit;
use crate::operations::{self, Deleted};
use crate::process::{Phase, exited};
use crate::tasks::{Flow, Tasks};
use crate::{create, start};

/// The services of a shim with this table.
pub fn services(tasks: Tasks) -> HashMap<String, Service> {
    let mut services = task_services(Arc::new(TaskService { tasks: tasks.clone() }));
    services.extend(crate::sandbox::services(tasks.clone()));
    services.extend(crate::streaming::services(tasks));
    services
}

struct TaskService {
    tasks: Tasks,
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        let flow = |shim, given_up| -> Flow<u32> { Box::pin(create::create(shim, request, given_up)) };
        let pid = self.tasks.run_until_given_up(flow).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let flow =
            |shim, given_up| -> Flow<u32> { Box::pin(start::start(shim, request.id, request.exec_id, given_up)) };
        let pid = self.tasks.run_until_given_up(flow).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        done(self.tasks.run(|shim| Box::pin(start::add_exec(shim, request))).await)
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let flow = |shim| -> Flow<Deleted> {
            if request.exec_id.is_empty() {
                Box::pin(operations::delete_container(shim, request.id))
            } else {
                Box::pin(operations::delete_exec(shim, request.id, request.exec_id))
            }
        };
        let Deleted { pid, exit } = self.tasks.run(flow).await?;
        let (exit_status, exited_at) = exit_fields(exit);
        Ok(DeleteResponse { pid, exit_status, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let KillRequest { id, exec_id, signal, all, .. } = request;
        done(self.tasks.run(move |shim| Box::pin(operations::kill(shim, id, exec_id, signal, all))).await)
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        done(self.tasks.run(|shim| Box::pin(operations::pause(shim, request.id))).await)
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        done(self.tasks.run(|shim| Box::pin(operations::resume(shim, request.id))).await)
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = request.resources.unwrap_or_default();
        done(self.tasks.run(|shim| Box::pin(operations::update(shim, request.id, resources))).await)
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        let options = checkpoint_options(request.options.as_ref())?;
        let flow = |shim| -> Flow<()> { Box::pin(operations::checkpoint(shim, request.id, request.path, options)) };
        done(self.tasks.run(flow).await)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let subscribe = |shim: std::rc::Rc<_>| -> Flow<_> {
            Box::pin(async move { operations::subscribe(&shim, &request.id, &request.exec_id) })
        };
        let exit = exited(self.tasks.run(subscribe).await?).await?;
        let (exit_status, exited_at) = exit_fields(Some(exit));
        Ok(WaitResponse { exit_status, exited_at, ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let flow = |shim: std::rc::Rc<_>| -> Flow<_> { Box::pin(async move { state(&shim, &request) }) };
        Ok(self.tasks.run(flow).await?)
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pids = self.tasks.run(|shim| Box::pin(operations::pids(shim, request.id))).await?;
        let processes = pids.into_iter().map(process_info).collect::<Result<_>>()?;
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let flow =
            |shim: std::rc::Rc<_>| -> Flow<Any> { Box::pin(async move { operations::stats(&shim, &request.id) }) };
        let stats = self.tasks.run(flow).await?;
        Ok(StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let ResizePtyRequest { id, exec_id, width, height, .. } = request;
        let flow = move |shim: std::rc::Rc<_>| -> Flow<()> {
            Box::pin(async move { operations::resize(&shim, &id, &exec_id, width, height) })
        };
        done(self.tasks.run(flow).await)
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let flow = move |shim: std::rc::Rc<_>| -> Flow<()> {
            Box::pin(async move { operations::close_stdin(&shim, &request.id, &request.exec_id) })
        };
        done(self.tasks.run(flow).await)
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let flow = |shim: std::rc::Rc<crate::tasks::Shim>| -> Flow<u32> {
            // The shim's own id is asked for before there is a container, too.
            Box::pin(async move { Ok(shim.container(&request.id).map_or(0, |container| container.init.pid())) })
        };
        let task_pid = self.tasks.run(flow).await?;
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        let flow = |shim: std::rc::Rc<crate::tasks::Shim>| -> Flow<()> {
            Box::pin(async move {
                shim.shutdown();
                Ok(())
            })
        };
        done(self.tasks.run(flow).await)
    }
}

fn done(result: Result<()>) -> ttrpc::Result<Empty> {
    result?;
    Ok(Empty::default())
}

fn exit_fields(exit: Option<Exit>) -> (u32, MessageField<Timestamp>) {
    (exit.map_or(0, |it| it.status), exit.map(|it| timestamp(it.at)).into())
}

fn state(shim: &crate::tasks::Shim, request: &StateRequest) -> Result<StateResponse> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    let status = match (process.phase(), container.frozen()) {
        (Phase::Stopped, _) => Status::STOPPED,
        (_, Frozen::Yes) => Status::PAUSED,
        (_, Frozen::Pausing) => Status::PAUSING,
        (Phase::Created | Phase::Starting, _) => Status::CREATED,
        (Phase::Running, _) => Status::RUNNING,
    };
    let (exit_status, exited_at) = exit_fields(process.exit());
    Ok(StateResponse {
        id: process.id.clone(),
        bundle: container.bundle.to_string_lossy().into_owned(),
        pid: process.pid(),
        status: status.into(),
        stdin: process.stdio.stdin.clone(),
        stdout: process.stdio.stdout.clone(),
        stderr: process.stdio.stderr.clone(),
        terminal: process.stdio.terminal,
        exit_status,
        exited_at,
        exec_id: request.exec_id.clone(),
        ..Default::default()
    })
}

fn process_info((pid, exec_id): (u32, Option<String>)) -> Result<ProcessInfo> {
    let info = exec_id
        .map(|exec_id| pack(&runc::ProcessDetails { exec_id, ..Default::default() }))
        .transpose()
        .map_err(|error| Error::internal(format!("tell the name of process {pid}: {error}")))?;
    Ok(ProcessInfo { pid, info: info.into(), ..Default::default() })
}

/// In either message; see [`crate::options`].
fn checkpoint_options(options: Option<&Any>) -> Result<runc::CheckpointOptions> {
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(Default::default()) };
    if let Some(options) = unpack(any).ok().flatten() {
        return Ok(options);
    }
    let older: Option<linux_runc::CheckpointOptions> = unpack(any).ok().flatten();
    let older = older.ok_or_else(|| {
        Error::invalid(format!(
            "the checkpoint's options are no containerd.runc.v1.CheckpointOptions but {}",
            any.type_url
        ))
    })?;
    Ok(runc::CheckpointOptions {
        exit: older.exit,
        open_tcp: older.open_tcp,
        external_unix_sockets: older.external_unix_sockets,
        terminal: older.terminal,
        file_locks: older.file_locks,
        empty_namespaces: older.empty_namespaces,
        cgroups_mode: older.cgroups_mode,
        image_path: older.image_path,
        work_path: older.work_path,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_options_come_in_either_message() {
        let given = runc::CheckpointOptions {
            exit: true,
            image_path: "/image".into(),
            work_path: "/work".into(),
            ..Default::default()
        };
        let older = linux_runc::CheckpointOptions {
            exit: true,
            image_path: "/image".into(),
            work_path: "/work".into(),
            ..Default::default()
        };
        assert_eq!(checkpoint_options(Some(&pack(&given).unwrap())).unwrap(), given);
        assert_eq!(checkpoint_options(Some(&pack(&older).unwrap())).unwrap(), given);
        assert_eq!(checkpoint_options(None).unwrap(), runc::CheckpointOptions::default());
        let other = Any { type_url: "some.Thing".into(), ..Default::default() };
        assert!(checkpoint_options(Some(&other)).unwrap_err().message.contains("some.Thing"));
    }
}
