//! The child's end of the channel: asks the parent, and notes the step it is at where the parent can read it even after
//! the child was killed.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::channel::{Channel, Incoming};
use crate::error::{Error, Kind, Result};
use crate::message::{Reply, Request};
use crate::sys::process::exit_now;
use crate::sys::shared::SharedLine;

/// What a child (intermediate, init, or the process of an exec) has of its parent.
#[derive(Debug)]
pub struct Link {
    channel: Rc<Channel>,
    line: Rc<SharedLine>,
    /// The parent knows how init was going, so a failure that it has been told of is not told again.
    told: Cell<bool>,
    ahead: RefCell<Ahead>,
}

/// How an answer is read: see [`crate::channel`].
type How = fn(&Channel) -> Result<Incoming<Reply>>;

/// What has been asked before its answer is needed. Answers come in the order of the questions.
#[derive(Debug)]
enum Ahead {
    Nothing,
    Asked(How),
    Answered(Reply, Vec<OwnedFd>),
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Link {
    /// The child's side, of what [`crate::parent::spawn`] made.
    pub fn new(channel: Rc<Channel>, line: Rc<SharedLine>) -> Self {
        Self { channel, line, told: Cell::new(false), ahead: Ahead::Nothing.into() }
    }

    /// Notes what is about to be done, for the parent's sentence if this process dies of it.
    pub fn step(&self, what: &str) {
        self.line.set(what);
    }

    /// Where the steps are noted.
    pub fn line(&self) -> &SharedLine {
        &self.line
    }

    /// Asks the parent and waits for its answer. A parent that is gone, or that refuses, ends this process: the parent
    /// knows the reason, and nobody else could be told it.
    pub fn ask(&self, request: &Request, fds: &[&OwnedFd]) -> Result<(Reply, Vec<OwnedFd>)> {
        self.settle()?;
        self.channel.send(request, fds)?;
        self.next(Channel::receive)
    }

    /// Tells the parent something that it has nothing to answer to.
    pub fn tell(&self, request: &Request, fds: &[&OwnedFd]) -> Result<()> {
        self.channel.send(request, fds)
    }

    /// Asks for something that has nothing to say but that it was done.
    pub fn ask_done(&self, request: &Request) -> Result<()> {
        self.settle()?;
        self.channel.send(request, &[])?;
        self.next(Channel::read).map(drop)
    }

    /// Asks for what the parent can do while this process goes on. [`Link::answer`] takes the answer: neither side waits for
    /// the other, nor has to be woken up.
    pub fn ask_ahead(&self, request: &Request) -> Result<()> {
        self.settle()?;
        self.channel.send(request, &[])?;
        self.ahead.replace(Ahead::Asked(if *request == Request::Built { Channel::read } else { Channel::receive }));
        Ok(())
    }

    /// The answer to what was asked ahead.
    pub fn answer(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        self.settle()?;
        match self.ahead.replace(Ahead::Nothing) {
            Ahead::Answered(reply, fds) => Ok((reply, fds)),
            _ => Err(Error::new(Kind::System, "an answer was expected that nobody had asked for")),
        }
    }

    /// Lets the answer to what was asked ahead come first.
    fn settle(&self) -> Result<()> {
        let asked = match *self.ahead.borrow() {
            Ahead::Asked(how) => how,
            _ => return Ok(()),
        };
        let (reply, fds) = self.next(asked)?;
        self.ahead.replace(Ahead::Answered(reply, fds));
        Ok(())
    }

    fn next(&self, how: How) -> Result<(Reply, Vec<OwnedFd>)> {
        match how(&self.channel)? {
            Incoming::Message(reply, fds) => Ok((reply, fds)),
            Incoming::End => exit_now(1),
        }
    }

    /// Tells the user something by way of the parent's log.
    pub fn warn(&self, text: impl Display) {
        // A parent that no longer listens has no log either.
        let _ = self.channel.send(&Request::Warning(text.to_string()), &[]);
    }

    /// Tells the parent why this process gives up. Only the first reason counts.
    pub fn fail(&self, error: &Error) {
        if !self.told.replace(true) && self.channel.send(&Request::Failed(error.clone()), &[]).is_err() {
            let short = Error::new(Kind::System, "init failed, and its reason did not fit into a message");
            let _ = self.channel.send(&Request::Failed(short), &[]);
        }
    }
}
