//! `create`: everything up to a container whose init waits to execute its program. `run` and `restore` share it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Layout, SavedCgroup, Systemd, systemd};
use crate::cli::{CreateArgs, Global};
use crate::error::{Context, Error, Kind, Result};
use crate::init::namespaces::Joined;
use crate::init::{self, Given};
use crate::notify::{self, Forwarder};
use crate::parent::limits;
use crate::parent::serve::{self, Desk, Served};
use crate::parent::{Spawned, inherited, mount_source, rdt, spawn};
use crate::plan::cgroup::Manager;
use crate::plan::mounts::RootChange;
use crate::plan::namespaces::{KINDS, Namespaces, Source};
use crate::plan::process::{self, Call, Keyring};
use crate::plan::{Options, Plan};
use crate::state::{self, ContainerDir, Replaced, Staged, State, write_atomically};
use crate::{delete, lsm, selfexe, terminal};

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
pub fn run(global: &Global, args: &CreateArgs, own: &selfexe::Mount) -> Result<()> {
    let created = create(global, args, Begin::AtStart, own)?;
    if created.console.is_some() {
        // Checked before anything was done: see `check_console`.
        return Err(Error::new(Kind::System, "the container has a pty that nobody receives"));
    }
    Ok(())
}

/// Creates a container. Whatever fails, everything that was done is undone.
pub fn create(global: &Global, args: &CreateArgs, begin: Begin, own: &selfexe::Mount) -> Result<Created> {
    state::check_id(&args.id)?;
    let root = absolute(&global.root())?;
    let mut bundle = Bundle::load(args.bundle.as_deref())?;
    let notify = notify::requested().is_some();
    if notify {
        notify::extend(bundle.spec_mut(), &root.join(&args.id))?;
    }
    let layout = Layout::detect()?;
    let (manager, systemd) = systemd::manager(global)?;
    let plan = Plan::from_spec(bundle.spec(), bundle.path(), &options(global, args, manager), &layout)?;
    check_console(&plan, args, begin)?;
    lsm::check_host(&plan.process, plan.mount_label.as_deref())?;
    inherited::settle(plan.process.preserved_fds)?;
    limits::raise(&plan.process)?;
    let dir = ContainerDir::create(&root, &args.id)?;
    let mut half = Half {
        served: Served::default(),
        state: new_state(&bundle, &plan, args),
        plan,
        systemd,
        cgroup: None,
        spawned: None,
        hooks_began: false,
        notify,
        forwarder: None,
    };
    match half.build(&bundle, &dir, args, begin, own) {
        Ok(()) => half.finish(dir),
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
    systemd: Option<Systemd>,
    cgroup: Option<Cgroup>,
    spawned: Option<Spawned>,
    hooks_began: bool,
    /// Whether a service manager waits for the container to be ready.
    notify: bool,
    forwarder: Option<Forwarder>,
    served: Served,
}

impl Half {
    fn build(
        &mut self,
        bundle: &Bundle,
        dir: &ContainerDir,
        args: &CreateArgs,
        begin: Begin,
        own: &selfexe::Mount,
    ) -> Result<()> {
        // What is found on the host after this runtime was killed must have a state that tells of it: a cgroup, or mounts of
        // a container without a mount namespace. All else is made once the state tells of init.
        let touches_host = self.plan.cgroup.clones_into() || self.state.mounted_on_host;
        if touches_host {
            dir.save(&self.state)?;
        }
        if self.notify {
            notify::make_directory(dir.path())?;
            if begin != Begin::AtStart {
                self.forwarder = Forwarder::bind(dir.path())?;
            }
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
        let spawned = spawn(clone_flags(&self.plan.namespaces), cgroup, None, |link| {
            own.close();
            init::run(given, link)
        })?;
        let spawned = self.spawned.insert(spawned);
        let mut desk = Desk {
            plan: &self.plan,
            dir,
            config: bundle.config(),
            state: &mut self.state,
            cgroup: &mut self.cgroup,
            systemd: &mut self.systemd,
            hooks_began: false,
            console_socket,
            own,
        };
        let tell = |spawned: &Spawned, desk: &mut Desk<'_>, staged| announce(spawned, desk, staged, args);
        let served = serve::until_ready(spawned, &mut desk, &mut self.served, tell);
        self.hooks_began = desk.hooks_began;
        if served.is_err()
            && self.served.announced
            && let Some(path) = &args.pid_file
        {
            // It names a process that there is no longer.
            let _ = fs::remove_file(path);
        }
        served
    }

    fn finish(self, dir: ContainerDir) -> Result<Created> {
        let spawned = self.spawned.ok_or_else(no_init)?;
        let console = self.served.console;
        Ok(Created { dir, state: self.state, plan: self.plan, spawned, console, notify: self.forwarder })
    }

    /// Takes back whatever was done. The error that led here is the one to tell; another one here is a warning.
    fn undo(mut self, dir: ContainerDir) {
        self.state.complete = false;
        // While their namespace is there: the end of init takes devices that exist only in it.
        if let Some(moved) = self.served.moved {
            moved.undo();
        }
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

/// Tells everybody who waits for it that the container is there, before its program can run. Returns the state that the
/// complete one took the place of.
fn announce(spawned: &Spawned, desk: &mut Desk<'_>, staged: Option<Staged>, args: &CreateArgs) -> Result<Replaced> {
    if let Some(plan) = &desk.plan.rdt {
        let class = desk.state.rdt.insert(rdt::planned(plan)?).clone();
        desk.dir.save(desk.state)?;
        rdt::apply(&class, plan, spawned.pid())?;
    }
    if let Some(socket) = &args.pidfd_socket {
        terminal::send_pidfd(socket, spawned.pidfd())?;
    }
    let staged = match staged {
        Some(staged) => staged,
        None => {
            desk.state.complete = true;
            desk.dir.stage(desk.state)?
        }
    };
    let replaced = staged.publish()?;
    if let Some(path) = &args.pid_file {
        write_atomically(path, spawned.pid().to_string().as_bytes(), 0o644)?;
    }
    Ok(replaced)
}

fn no_init() -> Error {
    Error::new(Kind::System, "a container was created without an init")
}

/// What the flags of the call add to the configuration.
pub fn options<'a>(global: &Global, args: &'a CreateArgs, manager: Manager) -> Options<'a> {
    Options {
        manager,
        privilege: global.rootless.into(),
        change: if args.no_pivot { RootChange::MoveAndChroot } else { RootChange::Pivot },
        call: Call {
            container: &args.id,
            keyring: if args.no_new_keyring { Keyring::Inherit } else { Keyring::New },
            preserve_fds: args.preserve_fds,
            listen_fds: process::inherited_listen_fds(),
        },
    }
}

/// The state of a container that is being made.
pub fn new_state(bundle: &Bundle, plan: &Plan, args: &CreateArgs) -> State {
    let mut state = State::new(&args.id, bundle.path(), &plan.rootfs.path, SavedCgroup::planned(&plan.cgroup));
    state.annotations = bundle.spec().annotations().clone().unwrap_or_default();
    state.hooks = plan.hooks.clone();
    state.own_keyring = plan.process.keyring.is_some();
    state.mounted_on_host = plan.rootfs.change == RootChange::Chroot;
    state.own_pid_namespace = plan.namespaces.pid.is_new();
    state
}

/// A pty needs somebody at its other end, and a console socket needs a pty.
pub fn check_console(plan: &Plan, args: &CreateArgs, begin: Begin) -> Result<()> {
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

/// A path that does not depend on the working directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).on("find", path.display())
}
