//! A pod without a pause container: the sandbox service.
//!
//! A pod is namespaces that several containers join, and a process to find them by. Where a daemon drives the sandbox through
//! the shim, that process is the shim's own [holder](crate::sys::holder): no image, no root, no runtime. Its containers come
//! through the task service and name their namespaces by the holder's pid.
//!
//! ```text
//!  (empty) --CreateSandbox--> Created --StartSandbox--> Ready --StopSandbox, or the holder dies--> Stopped
//!     ^                                                                                                |
//!     +------------------------------------- ShutdownSandbox -----------------------------------------+
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tare_proto::any::{SPEC, json, unpack};
use tare_proto::cri::{IDMapping, NamespaceMode, NamespaceOption, PodSandboxConfig};
use tare_proto::sandbox::*;
use tare_proto::sandbox_ttrpc::{Sandbox as SandboxApi, create_sandbox};
use tare_proto::types::{Metric, Platform};
use ttrpc::r#async::{Service, TtrpcContext};

use crate::cgroup::Cgroup;
use crate::ends::timestamp;
use crate::error::{Error, Kind, Result};
use crate::exits::Exit;
use crate::process::{Phase, Process, exited};
use crate::sys::holder::{Holding, hold};
use crate::sys::process::Spawned;
use crate::sys::userns::{owner_of, with_maps};
use crate::tasks::{Flow, Shim, Tasks, plain_name};

const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";
/// What a sandbox may set for all its containers: what lies in the namespaces that it holds.
const NETWORK_SYSCTLS: &str = "net/";
const IPC_SYSCTLS: [&str; 4] = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"];
/// How long a stop waits for what was killed.
const KILLED: Duration = Duration::from_secs(5);

/// The place of the shim's one sandbox.
#[derive(Debug, Default)]
pub struct Slot(RefCell<Option<Rc<Sandbox>>>);

impl Slot {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_none()
    }

    fn get(&self, id: &str) -> Result<Rc<Sandbox>> {
        let found = self.0.borrow().as_ref().filter(|it| it.holder.id == id).cloned();
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("sandbox {id} does not exist in this shim")))
    }
}

/// The shim's sandbox.
#[derive(Debug)]
struct Sandbox {
    network: PathBuf,
    config: PodSandboxConfig,
    holder: Process,
    created_at: Cell<Option<SystemTime>>,
}

fn create(shim: &Shim, request: CreateSandboxRequest) -> Result<()> {
    plain_name(&request.sandbox_id)?;
    shim.stays()?;
    if !shim.sandbox.is_empty() {
        return Err(Error::new(Kind::AlreadyExists, "this shim has a sandbox already: a pod has a shim of its own"));
    }
    let config = match request.options.as_ref().filter(|it| !it.type_url.is_empty()) {
        None => PodSandboxConfig::default(),
        Some(any) => unpack(any).ok().flatten().ok_or_else(|| {
            Error::invalid(format!("the sandbox's options are no runtime.v1.PodSandboxConfig but {}", any.type_url))
        })?,
    };
    let namespaces = namespace_options(&config);
    user_maps(&namespaces)?;
    sysctls(&config, &namespaces)?;
    let stdio = Default::default();
    let sandbox = Sandbox {
        network: request.netns_path.into(),
        config,
        holder: Process::new(request.sandbox_id, stdio, Vec::new()),
        created_at: Cell::new(None),
    };
    *shim.sandbox.0.borrow_mut() = Some(Rc::new(sandbox));
    shim.changed();
    Ok(())
}

async fn start(shim: Rc<Shim>, id: String) -> Result<(u32, SystemTime)> {
    let sandbox = shim.sandbox.get(&id)?;
    if sandbox.holder.phase() != Phase::Created {
        return Err(Error::precondition(format!("sandbox {id} was started already")));
    }
    let options = namespace_options(&sandbox.config);
    let network = open_network(&sandbox)?;
    let user = user_namespace(&options, network.as_ref())
        .map_err(|error| Error::internal(format!("make the user namespace of sandbox {id}: {error}")))?;
    let holding = Holding {
        new: new_namespaces(&options, network.is_some()),
        user: user.as_ref().map(AsFd::as_fd),
        network: network.as_ref().map(AsFd::as_fd),
        hostname: if is_shared_with_host(&options) { "" } else { &sandbox.config.hostname },
        sysctls: sysctls(&sandbox.config, &options)?,
    };
    let Spawned { pid, pidfd } =
        hold(&holding).map_err(|error| Error::internal(format!("hold the namespaces of sandbox {id}: {error}")))?;
    shim.children.expect(pid);
    sandbox.holder.began(pid)?;
    sandbox.holder.settle(Phase::Running);
    let now = SystemTime::now();
    sandbox.created_at.set(Some(now));
    tokio::task::spawn_local(async move {
        let exit = shim.children.wait(pid, pidfd).await;
        sandbox.holder.stop(exit.unwrap_or(Exit { status: 255, at: SystemTime::now() }));
    });
    Ok((pid, now))
}

fn open_network(sandbox: &Sandbox) -> Result<Option<File>> {
    if sandbox.network.as_os_str().is_empty() {
        return Ok(None);
    }
    let path = &sandbox.network;
    File::open(path)
        .map(Some)
        .map_err(|error| Error::invalid(format!("open the sandbox's network namespace {}: {error}", path.display())))
}

fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    let context = config.linux.as_ref().and_then(|it| it.security_context.as_ref());
    // POD is the number 0, which an absent message would say as well; the CRI's default is a pid namespace per container.
    let apart = || NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
    context.and_then(|it| it.namespace_options.clone().into_option()).unwrap_or_else(apart)
}

fn is_node(mode: tare_proto::EnumOrUnknown<NamespaceMode>) -> bool {
    mode.enum_value() == Ok(NamespaceMode::NODE)
}

/// The pod's maps of user and group ids, in the form of `/proc/PID/uid_map`, if it has a user namespace.
fn user_maps(options: &NamespaceOption) -> Result<Option<[String; 2]>> {
    let Some(user) = options.userns_options.as_ref() else { return Ok(None) };
    let map = |what: &str, map: &[IDMapping]| {
        if map.iter().all(|it| it.length == 0) {
            return Err(Error::invalid(format!("the pod's user namespace maps no {what}: it can hold no process")));
        }
        Ok(map.iter().map(|it| format!("{} {} {}\n", it.container_id, it.host_id, it.length)).collect())
    };
    match user.mode.enum_value() {
        Ok(NamespaceMode::POD) => Ok(Some([map("user", &user.uids)?, map("group", &user.gids)?])),
        Ok(NamespaceMode::NODE) => Ok(None),
        mode => Err(Error::invalid(format!("a pod's user namespace is its own or the host's, not {mode:?}"))),
    }
}

/// The pod's user namespace, if it has one. A daemon that made the pod's network made that within one with the pod's maps,
/// and only who is in that is root to the network: so it is the pod's.
fn user_namespace(options: &NamespaceOption, network: Option<&File>) -> std::io::Result<Option<OwnedFd>> {
    let Ok(Some([uids, gids])) = user_maps(options) else { return Ok(None) };
    if let Some(owner) = network.map(|it| owner_of(it.as_fd())).transpose()?.flatten() {
        return Ok(Some(owner));
    }
    with_maps(&uids, &gids).map(Some)
}

/// A pod in the host's network has the host's name.
fn is_shared_with_host(options: &NamespaceOption) -> bool {
    is_node(options.network)
}

fn new_namespaces(options: &NamespaceOption, joins_network: bool) -> libc::c_int {
    let mut new = 0;
    if !is_node(options.network) {
        new |= libc::CLONE_NEWUTS;
        if !joins_network {
            new |= libc::CLONE_NEWNET;
        }
    }
    if !is_node(options.ipc) {
        new |= libc::CLONE_NEWIPC;
    }
    // By default each container has its own; a pod's is for those who ask for one in common.
    if options.pid.enum_value() == Ok(NamespaceMode::POD) {
        new |= libc::CLONE_NEWPID;
    }
    new
}

/// The files of the sysctls; one that is not the pod's own is refused, for it would be the host's.
fn sysctls(config: &PodSandboxConfig, options: &NamespaceOption) -> Result<Vec<(PathBuf, String)>> {
    let Some(linux) = config.linux.as_ref() else { return Ok(Vec::new()) };
    let file = |(name, value): (&String, &String)| {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let plain = Path::new(&path).components().all(|it| matches!(it, Component::Normal(_)));
        let own_network = path.starts_with(NETWORK_SYSCTLS) && !is_node(options.network);
        let own_ipc = IPC_SYSCTLS.iter().any(|it| path.starts_with(it)) && !is_node(options.ipc);
        if !plain || !(own_network || own_ipc) {
            return Err(Error::invalid(format!("sysctl {name} is not the pod's own: it would change the host")));
        }
        Ok((Path::new("/proc/sys").join(path), value.clone()))
    };
    linux.sysctls.iter().map(file).collect()
}

async fn stop(shim: Rc<Shim>, id: String) -> Result<()> {
    let sandbox = shim.sandbox.get(&id)?;
    for container in shim.containers() {
        if container.init.phase() == Phase::Running
            && let Err(error) = container.runtime.kill(&container.id, libc::SIGKILL.cast_unsigned()).await
        {
            tracing::warn!("stop sandbox {id}: kill container {}: {error}", container.id);
        }
    }
    match sandbox.holder.phase() {
        Phase::Created => sandbox.holder.stop(Exit { status: 0, at: SystemTime::now() }),
        Phase::Stopped => {}
        Phase::Starting | Phase::Running => {
            let exits = sandbox.holder.exits();
            // It may have gone this moment.
            let _ = sandbox.holder.signal(libc::SIGKILL.cast_unsigned());
            tokio::time::timeout(KILLED, exited(exits)).await.map_err(|_| {
                Error::new(Kind::DeadlineExceeded, format!("the holder of sandbox {id} does not end"))
            })??;
        }
    }
    Ok(())
}

async fn shutdown(shim: Rc<Shim>, id: String) -> Result<()> {
    if shim.sandbox.get(&id).is_ok() {
        stop(shim.clone(), id).await?;
        shim.sandbox.0.borrow_mut().take();
        shim.changed();
    }
    shim.shutdown();
    Ok(())
}

fn status(shim: &Shim, request: &SandboxStatusRequest) -> Result<SandboxStatusResponse> {
    let sandbox = shim.sandbox.get(&request.sandbox_id)?;
    let (holder, exit) = (&sandbox.holder, sandbox.holder.exit());
    let mut info = HashMap::new();
    if request.verbose {
        info.insert("network".to_owned(), sandbox.network.to_string_lossy().into_owned());
        info.insert("bundle".to_owned(), shim.config.bundle.to_string_lossy().into_owned());
    }
    Ok(SandboxStatusResponse {
        sandbox_id: holder.id.clone(),
        pid: holder.pid(),
        state: if holder.phase() == Phase::Running { READY } else { NOT_READY }.to_owned(),
        info,
        created_at: sandbox.created_at.get().map(timestamp).into(),
        exited_at: exit.map(|it| timestamp(it.at)).into(),
        ..Default::default()
    })
}

/// What the pod as a whole uses, by the cgroup that the kubelet gave it.
fn metrics(shim: &Shim, id: &str) -> Result<Metric> {
    let sandbox = shim.sandbox.get(id)?;
    let parent = sandbox.config.linux.as_ref().map_or("", |it| it.cgroup_parent.as_str());
    if parent.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("sandbox {id} has no cgroup of its own")));
    }
    let data = crate::stats::stats(&Cgroup::load(parent)?)?;
    let now = Some(timestamp(SystemTime::now())).into();
    Ok(Metric { timestamp: now, id: id.to_owned(), data: Some(data).into(), ..Default::default() })
}

/// This machine, in the names of the image specification.
fn platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        other => (other, ""),
    };
    Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into(), ..Default::default() }
}

/// The sandbox service of a shim with this table.
pub fn services(tasks: Tasks) -> HashMap<String, Service> {
    create_sandbox(Arc::new(SandboxService { tasks }))
}

struct SandboxService {
    tasks: Tasks,
}

#[async_trait]
impl SandboxApi for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        self.tasks.run(|shim| Box::pin(async move { create(&shim, request) })).await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let (pid, at) = self.tasks.run(|shim| Box::pin(start(shim, request.sandbox_id))).await?;
        // A daemon keeps it with the pod and reads it again; there is no container that it could describe.
        let spec = json(SPEC, br#"{"ociVersion":"1.0.2"}"#.to_vec());
        Ok(StartSandboxResponse {
            pid,
            created_at: Some(timestamp(at)).into(),
            spec: Some(spec).into(),
            ..Default::default()
        })
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        let known =
            |shim: Rc<Shim>| -> Flow<()> { Box::pin(async move { shim.sandbox.get(&request.sandbox_id).map(drop) }) };
        self.tasks.run(known).await?;
        Ok(PlatformResponse { platform: Some(platform()).into(), ..Default::default() })
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, request: StopSandboxRequest) -> ttrpc::Result<StopSandboxResponse> {
        self.tasks.run(|shim| Box::pin(stop(shim, request.sandbox_id))).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, request: WaitSandboxRequest) -> ttrpc::Result<WaitSandboxResponse> {
        let subscribe = |shim: Rc<Shim>| -> Flow<_> {
            Box::pin(async move { Ok(shim.sandbox.get(&request.sandbox_id)?.holder.exits()) })
        };
        let exit = exited(self.tasks.run(subscribe).await?).await?;
        let exited_at = Some(timestamp(exit.at)).into();
        Ok(WaitSandboxResponse { exit_status: exit.status, exited_at, ..Default::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        Ok(self.tasks.run(|shim| Box::pin(async move { status(&shim, &request) })).await?)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        let known =
            |shim: Rc<Shim>| -> Flow<()> { Box::pin(async move { shim.sandbox.get(&request.sandbox_id).map(drop) }) };
        self.tasks.run(known).await?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        self.tasks.run(|shim| Box::pin(shutdown(shim, request.sandbox_id))).await?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        let metric = self.tasks.run(|shim| Box::pin(async move { metrics(&shim, &request.sandbox_id) })).await?;
        Ok(SandboxMetricsResponse { metrics: Some(metric).into(), ..Default::default() })
    }
}
