//! The child of an exec: from its clone, through the container's namespaces, to the program it executes.
//!
//! It differs from init in that everything is there already: it joins the cgroups first, so that nothing it does inside is
//! outside of their limits, then all namespaces in one call by init's pidfd. Its parent goes on when its program runs, and it
//! waits for the parent only where that has something to do first: each time it does costs as much as joining all the namespaces.
//!
//! A pid namespace is entered by children only, and whoever is there already sees them at once (CVE-2016-9962). So a process between
//! joins everything, closes what it has of the host, and only then clones the child, in one of two ways:
//!
//! ```text
//!   through    it shares the parent's memory, which stands still meanwhile ([`spawn_through`])
//!   hand over  it has its own, and introduces the child to the parent: where clone3(2) starts it in a v2 cgroup, which takes a
//!              stack of its own; if a user namespace is joined, with whose ids the parent's memory must not be; and for a time
//!              namespace, which nobody who shares memory may join (setns(2))
//! ```

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use nix::unistd::write;

use crate::cgroup::{Entry, SavedUnit};
use crate::error::{Context, Result};
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
    /// Whether the parent answers when it has told of the process, which must be before its program runs.
    pub announced: bool,
}

/// Clones the child. `unit` is the cgroup's, if it is systemd's.
pub fn start(given: &Given<'_>, unit: Option<&SavedUnit>) -> Result<Spawned> {
    let flags = given.namespaces;
    if given.cgroups.clone.is_none()
        && flags & libc::CLONE_NEWPID != 0
        && flags & (libc::CLONE_NEWUSER | CLONE_NEWTIME) == 0
    {
        let become_program =
            |link: &Link| given.become_program(link).map_or_else(|error| error, |never| match never {});
        return spawn_through(|line, channel| given.enter(line, channel), become_program);
    }
    let cgroup = given.cgroups.clone.as_ref().map(AsFd::as_fd);
    spawn(0, cgroup, unit, |link| {
        let gone = given.go_by_itself(link).and_then(|()| given.become_program(link));
        gone.map_or_else(|error| error, |never| match never {})
    })
}

impl Given<'_> {
    /// Joins everything, and closes all descriptors of the host but the channel.
    fn enter(&self, line: &SharedLine, channel: BorrowedFd<'_>) -> Result<()> {
        // Here it still has the privileges of the caller, and whatever it clones gets it too.
        limits::set_own_oom_score(self.process)?;
        line.set("join the cgroups");
        self.cgroups
            .join
            .iter()
            .try_for_each(|fd| write(fd, b"0").map(drop).on("join", "the cgroups of the container"))?;
        line.set("join the namespaces");
        if self.namespaces != 0 {
            setns(self.init, self.namespaces).on("join", "the namespaces of the container")?;
        }
        exec::seal(self.process, &[Some(channel)])
    }

    fn go_by_itself(&self, link: &Link) -> Result<()> {
        self.enter(link.line(), link.as_fd())?;
        if self.namespaces & (libc::CLONE_NEWPID | CLONE_NEWTIME) != 0 {
            let introduce = |it: &Child| link.tell(&Request::InitStarted { pid: it.pid }, &[&it.pidfd]);
            hand_over(libc::CLONE_PARENT as u32 as u64, introduce)?;
        }
        if self.namespaces & libc::CLONE_NEWUSER != 0 {
            become_root()?;
        }
        Ok(())
    }

    /// From the container's namespaces on.
    fn become_program(&self, link: &Link) -> Result<Infallible> {
        nix::unistd::setsid().on("start", "a new session")?;
        let console = open_console(self.process, link)?;
        link.step("prepare the process");
        // Nor is anything open that came with the console, where the container's files decide what happens next.
        exec::seal(self.process, &[console.as_ref().map(AsFd::as_fd), Some(link.as_fd())])?;
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
