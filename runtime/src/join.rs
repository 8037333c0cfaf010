//! The child of an exec: from its clone, through the container's namespaces, to the program it executes.
//!
//! It differs from init in that everything is there already: it joins the cgroups first, so that nothing it does inside is
//! outside of their limits, then all namespaces in one call by init's pidfd, and hands over to a child of its own where a
//! pid or time namespace was among them. It waits for the parent only where that has something to do first: each time it does
//! costs as much as joining all the namespaces.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;

use crate::error::{Context, Error, Result};
use crate::init::console::{self, Console};
use crate::init::credentials::{self, Role};
use crate::init::exec;
use crate::init::namespaces::become_root;
use crate::intermediate::hand_over;
use crate::link::Link;
use crate::message::Request;
use crate::parent::limits;
use crate::plan::namespaces::CLONE_NEWTIME;
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Seccomp;
use crate::sys::process::{Child, setns};

/// What the child was given at its clone.
#[derive(Debug)]
pub struct Given<'a> {
    /// The process to be.
    pub process: &'a ProcessPlan,
    /// Its system call filter.
    pub seccomp: Option<&'a Seccomp>,
    /// The container's init.
    pub init: OwnedFd,
    /// The CLONE_NEW* flags of the namespaces to join.
    pub namespaces: i32,
    /// cgroup v1: the files to write `0` into.
    pub cgroups: Vec<OwnedFd>,
    /// Whether the parent answers when it has told of the process, which must be before its program runs.
    pub announced: bool,
}

/// The whole stage. It comes back only with the reason why it failed.
pub fn run(given: Given<'_>, link: &Link) -> Error {
    match stages(given, link) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn stages(given: Given<'_>, link: &Link) -> Result<Infallible> {
    let Given { process, seccomp, init, namespaces, cgroups, announced } = given;
    // Here it still has the privileges of the caller, and whatever it clones gets it too.
    limits::set_oom_score("self", process)?;
    link.step("join the cgroups");
    for fd in cgroups {
        File::from(fd).write_all(b"0").on("join", "the cgroups of the container")?;
    }
    link.step("join the namespaces");
    if namespaces != 0 {
        setns(&init, namespaces).on("join", "the namespaces of the container")?;
    }
    drop(init);
    if namespaces & (libc::CLONE_NEWPID | CLONE_NEWTIME) != 0 {
        // Both are entered by children only.
        let introduce = |it: &Child| link.tell(&Request::InitStarted { pid: it.pid }, &[&it.pidfd]);
        hand_over(libc::CLONE_PARENT as u32 as u64, introduce)?;
    }
    if namespaces & libc::CLONE_NEWUSER != 0 {
        become_root()?;
    }
    nix::unistd::setsid().on("start", "a new session")?;
    let console = open_console(process, link)?;
    link.step("prepare the process");
    // Nothing of the host may be open where the container's files decide what happens next.
    exec::seal(process, console.as_ref(), [Some(link.as_fd())])?;
    let prepared = exec::prepare(process, console)?;
    let ready = credentials::apply(prepared, Role::Joined, seccomp, link)?;
    link.step("get ready");
    if announced {
        link.ask_done(&Request::Ready)?;
    } else {
        link.tell(&Request::Ready, &[])?;
    }
    exec::execute(ready)
}

fn open_console(process: &ProcessPlan, link: &Link) -> Result<Option<Console>> {
    let Some(terminal) = process.terminal else { return Ok(None) };
    link.step("open the console");
    let (console, master) = console::open_in_running(terminal)?;
    link.ask(&Request::Console, &[&master])?;
    Ok(Some(console))
}
