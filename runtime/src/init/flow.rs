//! (The lead wires this file in as soon as the modules it names are there.)
//! init: the container's first process, from its clone to the program it executes. The container's view only: it resolves
//! no path of the host, reads no configuration, writes no state, and never returns.

pub mod console;
pub mod credentials;
pub mod cwd;
pub mod devices;
pub mod exec;
pub mod keyring;
pub mod mask;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod procfs;
pub mod rootfs;
pub mod seccomp;
pub mod sysctl;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::unistd::{getpid, sethostname};

use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::message::Request;
use crate::parent::mount_source::Sources;
use crate::plan::Plan;
use crate::plan::hooks::Stage;
use crate::state::{State, Status};
use crate::{hooks, intermediate, start};

use namespaces::Joined;

/// What init was given at its clone.
#[derive(Debug)]
pub struct Given<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// The container, for the state that hooks read.
    pub state: &'a State,
    /// Namespaces to join, opened on the host.
    pub joined: Vec<Joined>,
    /// The root and the sources of mounts and devices, opened on the host; or how init is to open them, where the caller
    /// may not.
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
    rootfs::pivot(&root, &plan.rootfs)?;
    let console = open_console(plan, link)?;
    finish_root(plan, &root, link)?;
    drop(root);
    link.step("prepare the process");
    // Nothing of the host, and no handle on the root, may be open where the image's files decide what happens next.
    exec::seal(&plan.process, console.as_ref(), [Some(link.as_fd()), fifo.as_ref().map(AsFd::as_fd)])?;
    let prepared = exec::prepare(&plan.process, console)?;
    let ready = credentials::apply(prepared, credentials::Role::Init, plan.seccomp.as_ref(), link)?;
    link.step("get ready");
    link.ask_done(&Request::Ready)?;
    match fifo {
        None => execute(plan, state, ready),
        Some(fifo) => {
            let mut fifo = File::from(fifo);
            start::wait_in_init(&mut fifo)?;
            let Err(error) = execute(plan, state, ready);
            start::leave_error(&mut fifo, &error);
            crate::sys::process::exit_now(1)
        }
    }
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

/// Joins the cgroups, and makes the cgroup namespace, whose root they become.
fn join_cgroups(plan: &Plan, link: &Link) -> Result<()> {
    link.step("join the cgroups");
    let (_, fds) = link.ask(&Request::Cgroup, &[])?;
    for fd in fds {
        File::from(fd).write_all(b"0").on("join", "the cgroups")?;
    }
    namespaces::make_cgroup(&plan.namespaces)
}

/// Attaches the root and everything that is mounted in it, and runs the hooks whose moment is before the change of root.
fn build_root(plan: &Plan, sources: Sources, state: &State, link: &Link) -> Result<rootfs::Root> {
    link.step("attach the root");
    let sources = sources.open_if_needed(plan)?;
    let (root, sources) = rootfs::attach(&plan.rootfs, sources)?;
    // The parent makes the cgroups meanwhile. Only a cgroup mount, which shows them, must wait for that.
    let mut joined = false;
    let mut join = || -> Result<()> {
        if !std::mem::replace(&mut joined, true) {
            join_cgroups(plan, link)?;
        }
        Ok(())
    };
    mounts::mount_all(&root, plan, sources, &mut join, link)?;
    join()?;
    link.step("make the devices");
    devices::create(&root, &plan.devices)?;
    if [Stage::Prestart, Stage::CreateRuntime].iter().any(|stage| !plan.hooks.of(*stage).is_empty()) {
        link.step("wait for the prestart and createRuntime hooks");
        link.ask_done(&Request::RuntimeHooks)?;
    }
    if !plan.hooks.of(Stage::CreateContainer).is_empty() {
        link.step("run the createContainer hooks");
        let json = state.to_oci_json(Status::Creating, Some(getpid().as_raw()));
        hooks::run(Stage::CreateContainer, plan.hooks.of(Stage::CreateContainer), &json, &state.bundle)?;
    }
    Ok(root)
}

/// The pty is made from the container's own devpts, after the change of root, so that what the host sees is what it is.
fn open_console(plan: &Plan, link: &Link) -> Result<Option<console::Console>> {
    let Some(terminal) = plan.process.terminal else { return Ok(None) };
    link.step("open the console");
    let (console, master) = console::open(terminal)?;
    link.ask(&Request::Console, &[&master])?;
    Ok(Some(console))
}

/// What needs a writable root, or the container's /proc, and must come after everything that is mounted.
fn finish_root(plan: &Plan, root: &rootfs::Root, link: &Link) -> Result<()> {
    link.step("set the host name");
    if let Some(name) = &plan.hostname {
        sethostname(name).on("set the hostname", name)?;
    }
    if let Some(name) = &plan.domainname {
        network::set_domainname(name)?;
    }
    link.step("set the kernel parameters");
    sysctl::apply(&plan.sysctls)?;
    link.step("mask paths");
    mask::apply(root, &plan.masks)?;
    link.step("make the working directory");
    cwd::make(&plan.process.cwd)?;
    rootfs::finish(root, &plan.rootfs)
}

/// The last step: after it the process is the container's own program.
fn execute(plan: &Plan, state: &State, ready: exec::Ready<'_>) -> Result<Infallible> {
    if !plan.hooks.of(Stage::StartContainer).is_empty() {
        let json = state.to_oci_json(Status::Created, Some(getpid().as_raw()));
        hooks::run(Stage::StartContainer, plan.hooks.of(Stage::StartContainer), &json, "/".as_ref())?;
    }
    exec::execute(ready)
}
