//! `create`: everything up to a container whose init waits to execute its program. `run` and `restore` share it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Layout};
use crate::cli::{CreateArgs, Global};
use crate::error::{Context, Error, Kind, Result};
use crate::init::namespaces::Joined;
use crate::init::{self, Given};
use crate::notify::{self, Forwarder};
use crate::parent::mount_source;
use crate::parent::serve::{self, Desk};
use crate::parent::{Spawned, inherited, rdt, spawn};
use crate::plan::namespaces::{KINDS, Namespaces, Source};
use crate::plan::{Options, Plan, cgroup, mounts, process};
use crate::state::{self, ContainerDir, State, write_atomically};
use crate::{delete, lsm, terminal};

/// When init is to execute the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// When `start` says so, by exec.fifo.
    AtStart,
    /// As soon as everything is ready, with nobody to watch it: `run --detach`.
    Detached,
    /// As soon as everything is ready, with this process relaying its terminal: `run`.
    Foreground,
}

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    /// Its directory, locked.
    pub dir: ContainerDir,
    /// Its state, as saved.
    pub state: State,
    /// What was done.
    pub plan: Plan,
    /// Its init.
    pub spawned: Spawned,
    /// The master end of its pty, unless that was sent to a console socket.
    pub console: Option<OwnedFd>,
    /// Who tells the service manager that it is ready, where it begins at once.
    pub notify: Option<Forwarder>,
}

/// Runs the command.
pub fn run(global: &Global, args: &CreateArgs) -> Result<()> {
    let created = create(global, args, Begin::AtStart)?;
    if created.console.is_some() {
        // Checked before anything was done: see `check_console`.
        return Err(Error::new(Kind::System, "the container has a pty that nobody receives"));
    }
    Ok(())
}

/// Creates a container. Whatever fails, everything that was done is undone.
pub fn create(global: &Global, args: &CreateArgs, begin: Begin) -> Result<Created> {
    state::check_id(&args.id)?;
    let root = absolute(&global.root())?;
    let mut bundle = Bundle::load(args.bundle.as_deref())?;
    let notify = notify::requested().is_some();
    if notify {
        notify::extend(bundle.spec_mut(), &root.join(&args.id))?;
    }
    let layout = Layout::detect()?;
    let plan = Plan::from_spec(&bundle, &options(global, args), &layout)?;
    check_console(&plan, args, begin)?;
    let mount_label = bundle.spec().linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    lsm::check_host(&plan.process, mount_label)?;
    inherited::settle(plan.process.preserved_fds)?;
    let dir = ContainerDir::create(&root, &args.id)?;
    let mut half = Half {
        state: new_state(&bundle, &plan, args),
        plan,
        cgroup: None,
        spawned: None,
        hooks_began: false,
        notify,
        forwarder: None,
    };
    match half.build(&bundle, &dir, args, begin) {
        Ok(console) => half.finish(dir, console),
        Err(error) => {
            half.undo(dir);
            Err(error)
        }
    }
}

/// A container half made: what must be undone if it gets no further.
struct Half {
    plan: Plan,
    state: State,
    cgroup: Option<Cgroup>,
    spawned: Option<Spawned>,
    hooks_began: bool,
    /// Whether a service manager waits for the container to be ready.
    notify: bool,
    forwarder: Option<Forwarder>,
}

impl Half {
    fn build(
        &mut self,
        bundle: &Bundle,
        dir: &ContainerDir,
        args: &CreateArgs,
        begin: Begin,
    ) -> Result<Option<OwnedFd>> {
        dir.save(&self.state)?;
        dir.keep("config.json", bundle.config())?;
        if self.notify {
            notify::make_directory(dir.path())?;
            if begin != Begin::AtStart {
                self.forwarder = Forwarder::bind(dir.path())?;
            }
        }
        if let Some(seccomp) = &self.plan.seccomp {
            dir.keep("seccomp", &seccomp.to_bytes())?;
        }
        let console_socket = args.console_socket.as_deref().map(terminal::connect_console).transpose()?;
        let fifo = if begin == Begin::AtStart { Some(dir.make_fifo()?) } else { None };
        let joined = open_namespaces(&self.plan.namespaces)?;
        let sources = mount_source::open(self.plan.wanted())?;
        if self.plan.cgroup.clones_into() {
            // v2: init starts in its cgroup, so that must be there first.
            let cgroup = Cgroup::create(&self.plan.cgroup)?;
            self.state.cgroup = cgroup.saved();
            self.cgroup = Some(cgroup);
        }
        let given = Given { plan: &self.plan, state: &self.state, joined, sources, fifo };
        let cgroup = self.cgroup.as_ref().and_then(Cgroup::clone_fd);
        let spawned = spawn(clone_flags(&self.plan.namespaces), cgroup, |link| init::run(given, link))?;
        let spawned = self.spawned.insert(spawned);
        let mut desk = Desk { plan: &self.plan, dir, state: &mut self.state, cgroup: &mut self.cgroup, console_socket };
        if !desk.plan.namespaces.need_intermediate() {
            serve::note(spawned.pid(), &mut desk)?;
        }
        if let Some(plan) = &self.plan.rdt {
            desk.state.rdt = Some(rdt::apply(plan, spawned.pid())?);
        }
        let served = serve::until_ready(spawned, &mut desk)?;
        if let Some(socket) = &args.pidfd_socket {
            terminal::send_pidfd(socket, spawned.pidfd())?;
        }
        self.state.complete = true;
        dir.save(&self.state)?;
        if let Some(path) = &args.pid_file {
            write_atomically(path, spawned.pid().to_string().as_bytes(), 0o644)?;
        }
        Ok(served.console)
    }

    fn finish(self, dir: ContainerDir, console: Option<OwnedFd>) -> Result<Created> {
        let Some(spawned) = self.spawned else {
            return Err(Error::new(Kind::System, "a container was created without an init"));
        };
        Ok(Created { dir, state: self.state, plan: self.plan, spawned, console, notify: self.forwarder })
    }

    /// Takes back whatever was done. The error that led here is the one to tell; another one here is a warning.
    fn undo(self, dir: ContainerDir) {
        if let Some(spawned) = &self.spawned {
            spawned.kill();
        }
        if let Err(error) = delete::release(dir, &self.state) {
            crate::log::warn(format_args!("clean up after a failed create: {error}"));
        }
        if self.hooks_began {
            delete::poststop(&self.state);
        }
    }
}

fn options(global: &Global, args: &CreateArgs) -> Options {
    Options {
        id: args.id.clone(),
        manager: cgroup::Manager::from(global.cgroup_manager()),
        privilege: cgroup::Privilege::from(global.rootless),
        root_change: if args.no_pivot { mounts::RootChange::MoveAndChroot } else { mounts::RootChange::Pivot },
        keyring: if args.no_new_keyring { process::Keyring::Inherit } else { process::Keyring::New },
        preserve_fds: args.preserve_fds,
        listen_fds: process::listen_fds(|name| std::env::var(name).ok(), std::process::id()),
    }
}

fn new_state(bundle: &Bundle, plan: &Plan, args: &CreateArgs) -> State {
    let mut state = State::new(&args.id, bundle.path(), &plan.rootfs.path, plan.cgroup.saved());
    state.annotations = bundle.spec().annotations().clone().unwrap_or_default();
    state.hooks = plan.hooks.clone();
    state.own_keyring = plan.process.keyring.is_some();
    state.own_pid_namespace = plan.namespaces.pid.is_new();
    state
}

/// A pty needs somebody at its other end, and a console socket needs a pty.
fn check_console(plan: &Plan, args: &CreateArgs, begin: Begin) -> Result<()> {
    match (&args.console_socket, plan.process.terminal.is_some()) {
        (None, true) if begin != Begin::Foreground => {
            Err(Error::invalid("process.terminal is true, but there is no --console-socket to send the terminal to"))
        }
        (Some(_), false) => Err(Error::invalid("--console-socket is given, but process.terminal is false")),
        _ => Ok(()),
    }
}

/// The namespaces that clone3 makes: those that only a child can be in. The others init makes itself, while the parent
/// makes the cgroups.
fn clone_flags(plan: &Namespaces) -> u64 {
    if plan.need_intermediate() {
        return 0;
    }
    let wanted = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
    (plan.flags(Source::is_new) & wanted) as u32 as u64
}

/// Opens the namespaces to join, on the host.
pub fn open_namespaces(plan: &Namespaces) -> Result<Vec<Joined>> {
    let mut joined = Vec::new();
    for (kind, flag, word) in KINDS {
        if let Source::Join(path) = plan.source(kind) {
            let file = File::open(path).on(&format!("open the {word} namespace"), path.display())?;
            joined.push(Joined { fd: file.into(), flag, path: path.display().to_string() });
        }
    }
    Ok(joined)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).on("find", path.display())
}
