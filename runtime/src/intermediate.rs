//! The process between the parent and init, which stands only where the order of namespaces needs one
//! ([`Namespaces::need_intermediate`](crate::plan::namespaces::Namespaces::need_intermediate)).
//!
//! It knows nothing but namespaces: it opens no path, touches no cgroup, runs no hook. init becomes the parent's own child
//! (CLONE_PARENT), in the order that the kernel demands:
//!
//! 1. join what is joined, with the caller's privileges, before a new user namespace takes them away;
//! 2. make the user namespace and get its maps, so that everything below belongs to it;
//! 3. make the time namespace, whose offsets can only be written while no process is in it;
//! 4. clone init, in a new pid namespace if that is asked for: pid and time namespaces are entered by children only.

use std::fs::File;
use std::io::Read;

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;

use crate::error::{Context, Result};
use crate::init::namespaces::{Joined, become_root, join};
use crate::link::Link;
use crate::message::Request;
use crate::plan::namespaces::{CLONE_NEWTIME, Namespaces};
use crate::sys::process::{Child, Forked, clone, exit_now, unshare};

/// Runs all of the stage. Returns only as init; the intermediate itself ends here.
pub fn run(plan: &Namespaces, joined: &[Joined], link: &Link) -> Result<()> {
    link.step("join the namespaces");
    join(joined)?;
    if plan.user.is_new() {
        link.step("make the user namespace");
        unshare(libc::CLONE_NEWUSER).on("make", "the user namespace")?;
        link.ask_done(&Request::IdMaps)?;
    }
    if plan.user.is_private() {
        become_root()?;
    }
    if plan.time.is_new() {
        link.step("make the time namespace");
        unshare(CLONE_NEWTIME).on("make", "the time namespace")?;
        if !plan.time_offsets.is_empty() {
            link.ask_done(&Request::TimeOffsets)?;
        }
    }
    link.step("clone init");
    let new_pid = if plan.pid.is_new() { libc::CLONE_NEWPID } else { 0 };
    // The parent answers when it knows which process to end if it fails.
    let introduce = |init: &Child| link.ask(&Request::InitStarted { pid: init.pid }, &[&init.pidfd]).map(drop);
    hand_over(u64::from((new_pid | libc::CLONE_PARENT) as u32), introduce)
}

/// Clones the process that goes on, introduces it to the parent, and ends this one. Returns only in the new process.
pub fn hand_over(flags: u64, introduce: impl FnOnce(&Child) -> Result<()>) -> Result<()> {
    // Both have the same end of the channel: the new process must neither speak before it has been introduced, nor ask before
    // this one has its answer. It goes on when this one closes the pipe, or has ended.
    let (turn, held) = pipe2(OFlag::O_CLOEXEC).on("make", "a pipe to init")?;
    match clone(flags, None).on("clone", "init")? {
        Forked::Child => {
            drop(held);
            File::from(turn).read(&mut [0]).map(drop).on("wait for", "the intermediate process")
        }
        Forked::Parent(init) => {
            introduce(&init)?;
            exit_now(0)
        }
    }
}
