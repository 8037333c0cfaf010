//! Create: from a request to a container whose first process waits for its start.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tare_proto::events::{TaskCreate, TaskIO};
use tare_proto::task_v3::CreateTaskRequest;
use tokio::sync::oneshot;

use crate::cgroup::Cgroup;
use crate::console::ConsoleSocket;
use crate::container::{Checkpoint, Container};
use crate::ends;
use crate::error::{Context, Error, Kind, Result};
use crate::io::{ChildStdio, Io, LoggerNames, Stdio};
use crate::mounts::{Mount, mount_rootfs, unmount_recursive};
use crate::oom::OomWatch;
use crate::options::Options;
use crate::process::{Connected, Process};
use crate::runtime::{Runtime, Streams};
use crate::streaming::Named;
use crate::tasks::{GivenUp, Reserved, Shim, plain_name};

/// The file of the first process's id in a bundle.
pub const INIT_PID_FILE: &str = "init.pid";
/// Where a root is mounted in a bundle.
const ROOTFS: &str = "rootfs";
/// A runtime sends the terminal before it returns, so it is there or it never comes.
const TERMINAL_WAIT: Duration = Duration::from_secs(5);
/// How long the clean-up after a failed create may take.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// Makes the container and returns the id of its first process; 0 when it comes from a checkpoint at its start.
pub async fn create(shim: Rc<Shim>, request: CreateTaskRequest, given_up: GivenUp) -> Result<u32> {
    plain_name(&request.id)?;
    let reserved = shim.reserve(&request.id)?;
    let bundle = bundle_of(&request)?;
    let options = Options::from_any(request.options.as_ref())?;
    // Before anything is made: whoever cleans up after us reads there how.
    options.save(&bundle)?;
    let rootfs = Rootfs::mount(&request, &bundle)?;
    let container = Rc::new(describe(&shim, &request, bundle, options, rootfs.path.clone()));
    if container.checkpoint.is_none() {
        make(&shim, &container, &reserved, given_up).await?;
    }
    rootfs.keep();
    shim.insert(container.clone());
    shim.publish("/tasks/create", &created_event(&request, container.init.pid()));
    if container.checkpoint.is_none() {
        watch(&shim, &container)?;
    }
    Ok(container.init.pid())
}

fn bundle_of(request: &CreateTaskRequest) -> Result<PathBuf> {
    let bundle = Path::new(&request.bundle);
    // No such bundle is a wrong request; NotFound would tell a daemon that the container is gone.
    let wrong = |why: &dyn std::fmt::Display| Error::invalid(format!("open the bundle {}: {why}", bundle.display()));
    let config = bundle.join("config.json");
    if !config.try_exists().map_err(|error| wrong(&error))? {
        return Err(wrong(&"it has no config.json"));
    }
    std::path::absolute(bundle).map_err(|error| wrong(&error))
}

fn describe(
    shim: &Shim,
    request: &CreateTaskRequest,
    bundle: PathBuf,
    options: Options,
    rootfs: Option<PathBuf>,
) -> Container {
    let stdio = Stdio {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let checkpoint = (!request.checkpoint.is_empty())
        .then(|| Checkpoint { path: request.checkpoint.clone(), parent: request.parent_checkpoint.clone() });
    let config = &shim.config;
    let runtime = Runtime::new(&options.settings(), &config.namespace, &bundle, shim.children.clone());
    let init = Process::new(request.id.clone(), stdio, Vec::new());
    Container::new(request.id.clone(), bundle, options, runtime, init, checkpoint, rootfs)
}

/// The runtime's create, with the streams around it; undone if any of it fails.
async fn make(shim: &Rc<Shim>, container: &Container, reserved: &Reserved, given_up: GivenUp) -> Result<()> {
    // From here until the process is watched for, an ended child may be the container's.
    let _unknown_children_stay = shim.children.call();
    let made = async {
        let pid_file = container.bundle.join(INIT_PID_FILE);
        let mut streams = OpenStreams::open(shim, container, &container.init).await?;
        let mut flags = Vec::new();
        if container.options.no_pivot_root {
            flags.push("--no-pivot");
        }
        if container.options.no_new_keyring {
            flags.push("--no-new-keyring");
        }
        container.runtime.create(&container.id, &pid_file, &flags, streams.for_runtime()).await?;
        streams.connect(shim, &container.init).await?;
        began(shim, container, read_pid(&pid_file)?)
    };
    let made = tokio::select! {
        made = made => made,
        () = given_up => Err(Error::new(Kind::DeadlineExceeded, format!("create {}: the client gave up", container.id))),
        () = reserved.unwanted() => Err(Error::precondition(format!("create {}: it was deleted meanwhile", container.id))),
    };
    if made.is_err() {
        let force = container.runtime.delete_force(&container.id);
        match tokio::time::timeout(CLEAN_UP, force).await {
            Ok(Ok(())) => {}
            Ok(Err(second)) => tracing::warn!("clean up after a failed create of {}: {second}", container.id),
            Err(_) => tracing::warn!("clean up after a failed create of {}: the runtime takes too long", container.id),
        }
        container.init.close_streams(&shim.children).await;
    }
    made
}

/// Notes the first process; its end is kept for [`watch`].
pub fn began(shim: &Shim, container: &Container, pid: u32) -> Result<()> {
    let pidfd = container.init.began(pid)?;
    shim.children.expect(pid);
    *container.init.unwatched.borrow_mut() = Some(pidfd);
    Ok(())
}

/// From now on its exit and its lack of memory are noticed.
pub fn watch(shim: &Rc<Shim>, container: &Rc<Container>) -> Result<()> {
    let Some(pidfd) = container.init.unwatched.borrow_mut().take() else { return Ok(()) };
    let pid = container.init.pid();
    match Cgroup::of(pid) {
        Ok(cgroup) => {
            let cgroup = Rc::new(cgroup);
            watch_memory(shim, container, &cgroup);
            *container.cgroup.borrow_mut() = Some(cgroup);
        }
        Err(error) => tracing::warn!("no statistics for container {}: {error}", container.id),
    }
    tokio::task::spawn_local(ends::of_init(shim.clone(), container.clone(), pidfd));
    Ok(())
}

/// Publishes each lack of memory, and takes a last look when the first process has ended, so that it is told before that.
fn watch_memory(shim: &Rc<Shim>, container: &Rc<Container>, cgroup: &Rc<Cgroup>) {
    let mut watch = match OomWatch::new(cgroup) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!("no OOM events for container {}: {error}", container.id);
            return;
        }
    };
    let (asks, mut asked) = oneshot::channel::<oneshot::Sender<()>>();
    *container.last_oom_look.borrow_mut() = Some(asks);
    let (shim, container_id, place) = (shim.clone(), container.id.clone(), cgroup.display());
    tokio::task::spawn_local(async move {
        let tell = || {
            tracing::info!("container {container_id} lacks memory (cgroup {place})");
            let event = tare_proto::events::TaskOOM { container_id: container_id.clone(), ..Default::default() };
            shim.publish("/tasks/oom", &event);
        };
        loop {
            tokio::select! {
                lack = watch.next() => match lack {
                    Some(()) => tell(),
                    None => return,
                },
                answer = &mut asked => {
                    if watch.check() {
                        tell();
                    }
                    if let Ok(answer) = answer {
                        let _ = answer.send(());
                    }
                    return;
                }
            }
        }
    });
}

/// The streams of a process that is being started.
#[derive(Debug)]
pub struct OpenStreams {
    io: Io,
    child: Option<ChildStdio>,
    console: Option<ConsoleSocket>,
    named: Named,
}

impl OpenStreams {
    /// Opens what the client named.
    pub async fn open(shim: &Shim, container: &Container, process: &Process) -> Result<Self> {
        let names = LoggerNames { id: process.id.clone(), namespace: shim.config.namespace.clone() };
        let (stdio, named) = shim.streams.resolve(&process.stdio, &container.bundle)?;
        let (io, child) = Io::open(&stdio, &names, container.options.owner()).await?;
        let console = process.stdio.terminal.then(ConsoleSocket::bind).transpose()?;
        Ok(Self { io, child: Some(child), console, named })
    }

    /// What the runtime is given of them, once.
    pub fn for_runtime(&mut self) -> Streams<'_> {
        match &self.console {
            Some(console) => Streams { console_socket: Some(console.path()), stdio: None },
            None => Streams { console_socket: None, stdio: self.child.take() },
        }
    }

    /// The runtime has them: bytes begin to flow.
    pub async fn connect(mut self, shim: &Shim, process: &Process) -> Result<()> {
        match self.console.take() {
            Some(console) => {
                let terminal = tokio::time::timeout(TERMINAL_WAIT, console.receive()).await;
                let missing = |_| Error::internal("the runtime started the process without sending its terminal");
                self.io.start_console(terminal.map_err(missing)??)?;
            }
            None => self.io.start()?,
        }
        if let Some(pid) = self.io.logger_pid() {
            shim.children.expect(pid);
        }
        *process.streams.borrow_mut() = Some(Connected { io: self.io, _named: self.named });
        Ok(())
    }
}

/// The id that the runtime wrote.
pub fn read_pid(file: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::internal(format!("read the pid file {} of the runtime: {error}", file.display())))?;
    text.trim()
        .parse()
        .map_err(|_| Error::internal(format!("the runtime wrote no process id into {}: {text:?}", file.display())))
}

/// A root mounted by the shim, unmounted unless it is kept.
struct Rootfs {
    path: Option<PathBuf>,
    kept: bool,
}

impl Rootfs {
    fn mount(request: &CreateTaskRequest, bundle: &Path) -> Result<Self> {
        if request.rootfs.is_empty() {
            return Ok(Self { path: None, kept: true });
        }
        let path = bundle.join(ROOTFS);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(|| format!("make {}", path.display()));
            }
            _ => {}
        }
        let mounts: Vec<Mount> = request
            .rootfs
            .iter()
            .map(|it| Mount {
                kind: it.type_.clone(),
                source: it.source.clone(),
                target: it.target.clone(),
                options: it.options.clone(),
            })
            .collect();
        mount_rootfs(&mounts, &path)?;
        Ok(Self { path: Some(path), kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        if let (false, Some(path)) = (self.kept, &self.path)
            && let Err(error) = unmount_recursive(path)
        {
            tracing::warn!("clean up after a failed create: {error}");
        }
    }
}

fn created_event(request: &CreateTaskRequest, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: Some(io).into(),
        checkpoint: request.checkpoint.clone(),
        pid,
        ..Default::default()
    }
}
