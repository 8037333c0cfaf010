//! One conversation with one criu process.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio as ChildStdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown, socketpair};
use nix::unistd::pipe2;
use prost::Message;

use super::rpc::{Features, Request, RequestType, Response};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{self, Child, Exit, Forked};
use crate::sys::signals::unblock_in;
use crate::{channel, sys};

/// The longest answer: the longest there are quote one error line.
const ANSWER: usize = 64 * 1024;

/// The oldest criu that has the notifications and the external namespaces that are relied upon.
const OLDEST: i32 = 31_500;

/// What criu has as its standard descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// /dev/null: it only reads processes.
    Null,
    /// The caller's: processes that it restores may go on with them.
    Inherited,
}

/// A point that criu has reached and waits at.
#[derive(Debug)]
pub struct Notification {
    /// Its name, such as `post-restore`.
    pub script: String,
    /// The pid of the restored init in this process's pid namespace, where the point has one.
    pub pid: Option<i32>,
    /// The pseudoterminal's master, at `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// A running criu and the socket to it. Dropping it ends criu, which then undoes what it has half done.
#[derive(Debug)]
pub struct Conversation {
    child: Child,
    socket: OwnedFd,
    ended: Option<Exit>,
}

impl Conversation {
    /// Starts criu with `passed` open in it under the numbers they have here, and checks that it is not too old.
    ///
    /// `namespaces` are CLONE_NEW* flags of namespaces made for it alone; `before` runs in the new process, in them.
    pub fn open(
        stdio: Stdio,
        passed: &[BorrowedFd<'_>],
        namespaces: i32,
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .on("make a socket pair for", "criu")?;
        // What the new process cannot do it says here; the end of file is that it has become criu.
        let (failure, failed) = pipe2(OFlag::O_CLOEXEC).on("make a pipe for", "criu")?;
        let child = match process::clone(namespaces as u32 as u64, None).on("clone", "a process for criu")? {
            Forked::Parent(child) => child,
            Forked::Child => {
                let Err(error) = before().and_then(|()| become_criu(stdio, passed, theirs.as_fd()));
                if let Ok(bytes) = serde_json::to_vec(&error) {
                    // Without it the parent still sees that there is no criu.
                    let _ = File::from(failed).write_all(&bytes);
                }
                process::exit_now(1)
            }
        };
        // Our copies of the child's ends: while they are open, its death is no end of file.
        drop((theirs, failed));
        let mut criu = Self { child, socket, ended: None };
        let mut bytes = Vec::new();
        File::from(failure).read_to_end(&mut bytes).on("wait for the start of", "criu")?;
        if !bytes.is_empty() {
            return Err(channel::decode(&bytes)?);
        }
        criu.refuse_old()?;
        Ok(criu)
    }

    /// The process, which a restore puts into the container's cgroups for its children to begin there.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Asks whether this criu, on this kernel, can do all of `wanted`; the names of those it cannot.
    pub fn missing(&mut self, wanted: Features) -> Result<Vec<&'static str>> {
        let request = Request { features: Some(wanted), ..more(RequestType::FeatureCheck) };
        let found = self.ask(&request, &mut refuse)?.features.unwrap_or_default();
        let lacks = |wanted: Option<bool>, found: Option<bool>| wanted == Some(true) && found == Some(false);
        let mut missing = Vec::new();
        if lacks(wanted.mem_track, found.mem_track) {
            missing.push("memory tracking (CONFIG_MEM_SOFT_DIRTY)");
        }
        if lacks(wanted.lazy_pages, found.lazy_pages) {
            missing.push("lazy pages (userfaultfd)");
        }
        Ok(missing)
    }

    /// Sends a request and serves the notifications until criu answers it.
    ///
    /// A notification that fails is refused, whereupon criu rolls back: it lets the processes it dumps run on, and kills
    /// those it restores. Its own failure is then but the consequence, so the notification's is returned.
    pub fn ask(&mut self, request: &Request, notified: &mut dyn FnMut(Notification) -> Result<()>) -> Result<Response> {
        self.send(request)?;
        let mut refused = None;
        loop {
            let (response, fd) = self.receive()?;
            if response.r#type != RequestType::Notify as i32 {
                return match refused {
                    Some(error) => Err(error),
                    None => Ok(response),
                };
            }
            let notify = response.notify.unwrap_or_default();
            let outcome = notified(Notification { script: notify.script.unwrap_or_default(), pid: notify.pid, fd });
            self.send(&Request {
                r#type: RequestType::Notify as i32,
                notify_success: Some(outcome.is_ok()),
                ..Request::default()
            })?;
            if let (Err(error), None) = (outcome, &refused) {
                refused = Some(error);
            }
        }
    }

    /// Ends the conversation and waits for criu's end.
    pub fn close(mut self) -> Result<Exit> {
        // Without it a criu that serves several pre-dumps waits for the next.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        self.wait()
    }

    fn wait(&mut self) -> Result<Exit> {
        match self.ended {
            Some(exit) => Ok(exit),
            None => Ok(*self.ended.insert(process::wait(&self.child.pidfd).on("wait for", "criu")?)),
        }
    }

    fn refuse_old(&mut self) -> Result<()> {
        let version = self.ask(&more(RequestType::Version), &mut refuse)?.version.unwrap_or_default();
        if version.number() < OLDEST {
            return Err(Error::unsupported(format!(
                "criu {}.{} is too old: 3.15 or later is needed",
                version.major_number, version.minor_number
            )));
        }
        Ok(())
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], &[], MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.ended()),
            Err(errno) => Err(Error::sys("send a request to criu", errno)),
        }
    }

    fn receive(&mut self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0; ANSWER];
        let (length, fds) = match sys::scm::receive(self.socket.as_fd(), &mut buffer) {
            // A criu that has died with our last words unread resets the connection.
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Err(self.ended()),
            Ok(received) => received,
            Err(errno) => return Err(Error::sys("read criu's answer", errno)),
        };
        let response = Response::decode(&buffer[..length])
            .map_err(|error| Error::caused(Kind::System, "read criu's answer", error))?;
        Ok((response, fds.into_iter().next()))
    }

    /// Nobody is at the other end any more.
    fn ended(&mut self) -> Error {
        match self.wait() {
            Ok(Exit::Code(code)) => Error::caused(Kind::System, SILENT, format!("exit status {code}")),
            Ok(Exit::Signal(signal)) => Error::caused(Kind::System, SILENT, format!("killed by signal {signal}")),
            Err(error) => error,
        }
    }
}

const SILENT: &str = "criu ended without an answer";

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _ = self.wait();
    }
}

/// The new process's way: it is criu afterwards.
fn become_criu(stdio: Stdio, passed: &[BorrowedFd<'_>], socket: BorrowedFd<'_>) -> Result<Infallible> {
    for fd in passed.iter().chain([&socket]) {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).on("hand a descriptor to", "criu")?;
    }
    // A foreground restore holds all signals back.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).on("unblock the signals of", "criu")?;
    let mut command = Command::new("criu");
    command.arg("swrk").arg(socket.as_raw_fd().to_string());
    if stdio == Stdio::Null {
        command.stdin(ChildStdio::null()).stdout(ChildStdio::null()).stderr(ChildStdio::null());
    }
    unblock_in(&mut command);
    Err(not_started(command.exec()))
}

/// A request after which criu takes another.
fn more(kind: RequestType) -> Request {
    Request { r#type: kind as i32, keep_open: Some(true), ..Request::default() }
}

/// Nothing is to be notified of while criu only tells about itself.
fn refuse(notification: Notification) -> Result<()> {
    Err(Error::new(Kind::System, format!("criu announced {} unasked", notification.script)))
}

fn not_started(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::unsupported(
            "criu is not installed or not in PATH: checkpoint and restore need it (the package criu)",
        ),
        _ => Error::caused(Kind::System, "start criu", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criu_is_started_and_tells_what_it_can_do() {
        let mut criu = match Conversation::open(Stdio::Null, &[], 0, || Ok(())) {
            Ok(criu) => criu,
            Err(error) if error.kind() == Kind::Unsupported => {
                crate::testing::skip(error);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let all = Features { mem_track: Some(true), lazy_pages: Some(true) };
        let missing = criu.missing(all).unwrap();
        assert!(missing.len() <= 2, "{missing:?}");
        assert!(criu.missing(Features::default()).unwrap().is_empty());

        // A request it cannot serve is answered with a failure, and the answer says why.
        let dump = Request { r#type: RequestType::Dump as i32, opts: Some(Box::default()), ..Request::default() };
        let answer = criu.ask(&dump, &mut refuse).unwrap();
        assert!(!answer.success);

        // It has ended with that, which is told, not waited for.
        let error = criu.ask(&more(RequestType::Version), &mut refuse).unwrap_err();
        assert!(error.to_string().starts_with(SILENT), "{error}");
    }

    #[test]
    fn what_fails_before_criu_is_told_in_its_own_words() {
        let wrong = || Err(Error::invalid("something is wrong"));
        let error = Conversation::open(Stdio::Null, &[], 0, wrong).unwrap_err();
        assert_eq!(error, Error::invalid("something is wrong"));
    }

    #[test]
    fn a_missing_criu_is_a_sentence_with_a_remedy() {
        let error = not_started(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("the package criu"), "{error}");
    }
}
