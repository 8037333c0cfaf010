//! init: the container's first process, from its clone to the program it executes. The container's view only: it resolves
//! no path of the host, reads no configuration, writes no state, and never returns.

pub mod attributes;
pub mod cgroup_mount;
pub mod console;
mod copy_up;
pub mod credentials;
pub mod cwd;
pub mod devices;
pub mod exec;
mod filesystem;
pub mod home;
pub mod keyring;
pub mod mask;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod path;
pub mod rootfs;
pub mod seccomp;
pub mod sysctl;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::{getpid, sethostname};

use crate::error::{Context, Error, Kind, Result};
use crate::link::Link;
use crate::message::{Reply, Request};
use crate::parent::mount_source::{self, By, Opened, Sources};
use crate::plan::Plan;
use crate::plan::hooks::Stage;
use crate::procfs::Procfs;
use crate::state::{State, Status};
use crate::sys::process::setdomainname;
use crate::{hooks, intermediate, start};

use console::Console;
use credentials::Role;
use exec::Ready;
use namespaces::Joined;
use rootfs::Root;

/// What init was given at its clone.
#[derive(Debug)]
pub struct Given<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// The container, for the state that hooks read.
    pub state: &'a State,
    /// Namespaces to join, opened on the host.
    pub joined: Vec<Joined>,
    /// The root and the sources of mounts and devices, opened on the host as far as the caller may.
    pub sources: Sources,
    /// Where to wait for `start`; none for `run`, which goes on at once.
    pub fifo: Option<OwnedFd>,
}

/// The whole stage. It comes back only with the reason why it failed.
pub fn run(given: Given<'_>, link: &Link) -> Error {
    match stages(given, link) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn stages(given: Given<'_>, link: &Link) -> Result<Infallible> {
    let Given { plan, state, joined, sources, fifo } = given;
    enter_namespaces(plan, &joined, link)?;
    drop(joined);
    let root = build_root(plan, sources, state, link)?;
    link.step("change the root");
    rootfs::pivot(&root, &plan.rootfs)?;
    // Before the root becomes read-only: /dev/console may have to be made.
    let console = open_console(plan, link)?;
    finish_root(plan, &root, link)?;
    drop(root);
    // The parent tells of the container while this process turns into the container's own, which is not for long.
    link.ask_ahead(&Request::Built)?;
    // CVE-2024-21626: from here on the image's files decide what happens, so nothing of the host is open any more.
    let console_fd = console.as_ref().map(AsFd::as_fd);
    exec::seal(&plan.process, &[console_fd, Some(link.as_fd()), fifo.as_ref().map(AsFd::as_fd)])?;
    link.step("set up the process");
    let prepared = exec::prepare(&plan.process, console)?;
    let ready = credentials::apply(prepared, Role::Init, plan.seccomp.as_ref(), link)?;
    link.step("get ready");
    link.answer()?;
    link.tell(&Request::Ready, &[])?;
    let Some(fifo) = fifo else { return execute(plan, state, ready) };
    let mut fifo = File::from(fifo);
    start::wait_in_init(&mut fifo)?;
    let Err(error) = execute(plan, state, ready);
    start::leave_error(&mut fifo, &error);
    crate::sys::process::exit_now(1)
}

/// Joins and makes the namespaces.
fn enter_namespaces(plan: &Plan, joined: &[Joined], link: &Link) -> Result<()> {
    let own = &plan.namespaces;
    if own.need_intermediate() {
        intermediate::run(own, joined, link)?;
    } else {
        link.step("join the namespaces");
        namespaces::join(joined)?;
        if own.user.is_new() {
            link.step("wait for the id mappings");
            link.ask_done(&Request::IdMaps)?;
        }
        if own.user.is_private() {
            namespaces::become_root()?;
        }
    }
    // The parent waits for this: to be woken up puts it on another processor, where a new process would wait for this one. It
    // makes the cgroups while this process makes namespaces and mounts.
    link.ask_ahead(&Request::Cgroup)?;
    // A session of its own: no signal from the caller's terminal reaches the container.
    nix::unistd::setsid().on("start", "a new session")?;
    link.step("make the namespaces");
    namespaces::make(own)?;
    if own.network.is_new() {
        network::loopback_up()?;
    }
    if !plan.net_devices.is_empty() {
        link.step("move the network devices");
        link.ask_done(&Request::Network)?;
    }
    Ok(())
}

/// Joins the cgroups that were asked for, and makes the cgroup namespace, whose root they become. Returns their directories as trees.
fn join_cgroups(plan: &Plan, link: &Link) -> Result<Vec<OwnedFd>> {
    link.step("join the cgroups");
    let (reply, mut fds) = link.answer()?;
    let Reply::Cgroup { join } = reply else {
        return Err(Error::new(Kind::System, "the parent did not answer how to join the cgroups"));
    };
    let trees = fds.split_off(join.min(fds.len()));
    for fd in fds {
        File::from(fd).write_all(b"0").on("join", "the cgroups")?;
    }
    namespaces::make_cgroup(&plan.namespaces)?;
    Ok(trees)
}

/// Makes the root and everything in it, and runs the hooks whose moment is then.
fn build_root(plan: &Plan, mut sources: Sources, state: &State, link: &Link) -> Result<Root> {
    link.step("open the root and the sources of the mounts");
    sources.complete(plan.wanted())?;
    link.step("attach the root");
    let mut root = rootfs::attach(&plan.rootfs, &mut sources)?;
    // Only a cgroup mount, which shows them, must wait for the cgroups.
    let mut joined = false;
    let mut join = || match std::mem::replace(&mut joined, true) {
        false => join_cgroups(plan, link),
        true => Ok(Vec::new()),
    };
    let mut binds = mount_source::Binds::new(&plan.rootfs);
    let by = sources.by();
    let open = |mounts: std::ops::Range<usize>| match by {
        By::Init => binds.open(&plan.mounts[mounts]),
        By::Parent => ask_for_sources(plan, mounts, link),
    };
    mounts::mount_all(&mut root, &plan.mounts, &mut sources, &plan.cgroup_view, &mut join, open, |step| {
        link.step(step)
    })?;
    join()?;
    link.step("make the devices");
    devices::create(&mut root, &plan.devices, &mut sources)?;
    drop(sources);
    set_sysctls(plan, link)?;
    run_hooks_before_pivot(plan, state, link)?;
    Ok(root)
}

fn ask_for_sources(plan: &Plan, mounts: std::ops::Range<usize>, link: &Link) -> Result<Vec<Opened>> {
    let (first, count) = (mounts.start, mounts.len());
    match link.ask(&Request::Sources { first, count }, &[])? {
        (Reply::Sources(kinds), fds) => mount_source::unpack(kinds, fds, &plan.mounts[mounts], &plan.rootfs),
        _ => Err(Error::new(Kind::System, "the parent did not answer with the sources of the mounts")),
    }
}

/// Through the host's procfs, so before the change of root: what is at the container's /proc by then does not matter.
fn set_sysctls(plan: &Plan, link: &Link) -> Result<()> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    link.step("set the kernel parameters");
    sysctl::apply(&Procfs::host()?, &plan.sysctls)
}

fn run_hooks_before_pivot(plan: &Plan, state: &State, link: &Link) -> Result<()> {
    if [Stage::Prestart, Stage::CreateRuntime].iter().any(|stage| !plan.hooks.of(*stage).is_empty()) {
        link.step("wait for the prestart and createRuntime hooks");
        link.ask_done(&Request::RuntimeHooks)?;
    }
    let hooks = plan.hooks.of(Stage::CreateContainer);
    if hooks.is_empty() {
        return Ok(());
    }
    link.step("run the createContainer hooks");
    let json = state.to_oci_json(Status::Creating, Some(getpid().as_raw()));
    hooks::run(Stage::CreateContainer, hooks, &json, &state.bundle)
}

/// What comes after everything that is mounted, and before nothing can be made in the root any more.
fn finish_root(plan: &Plan, root: &Root, link: &Link) -> Result<()> {
    link.step("set the host name");
    if let Some(name) = &plan.hostname {
        sethostname(name).on("set the hostname", name)?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name).on("set the domainname", name)?;
    }
    link.step("mask paths");
    mask::apply(root, &plan.masks)?;
    link.step("make the working directory");
    cwd::make(&plan.process.cwd)?;
    rootfs::finish(root, &plan.rootfs)
}

/// The pty is made from the container's own devpts, after the change of root, so that what the host sees is what it is.
fn open_console(plan: &Plan, link: &Link) -> Result<Option<Console>> {
    let Some(terminal) = plan.process.terminal else { return Ok(None) };
    link.step("open the console");
    let (console, master) = console::open(terminal)?;
    link.ask(&Request::Console, &[&master])?;
    Ok(Some(console))
}

/// The last step: after it the process is the container's own program.
fn execute(plan: &Plan, state: &State, ready: Ready<'_>) -> Result<Infallible> {
    let hooks = plan.hooks.of(Stage::StartContainer);
    if !hooks.is_empty() {
        let json = state.to_oci_json(Status::Created, Some(getpid().as_raw()));
        hooks::run(Stage::StartContainer, hooks, &json, "/".as_ref())?;
    }
    exec::execute(ready)
}
