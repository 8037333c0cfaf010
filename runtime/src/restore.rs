//! `restore`: makes a container again from what `checkpoint` saved.
//!
//! criu makes the processes, in place of init; around them it is `create`: the plan, the directory, the cgroups, the hooks.
//!
//! ```text
//!   tare                                        criu, cloned with a mount namespace of its own
//!   makes the cgroups                           binds the root where criu wants it, makes the mount points in it
//!   puts criu into them                 ──────► its children begin in them
//!   asks for the restore                ──────►
//!   notes init, runs prestart and       ◄────── setup-namespaces: they stand, nothing runs in them
//!   createRuntime hooks
//!   passes the terminal on              ◄────── orphan-pts-master
//!   notes that the container is complete◄────── post-restore: all processes are there, none has run
//!   is init's parent                    ◄────── the answer: they run
//! ```
//!
//! What is mounted for criu is mounted in criu's namespace alone and vanishes with it, however this process may end.

mod root;
mod time;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::write;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Layout, SavedCgroup, Systemd, systemd};
use crate::checkpoint::descriptors;
use crate::checkpoint::external::{self, CgroupPlaces, Namespaced, View};
use crate::checkpoint::options::{self, Directories, text};
use crate::cli::{Global, ManageCgroups, RestoreArgs};
use crate::create::{self, Begin};
use crate::criu::rpc::{CgroupMode, CgroupRoot, Features, Options, Request, RequestType};
use crate::criu::{Conversation, Notification, Stdio};
use crate::error::{Context, Error, Kind, Result};
use crate::parent::netdev::{self, Moved};
use crate::parent::rdt;
use crate::plan::Plan;
use crate::plan::hooks::Stage;
use crate::signals::Signals;
use crate::state::{self, ContainerDir, Init, State, Status, write_atomically};
use crate::sys::process::{self, Child, pidfd_open, pidfd_send_signal, set_child_subreaper, setns};
use crate::{delete, hooks, init, log, notify, run, terminal};

/// Runs the command: the status of the container's process, or 0 once it is detached.
pub fn run(global: &Global, args: &RestoreArgs) -> Result<i32> {
    // From before there is a process that they could concern.
    let signals = if args.run.detach { None } else { Some(Signals::hold()?) };
    if !args.run.detach && !args.run.no_subreaper {
        set_child_subreaper().on("become", "the subreaper")?;
    }
    let restored = restore(global, args)?;
    let Some(signals) = signals else { return Ok(0) };
    let status = terminal::relay(restored.child, restored.console, &signals);
    if args.run.keep {
        return status;
    }
    let removed = run::remove(global, &restored.state);
    let status = status?;
    removed.map(|()| status)
}

/// A container that runs again.
struct Restored {
    state: State,
    child: Child,
    console: Option<OwnedFd>,
}

/// Restores a container. Whatever fails, everything that was done is undone.
fn restore(global: &Global, args: &RestoreArgs) -> Result<Restored> {
    let call = &args.run.create;
    state::check_id(&call.id)?;
    let root = create::absolute(&global.root())?;
    let mut bundle = Bundle::load(call.bundle.as_deref())?;
    if notify::requested().is_some() {
        notify::extend(bundle.spec_mut(), &root.join(&call.id))?;
    }
    let layout = Layout::detect()?;
    let (manager, systemd) = systemd::manager(global)?;
    let plan = Plan::from_spec(bundle.spec(), bundle.path(), &create::options(global, call, manager), &layout)?;
    create::check_console(&plan, call, if args.run.detach { Begin::Detached } else { Begin::Foreground })?;
    external::refuse_idmapped(&plan.mounts)?;
    if args.criu.manage_cgroups_mode == Some(ManageCgroups::Strict) {
        refuse_existing(&SavedCgroup::planned(&plan.cgroup))?;
    }
    let directories = Directories::find(&args.criu)?;
    let dir = ContainerDir::create(&root, &call.id)?;
    let mut half = Half {
        state: create::new_state(&bundle, &plan, call),
        plan,
        layout,
        systemd,
        cgroup: None,
        child: None,
        console: None,
        moved: None,
        hooks_began: false,
    };
    let built = half.prepare(&bundle, &dir).and_then(|()| half.build(&dir, args, &directories));
    match built.and_then(|()| half.announce(&dir, args)) {
        Ok(child) => Ok(Restored { state: half.state, child, console: half.console }),
        Err(error) => {
            half.undo(dir);
            Err(error)
        }
    }
}

/// What `strict` demands; criu itself would refuse the cgroups that are made here for it.
fn refuse_existing(cgroup: &SavedCgroup) -> Result<()> {
    let is_there = |path: &&Path| std::fs::symlink_metadata(path).is_ok();
    match cgroup.directories().iter().map(|directory| directory.path.as_path()).find(is_there) {
        None => Ok(()),
        Some(path) => Err(Error::new(
            Kind::Exists,
            format!("the cgroup {} exists already: --manage-cgroups-mode strict refuses that", path.display()),
        )),
    }
}

/// A container half restored: what must be undone if it gets no further.
struct Half {
    plan: Plan,
    layout: Layout,
    systemd: Option<Systemd>,
    state: State,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
    console: Option<OwnedFd>,
    moved: Option<Moved>,
    hooks_began: bool,
}

impl Half {
    fn prepare(&mut self, bundle: &Bundle, dir: &ContainerDir) -> Result<()> {
        dir.save(&self.state)?;
        dir.keep("config.json", bundle.config())?;
        if let Some(seccomp) = &self.plan.seccomp {
            dir.keep("seccomp", &seccomp.to_bytes())?;
        }
        if notify::requested().is_some() {
            notify::make_directory(dir.path())?;
        }
        Ok(())
    }

    fn build(&mut self, dir: &ContainerDir, args: &RestoreArgs, directories: &Directories) -> Result<()> {
        let console_socket = args.run.create.console_socket.as_deref().map(terminal::connect_console).transpose()?;
        let namespaces = external::namespaces_to_join(&self.plan.namespaces)?;
        let place = root::make_place(dir)?;
        let passed: Vec<BorrowedFd<'_>> = namespaces.open.iter().map(AsFd::as_fd).collect();
        let mut criu =
            Conversation::open(Stdio::Inherited, &passed, libc::CLONE_NEWNS, || root::prepare(&self.plan, &place))?;
        options::require(&mut criu, Features { lazy_pages: Some(args.criu.lazy_pages), ..Features::default() })?;
        self.enter_cgroups(dir, criu.pid())?;
        // Everything that criu is to reach by a path or a directory is named as it sees it: in its own mount namespace.
        let its_root = PathBuf::from(format!("/proc/{}/root", criu.pid()));
        let opened = directories.open(&its_root)?;
        let view = View::of_directory(criu.pid(), &place)?;
        let mut options = options::common(&args.criu, directories, &opened, &self.state.annotations);
        self.describe(&mut options, args, namespaces, &view)?;
        options.root = Some(text(&place)?);
        options.cg_root = own_cgroups(criu.pid())?;
        options.inherit_fd.extend(descriptors::inherited(&directories.images)?);
        let request =
            Request { r#type: RequestType::Restore as i32, opts: Some(Box::new(options)), ..Request::default() };
        let response =
            criu.ask(&request, &mut |notification| self.notified(notification, dir, console_socket.as_ref()))?;
        directories.outcome(response)?;
        criu.close()?;
        root::remove_place(&place)
    }

    /// criu starts in the container's cgroups, and so does all that it makes.
    fn enter_cgroups(&mut self, dir: &ContainerDir, criu: i32) -> Result<()> {
        let (made, join) = match self.systemd.take() {
            Some(systemd) => (Cgroup::create_unit(&self.plan.cgroup, systemd, criu, &mut self.state.cgroup)?, None),
            None => Cgroup::create_to_join(&self.plan.cgroup).map(|(made, join)| (made, Some(join)))?,
        };
        let cgroup = self.cgroup.insert(made);
        self.state.cgroup = cgroup.saved();
        for file in join.map_or_else(|| cgroup.join_fds(), Ok)? {
            write(&file, criu.to_string().as_bytes()).on("put criu into", "the cgroups")?;
        }
        if let Some(plan) = &self.plan.rdt {
            let class = self.state.rdt.insert(rdt::planned(plan)?).clone();
            dir.save(&self.state)?;
            rdt::apply(&class, plan, criu)?;
        }
        dir.save(&self.state)
    }

    fn describe(&self, options: &mut Options, args: &RestoreArgs, namespaces: Namespaced, view: &View) -> Result<()> {
        // The restored init is to be our child, as any other init is, and not criu's.
        options.rst_sibling = Some(true);
        // A character device of the image may have another number here, if it has the same name.
        options.evasive_devices = Some(true);
        ask_for_restore(options, args);
        options.inherit_fd = namespaces.inherited;
        options.join_ns = namespaces.joined;
        let places = CgroupPlaces::of(&self.layout, &self.state.cgroup, &self.plan.namespaces);
        options.ext_mnt = external::to_restore(view, &self.plan.mounts, &places, &self.plan.devices.nodes)?;
        Ok(())
    }

    fn notified(
        &mut self,
        notification: Notification,
        dir: &ContainerDir,
        console_socket: Option<&OwnedFd>,
    ) -> Result<()> {
        match (notification.script.as_str(), notification.pid, notification.fd) {
            ("setup-namespaces", Some(pid), _) => {
                self.note(dir, pid)?;
                self.set_network_up(pid)?;
                self.run_hooks(pid)
            }
            ("post-restore", Some(pid), _) => {
                self.state.complete = true;
                self.note(dir, pid)
            }
            ("orphan-pts-master", _, Some(master)) => match console_socket {
                Some(socket) => terminal::send_master(socket, &master),
                None => {
                    self.console = Some(master);
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    /// Notes which process is init, so that a delete finds it should this process end now.
    fn note(&mut self, dir: &ContainerDir, pid: i32) -> Result<()> {
        self.child = Some(Child { pid, pidfd: pidfd_open(pid).on("open the process", pid)? });
        self.state.init = Some(Init::of(pid)?);
        dir.save(&self.state)
    }

    /// A network namespace begins as at creation: no image has its devices. Before the hooks, which may count on it, and
    /// before the sockets are made again, which connections to itself need the loopback for.
    fn set_network_up(&mut self, pid: i32) -> Result<()> {
        let open = |path: &str| std::fs::File::open(path).on("open", path);
        let its = open(&format!("/proc/{pid}/ns/net"))?;
        if self.plan.namespaces.network.is_new() {
            let own = open("/proc/self/ns/net")?;
            setns(&its, libc::CLONE_NEWNET).on("enter", "the restored network namespace")?;
            let up = init::network::loopback_up();
            setns(&own, libc::CLONE_NEWNET).on("leave", "the restored network namespace")?;
            up?;
        }
        self.moved = netdev::move_all(&self.plan.net_devices, its.as_fd())?;
        Ok(())
    }

    fn run_hooks(&mut self, pid: i32) -> Result<()> {
        if [Stage::Prestart, Stage::CreateRuntime].iter().all(|stage| self.plan.hooks.of(*stage).is_empty()) {
            return Ok(());
        }
        self.hooks_began = true;
        let json = self.state.to_oci_json(Status::Creating, Some(pid));
        for stage in [Stage::Prestart, Stage::CreateRuntime] {
            hooks::run(stage, self.plan.hooks.of(stage), &json, &self.state.bundle)?;
        }
        Ok(())
    }

    fn announce(&mut self, dir: &ContainerDir, args: &RestoreArgs) -> Result<Child> {
        let child = self.child.as_ref().ok_or_else(no_init)?;
        time::note_namespace(dir, child.pid)?;
        if let Some(path) = &args.run.create.pid_file {
            write_atomically(path, child.pid.to_string().as_bytes(), 0o644)?;
        }
        if let Some(socket) = &args.run.create.pidfd_socket {
            terminal::send_pidfd(socket, child.pidfd.as_fd())?;
        }
        self.child.take().ok_or_else(no_init)
    }

    /// Takes back whatever was done. The error that led here is the one to tell; another one here is a warning.
    fn undo(mut self, dir: ContainerDir) {
        self.state.complete = false;
        // While their namespace is there: the end of init takes devices that exist only in it.
        if let Some(moved) = self.moved {
            moved.undo();
        }
        end_children();
        if let Err(error) = delete::release(dir, &self.state) {
            log::warn(format_args!("clean up after a failed restore: {error}"));
        }
        if self.hooks_began {
            delete::poststop(&self.state);
        }
    }
}

/// What the flags of `restore` alone ask for, or mean.
fn ask_for_restore(options: &mut Options, args: &RestoreArgs) {
    options.lsm_profile = args.lsm_profile.clone();
    options.lsm_mount_context = args.lsm_mount_context.clone();
    if args.criu.manage_cgroups_mode == Some(ManageCgroups::Strict) {
        // What strict demands has been checked; what is left of it is to write all properties into new cgroups.
        options.manage_cgroups_mode = Some(CgroupMode::Full as i32);
    }
}

/// Ends what criu has left: nothing, unless it was killed itself. The restored init, whether it was told of yet or not, is
/// the only child there can be, and what else was restored ends with it or is in the container's cgroup.
fn end_children() {
    let own = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in own.split(' ').filter_map(|pid| pid.parse().ok()) {
        let Ok(child) = pidfd_open(pid) else { continue };
        // Both fail only where the child is gone.
        let _ = pidfd_send_signal(&child, libc::SIGKILL);
        let _ = process::wait(&child);
    }
}

fn no_init() -> Error {
    Error::new(Kind::System, "criu restored a container without telling its init")
}

/// Which cgroup stands for the root of the image's cgroups, in each hierarchy: the one that criu is in.
fn own_cgroups(criu: i32) -> Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{criu}/cgroup");
    let table = std::fs::read_to_string(&path).on("read", &path)?;
    Ok(parse_cgroups(&table))
}

/// Reads lines such as `4:cpu,cpuacct:/c1` (cgroups(7)).
fn parse_cgroups(table: &str) -> Vec<CgroupRoot> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(controllers.split(',').map(|one| CgroupRoot { ctrl: Some(one.into()), path: path.clone() }).collect())
    };
    table.lines().filter_map(line).collect::<Vec<Vec<_>>>().concat()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RestoreArgs,
    }

    #[test]
    fn each_flag_of_restore_reaches_criu_and_none_else() {
        let asked = |flags: &[&str]| {
            let Line { args } = Line::parse_from(["restore"].iter().chain(flags).chain(&["id"]));
            let mut options = Options::default();
            ask_for_restore(&mut options, &args);
            (options.lsm_profile, options.lsm_mount_context, options.manage_cgroups_mode)
        };
        assert_eq!(asked(&[]), (None, None, None));
        assert_eq!(asked(&["--lsm-profile", "apparmor:a"]), (Some("apparmor:a".into()), None, None));
        assert_eq!(asked(&["--lsm-mount-context", "a:b"]), (None, Some("a:b".into()), None));
        assert_eq!(asked(&["--manage-cgroups-mode", "strict"]), (None, None, Some(CgroupMode::Full as i32)));
    }

    #[test]
    fn every_controller_has_its_own_root() {
        let root = |ctrl: &str, path: &str| CgroupRoot { ctrl: Some(ctrl.into()), path: path.into() };
        assert_eq!(
            parse_cgroups("4:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n"),
            [root("cpu", "/a:b"), root("cpuacct", "/a:b"), root("name=systemd", "/s"), root("", "/u")]
        );
    }
}
