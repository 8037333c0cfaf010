//! A child cloned from where only another process may go: setns(2) and cgroups concern the process that calls them.
//!
//! ```text
//!   this process                the one between              the child
//!   clone(2), stands still ───► goes there, clones ────────► runs `body`
//!   goes on ◄────────────────── ends
//! ```
//!
//! The one between shares this process's memory, as after vfork(2): no page of it is copied, mapped or given back for its sake.

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::{Child, Exit, Forked, pidfd_open};

/// What came of [`clone_through`].
#[derive(Debug)]
pub enum Through<E> {
    /// There is a child of this process.
    Cloned(Child),
    /// The process between gave up, and said why.
    Failed(E),
    /// It was ended before it could.
    Died(Exit),
}

/// The address space of the stack that the process between, and then the child's copy of it, runs on. What is not touched costs
/// nothing.
const STACK: usize = 1 << 20;
/// At its end: whoever runs over it faults, and writes into nothing else.
const GUARD: usize = 4096;

/// Runs `go` in a process that shares this one's memory, which ends with the clone that `go` makes (CLONE_PARENT: the child is this
/// process's own); `body` then runs in the child, on a copy of the memory.
///
/// This process stands still meanwhile. `go` must not allocate before it has failed: if the process between is killed, this one
/// goes on with the memory as it was at that instant.
pub fn clone_through<E>(
    go: impl FnOnce() -> Result<Forked, E>,
    body: impl FnOnce() -> Infallible,
) -> Result<Through<E>, Errno> {
    let stack = Stack::new()?;
    let mut task = Task { go: Some(go), body: Some(body), result: None };
    let (run, argument) = (runner(&task), (&raw mut task).cast::<c_void>());
    // SAFETY: with CLONE_VFORK this process does not go on before the other has ended, so that `task` and the stack, whose highest
    // address this is (a multiple of 16), live for as long as they are used, and nothing is used by both at once. The other has
    // descriptors and a working directory of its own.
    let pid = unsafe { libc::clone(run, stack.top(), libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, argument) };
    let between = Pid::from_raw(Errno::result(pid)?);
    let exit = reap(between);
    match task.result {
        // It is our child and nobody but us reaps it, so the number is still its own.
        Some(Ok(pid)) => Ok(Through::Cloned(Child { pid, pidfd: pidfd_open(pid)? })),
        Some(Err(error)) => Ok(Through::Failed(error)),
        None => exit.map(Through::Died),
    }
}

struct Task<E, G, B> {
    go: Option<G>,
    body: Option<B>,
    result: Option<Result<i32, E>>,
}

/// The function for a task: its type can be named only where the closures' are known.
fn runner<E, G: FnOnce() -> Result<Forked, E>, B: FnOnce() -> Infallible>(
    _: &Task<E, G, B>,
) -> extern "C" fn(*mut c_void) -> c_int {
    run::<E, G, B>
}

extern "C" fn run<E, G: FnOnce() -> Result<Forked, E>, B: FnOnce() -> Infallible>(task: *mut c_void) -> c_int {
    // SAFETY: clone_through passes a pointer to such a task, which it uses only after this has returned.
    let task = unsafe { &mut *task.cast::<Task<E, G, B>>() };
    match task.go.take().map(|go| go()) {
        Some(Ok(Forked::Parent(child))) => task.result = Some(Ok(child.pid)),
        Some(Err(error)) => task.result = Some(Err(error)),
        // The child takes it out of its own copy.
        Some(Ok(Forked::Child)) => {
            if let Some(never) = task.body.take().map(|body| body()) {
                match never {}
            }
        }
        None => {}
    }
    0
}

/// Waits for the process between, which has ended or is about to.
fn reap(pid: Pid) -> Result<Exit, Errno> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Exit::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Exit::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at no particular address replaces nothing.
        let lowest = unsafe { libc::mmap(ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if lowest == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Self(lowest);
        // SAFETY: the first page of the mapping, which nothing uses yet.
        Errno::result(unsafe { libc::mprotect(lowest, GUARD, libc::PROT_NONE) })?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.0.byte_add(STACK) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by new with this size; whoever ran on it has ended.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::process::{clone, exit_now, wait};

    fn clone_here() -> Result<Forked, Errno> {
        clone(libc::CLONE_PARENT as u32 as u64, None)
    }

    #[test]
    fn the_child_is_ours_and_has_a_copy_of_what_the_one_between_left() {
        let mut number = 1;
        let number_between = &mut number;
        let go = || {
            *number_between = 2;
            clone_here()
        };
        let Through::Cloned(child) = clone_through(go, || exit_now(7)).unwrap() else { panic!("no child") };
        assert_eq!(wait(child.pidfd.as_fd()), Ok(Exit::Code(7)));
        assert_eq!(number, 2);
    }

    #[test]
    fn a_reason_comes_back_and_the_end_without_one_too() {
        let failed = clone_through(|| Err("no way"), || exit_now(0)).unwrap();
        assert!(matches!(failed, Through::Failed("no way")));
        let go = || -> Result<Forked, Errno> {
            // SAFETY: ends the calling process, which is the one between.
            unsafe { libc::syscall(libc::SYS_kill, libc::syscall(libc::SYS_getpid), libc::SIGKILL) };
            Err(Errno::EINTR)
        };
        let died = clone_through(go, || exit_now(0)).unwrap();
        assert!(matches!(died, Through::Died(Exit::Signal(libc::SIGKILL))), "{died:?}");
    }

    #[test]
    fn what_the_child_does_not_take_is_dropped_here() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let held = Some(write);
        let body = || {
            drop(held);
            exit_now(0)
        };
        let Through::Cloned(child) = clone_through(clone_here, body).unwrap() else { panic!("no child") };
        wait(child.pidfd.as_fd()).unwrap();
        // The end of file: no end for writing is open in either process.
        assert_eq!(nix::unistd::read(&read, &mut [0]), Ok(0));
    }
}
