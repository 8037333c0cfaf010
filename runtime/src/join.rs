//! The child of an exec: from its clone, through the container's namespaces, to the program it executes.
//!
//! It differs from init in that everything is there already: it joins the cgroups first, so that nothing it does inside is
//! outside of their limits, then all namespaces in one call by init's pidfd. Its parent goes on when its program runs, and it
//! waits for the parent only where that has something to do first: each time it does costs as much as joining all the namespaces.
//!
//! A pid namespace is entered by children only. So a process between joins everything and clones the child, in one of two ways:
//!
//! ```text
//!   through   it shares the parent's memory, which stands still meanwhile ([`spawn_through`]): the usual way
//!   hand over it is a child of its own, which introduces the other to the parent: if a user namespace is joined, whose rights the
//!             parent's memory must not get, or a time namespace, which only a process with its own memory may join (setns(2))
//! ```

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use nix::unistd::write;

use crate::cgroup::{Entry, SavedUnit};
use crate::error::{Context, Error, Result};
use crate::init::console::{self, Console};
use crate::init::credentials::{self, Role};
use crate::init::exec;
use crate::init::namespaces::become_root;
use crate::intermediate::hand_over;
use crate::link::Link;
use crate::message::Request;
use crate::parent::{Spawned, limits, spawn, spawn_through};
use crate::plan::namespaces::CLONE_NEWTIME;
use crate::plan::process::ProcessPlan;
use crate::plan::seccomp::Seccomp;
use crate::selfexe;
use crate::sys::process::{Child, setns};
use crate::sys::shared::SharedLine;

/// What the child is given at its clone.
#[derive(Debug)]
pub struct Given<'a> {
    /// The process to be.
    pub process: &'a ProcessPlan,
    /// Its system call filter.
    pub seccomp: Option<&'a Seccomp>,
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// The CLONE_NEW* flags of the namespaces to join.
    pub namespaces: i32,
    /// The way into the cgroups.
    pub cgroups: &'a Entry,
    /// What this runs from, which the child has open no longer than it must.
    pub own: &'a selfexe::Mount,
    /// Whether the parent answers when it has told of the process, which must be before its program runs.
    pub announced: bool,
}

/// Clones the child. `unit` is the cgroup's, if it is systemd's.
pub fn start(given: &Given<'_>, unit: Option<&SavedUnit>) -> Result<Spawned> {
    let cgroup = given.cgroups.clone.as_ref().map(AsFd::as_fd);
    if given.namespaces & (libc::CLONE_NEWUSER | CLONE_NEWTIME) == 0 && given.namespaces & libc::CLONE_NEWPID != 0 {
        let spawned = spawn_through(cgroup, |line| given.go(line), |link| given.run(link, Given::arrive));
        if let Some(spawned) = spawned? {
            return Ok(spawned);
        }
    }
    spawn(0, cgroup, unit, |link| given.run(link, Given::go_by_itself))
}

impl Given<'_> {
    /// The whole stage. It comes back only with the reason why it failed.
    fn run(&self, link: &Link, enter: impl FnOnce(&Self, &Link) -> Result<()>) -> Error {
        self.own.close();
        match enter(self, link).and_then(|()| self.become_program(link)) {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// The way of the process between, if the child goes through it.
    fn go(&self, line: &SharedLine) -> Result<()> {
        self.join_cgroups(line)?;
        line.set("join the namespaces");
        setns(self.init, self.before_clone()).on("join", "the namespaces of the container")
    }

    /// What the process between could not join for the child.
    fn arrive(&self, _: &Link) -> Result<()> {
        match self.namespaces & !self.before_clone() {
            0 => Ok(()),
            left => setns(self.init, left).on("join", "the cgroup namespace of the container"),
        }
    }

    /// From within the container's cgroup namespace, no process can be cloned into a cgroup by who is outside of it.
    fn before_clone(&self) -> i32 {
        if self.cgroups.clone.is_some() { self.namespaces & !libc::CLONE_NEWCGROUP } else { self.namespaces }
    }

    /// The way of a child that is cloned where the parent is.
    fn go_by_itself(&self, link: &Link) -> Result<()> {
        let namespaces = self.namespaces;
        self.join_cgroups(link.line())?;
        link.step("join the namespaces");
        if namespaces != 0 {
            setns(self.init, namespaces).on("join", "the namespaces of the container")?;
        }
        if namespaces & (libc::CLONE_NEWPID | CLONE_NEWTIME) != 0 {
            let introduce = |it: &Child| link.tell(&Request::InitStarted { pid: it.pid }, &[&it.pidfd]);
            hand_over(libc::CLONE_PARENT as u32 as u64, introduce)?;
        }
        if namespaces & libc::CLONE_NEWUSER != 0 {
            become_root()?;
        }
        Ok(())
    }

    fn join_cgroups(&self, line: &SharedLine) -> Result<()> {
        // Here it still has the privileges of the caller, and whatever it clones gets it too.
        limits::set_own_oom_score(self.process)?;
        line.set("join the cgroups");
        self.cgroups.join.iter().try_for_each(|fd| write(fd, b"0").map(drop).on("join", "the cgroups of the container"))
    }

    /// From the container's namespaces on.
    fn become_program(&self, link: &Link) -> Result<Infallible> {
        nix::unistd::setsid().on("start", "a new session")?;
        let console = open_console(self.process, link)?;
        link.step("prepare the process");
        // Nothing of the host may be open where the container's files decide what happens next.
        exec::seal(self.process, console.as_ref(), [Some(link.as_fd())])?;
        let prepared = exec::prepare(self.process, console)?;
        let ready = credentials::apply(prepared, Role::Joined, self.seccomp, link)?;
        link.step("get ready");
        if self.announced {
            link.ask_done(&Request::Ready)?;
        } else {
            link.tell(&Request::Ready, &[])?;
        }
        exec::execute(ready)
    }
}

fn open_console(process: &ProcessPlan, link: &Link) -> Result<Option<Console>> {
    let Some(terminal) = process.terminal else { return Ok(None) };
    link.step("open the console");
    let (console, master) = console::open_in_running(terminal)?;
    link.ask(&Request::Console, &[&master])?;
    Ok(Some(console))
}
