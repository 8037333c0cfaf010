//! The parent: the host's view. It makes the child, answers what the child asks, and knows how the child ended.
//!
//! It never enters a namespace of the container, and after the clone it walks no path of the rootfs: what init needs of the
//! host it has opened before.

pub mod idmap;
mod idmap_source;
pub mod inherited;
pub mod limits;
pub mod mount_source;
pub mod netdev;
pub mod netlink;
pub mod rdt;
pub mod seccomp_agent;
pub mod serve;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;

use crate::cgroup::{SavedUnit, Systemd, join_later};
use crate::channel::{Channel, Incoming};
use crate::error::{Context, Error, Kind, Result};
use crate::link::Link;
use crate::message::{Order, Reply, Request};
use crate::sys::process::{Child, Exit, Forked, clone, exit_now, pidfd_send_signal, wait};
use crate::sys::shared::SharedLine;
use crate::sys::through::{Through, clone_through};

/// A child that has been cloned and is being served.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    channel: Channel,
    line: Rc<SharedLine>,
    order: Order,
}

/// Why a child no longer asks.
#[derive(Debug)]
pub enum Silence {
    /// It told the reason.
    Failed(Error),
    /// It ended without a word.
    Died(Exit, String),
}

/// What a child asked for, or why it will not ask again.
#[derive(Debug)]
pub enum Next {
    /// A request, in order, with its fds.
    Request(Request, Vec<OwnedFd>),
    /// It is gone, or about to be.
    Silence(Silence),
}

/// How a child comes into its cgroup that could not be cloned into it.
enum Late<'a> {
    Join(BorrowedFd<'a>),
    Attach(&'a SavedUnit),
}

/// Keeps such a child from going on before it is where it belongs: no program runs anywhere else. The parent opens it by dropping it.
struct Gate {
    shut: OwnedFd,
    opener: OwnedFd,
}

/// Clones a child, which runs `body` and never comes back: `body` returns only if it fails.
///
/// `flags` are the namespaces that clone3(2) makes; `cgroup` is the v2 cgroup it starts in, and `unit` that cgroup's if it is
/// systemd's.
pub fn spawn(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    unit: Option<&SavedUnit>,
    body: impl FnOnce(&Link) -> Error,
) -> Result<Spawned> {
    let (ours, theirs) = Channel::pair()?;
    let line = Rc::new(SharedLine::new().on("share", "a page with init")?);
    let refused = match (clone(flags, cgroup), cgroup, unit) {
        // As many processes as the cgroup may have; one that joins later is not counted against that.
        (Err(Errno::EAGAIN), Some(cgroup), _) => Err(Late::Join(cgroup)),
        // A user whose session is elsewhere may not move a process from there; the user's systemd may.
        (Err(Errno::EACCES), Some(_), Some(unit)) => Err(Late::Attach(unit)),
        (cloned, ..) => Ok(cloned),
    };
    let (cloned, late) = match refused {
        Ok(cloned) => (cloned, None),
        Err(late) => {
            let gate = Gate::new()?;
            (clone(flags, None), Some((late, gate)))
        }
    };
    match cloned.on("clone", "init")? {
        Forked::Parent(child) => {
            let spawned = Spawned { child, channel: ours, line, order: Order::default() };
            match late.as_ref().map_or(Ok(()), |(late, _)| late.bring(spawned.pid())) {
                Ok(()) => Ok(spawned),
                Err(error) => {
                    spawned.kill();
                    Err(error)
                }
            }
        }
        Forked::Child => {
            // Its end of file tells us that the parent is gone.
            drop(ours);
            if let Some((_, gate)) = late {
                gate.wait();
            }
            begin(theirs.into(), line, body)
        }
    }
}

/// The same for a child that begins where only another process may go before it: `go` is done by one between, which shares this
/// one's memory ([`clone_through`]), so it must not allocate unless it fails. It must close what is open but the channel, with which it
/// is called, and what the program is to get: the child has from its beginning only what `go` leaves.
pub fn spawn_through(
    go: impl FnOnce(&SharedLine, BorrowedFd<'_>) -> Result<()>,
    body: impl FnOnce(&Link) -> Error,
) -> Result<Spawned> {
    let (ours, theirs) = Channel::pair()?;
    let theirs = Rc::new(theirs);
    let line = Rc::new(SharedLine::new().on("share", "a page with the process")?);
    let gone = clone_through(
        || {
            go(&line, theirs.as_fd())?;
            line.set("clone the process");
            clone(u64::from(libc::CLONE_PARENT as u32), None).on("clone", "the process")
        },
        || begin(Rc::clone(&theirs), Rc::clone(&line), body),
    );
    match gone.on("clone", "the process")? {
        Through::Cloned(child) => Ok(Spawned { child, channel: ours, line, order: Order::default() }),
        Through::Failed(error) => Err(error),
        Through::Died(exit) => Err(died("the process between", exit, &line.get(), None)),
    }
}

/// All of the child's life.
fn begin(channel: Rc<Channel>, line: Rc<SharedLine>, body: impl FnOnce(&Link) -> Error) -> ! {
    end_at_panic();
    let link = Link::new(channel, line);
    let error = body(&link);
    link.fail(&error);
    exit_now(1)
}

impl Late<'_> {
    fn bring(&self, pid: i32) -> Result<()> {
        match self {
            Late::Join(cgroup) => join_later(*cgroup, pid),
            Late::Attach(unit) => Systemd::connect(unit.domain).and_then(|mut systemd| systemd.attach(unit, pid)),
        }
    }
}

impl Gate {
    fn new() -> Result<Self> {
        let (shut, opener) = pipe2(OFlag::O_CLOEXEC).on("make", "a pipe")?;
        Ok(Self { shut, opener })
    }

    /// In the child. Whatever comes of it: a parent that is gone is found out by the link.
    fn wait(self) {
        drop(self.opener);
        let _ = nix::unistd::read(&self.shut, &mut [0]);
    }
}

/// A panic ends the child at once: abort(3) cannot be relied on to end the first process of a pid namespace, which no signal
/// of its own kills.
fn end_at_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        exit_now(101)
    }));
}

impl Spawned {
    /// The pid of the process that is to be the container's (or the exec's).
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Waits for the next request. Warnings go to the log on the way.
    pub fn next_request(&mut self) -> Result<Next> {
        loop {
            match self.channel.receive::<Request>()? {
                Incoming::Message(Request::Warning(text), _) => crate::log::warn(format_args!("{text}")),
                Incoming::Message(Request::Failed(error), _) => return Ok(Next::Silence(Silence::Failed(error))),
                Incoming::Message(request, fds) => {
                    self.order.admit(&request)?;
                    return Ok(Next::Request(request, fds));
                }
                Incoming::End => {
                    let exit = wait(&self.child.pidfd).on("wait for", "init")?;
                    return Ok(Next::Silence(Silence::Died(exit, self.line.get())));
                }
            }
        }
    }

    /// Answers a request. Who has asked ahead may be gone by then: what comes next from it says why.
    pub fn reply(&self, reply: &Reply, fds: &[&OwnedFd]) -> Result<()> {
        match self.channel.send(reply, fds) {
            Err(error) if error.errno() == Some(Errno::EPIPE) => Ok(()),
            sent => sent,
        }
    }

    /// Takes note of the process that the intermediate made, and returns the intermediate.
    pub fn replace(&mut self, pid: i32, pidfd: OwnedFd) -> Child {
        std::mem::replace(&mut self.child, Child { pid, pidfd })
    }

    /// Sees the intermediate off, which ends by itself once it has introduced the process that it made.
    pub fn see_off(&self, intermediate: &Child) -> Result<()> {
        match wait(&intermediate.pidfd).on("wait for", "the intermediate process")? {
            Exit::Code(0) => Ok(()),
            exit => Err(died("the intermediate process", exit, &self.line.get(), None)),
        }
    }

    /// Waits until the program is executed, which closes the channel, or until that failed.
    pub fn until_executed(&mut self) -> Result<()> {
        loop {
            match self.channel.receive::<Request>()? {
                Incoming::Message(Request::Warning(text), _) => crate::log::warn(format_args!("{text}")),
                Incoming::Message(Request::Failed(error), _) => return Err(error),
                Incoming::Message(request, _) => {
                    return Err(Error::new(Kind::System, format!("init asked for {request:?} after it was ready")));
                }
                Incoming::End => return Ok(()),
            }
        }
    }

    /// Ends the child, whatever it does, and reaps it.
    pub fn kill(&self) {
        // Both fail only where the child has been reaped already.
        let _ = pidfd_send_signal(&self.child.pidfd, libc::SIGKILL);
        let _ = wait(&self.child.pidfd);
    }

    /// Lets the child go on by itself.
    pub fn into_child(self) -> Child {
        self.child
    }
}

/// The sentence for a child that ended without a word. `memory_limit` is set if the kernel killed it for that.
pub fn died(who: &str, exit: Exit, step: &str, memory_limit: Option<String>) -> Error {
    let at = if step.is_empty() { String::new() } else { format!(" at step {step}") };
    match (exit, memory_limit) {
        (Exit::Signal(libc::SIGKILL), Some(limit)) => Error::new(
            Kind::System,
            format!(
                "memory limit {limit} is too small to start: {who} was killed (out of memory){at}; raise the limit"
            ),
        ),
        (Exit::Signal(signal), _) => Error::new(Kind::System, format!("{who} was killed by signal {signal}{at}")),
        (Exit::Code(code), _) => Error::new(Kind::System, format!("{who} ended with status {code}{at}")),
    }
}
