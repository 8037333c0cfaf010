//! The streams of one process: what the container writes goes to where the client asked, what the client writes goes in.
//!
//! ```text
//! container --pipe--> copier --> fifo (the daemon reads) | file | null          a client's stdin fifo --> copier --pipe--> container
//! container --pipe------------> binary logger (fds 3, 4; 5 says that it is ready)
//! container --pipe--> journal --> docker's log, and the clients that are attached to it
//! container <--pty--> copier <--> fifos, file, logger, journal (stdout only: a terminal has one output)
//! ```
//!
//! One [`Io`] belongs to one process. It does not know containers, exits or requests; its owner tells it when the
//! process has gone.

mod copy;
mod journal;
mod logger;
mod sink;
mod target;
mod terminal;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;

use self::journal::Journal;
use self::logger::{Logger, Patience};
use self::sink::Sink;
use self::target::{Stream, Target};
use self::terminal::Terminal;
use crate::error::{Context, Error, Result};
use crate::sys::watch::watch;

/// Where a client wants a process's streams, as in its requests; an empty string is no stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A fifo.
    pub stdin: String,
    /// A path or a URI: `fifo://`, `file://`, `binary://`, `binary-v2://` or `json-file://`.
    pub stdout: String,
    /// As `stdout`. Not used with a terminal.
    pub stderr: String,
    /// The process gets a pty instead of three streams.
    pub terminal: bool,
}

/// What a binary logger is told about the process it logs for.
#[derive(Debug, Clone, Default)]
pub struct LoggerNames {
    /// Its CONTAINER_ID: the container's id, or the exec's.
    pub id: String,
    /// Its CONTAINER_NAMESPACE.
    pub namespace: String,
}

/// What the runtime gets as its 0, 1 and 2: None is /dev/null. All None with a terminal.
///
/// The pipes' end-of-file depends on these being dropped as soon as the runtime has them.
#[derive(Debug, Default)]
pub struct ChildStdio {
    /// The read end of a pipe.
    pub stdin: Option<OwnedFd>,
    /// The write end of a pipe.
    pub stdout: Option<OwnedFd>,
    /// The write end of a pipe.
    pub stderr: Option<OwnedFd>,
}

/// The shim's side of one process's streams. Dropping it stops the copies and closes everything (a logger is killed).
#[derive(Debug)]
pub struct Io {
    /// Until copying begins.
    ready: Option<Ready>,
    /// Keeps stdin's end-of-file away until CloseIO.
    stdin_writer: Option<OwnedFd>,
    copies: JoinSet<()>,
    /// How many outputs are still copied; None before copying begins.
    left: Sender<Option<usize>>,
    terminal: Option<Terminal>,
    logger: Option<Logger>,
}

/// What will be copied.
#[derive(Debug)]
enum Ready {
    Pipes { stdin: Option<(AsyncFd<OwnedFd>, AsyncFd<OwnedFd>)>, outputs: Vec<Output> },
    Terminal { stdin: Option<AsyncFd<OwnedFd>>, output: Sink, logged: Option<Output> },
}

/// A pipe that is read until its end, and where what is in it goes.
#[derive(Debug)]
struct Output {
    from: AsyncFd<OwnedFd>,
    to: Destination,
    stream: Stream,
}

#[derive(Debug)]
enum Destination {
    Sink(Sink),
    Journal(Rc<Journal>),
}

impl Output {
    async fn copy(self, left: Left) {
        let Self { from, to, stream } = self;
        match to {
            Destination::Sink(sink) => {
                copy::output(from, &sink, stream).await;
                drop(left);
                sink.leave().await;
            }
            Destination::Journal(journal) => copy::logged(&from, &journal, stream).await,
        }
    }
}

impl Io {
    /// Opens the client's side of each stream (and starts a binary logger, and waits until that is ready), and makes the
    /// process's pipes, which `owner` (uid, gid) then owns. Nothing here waits for a reader or a writer of a fifo.
    ///
    /// Needs a tokio runtime with timers, in a `LocalSet`.
    ///
    /// Errors: `InvalidArgument` for a URI that cannot be served, `NotFound` for a fifo that is not there. The future may be
    /// dropped: a logger that never becomes ready is then killed.
    pub async fn open(stdio: &Stdio, names: &LoggerNames, owner: Option<(u32, u32)>) -> Result<(Self, ChildStdio)> {
        // All is read before anything is opened: what is wrong with stderr leaves no file for stdout behind.
        let stdin = stdin_path(&stdio.stdin)?;
        let stdout = target::parse(Stream::Stdout, &stdio.stdout)?;
        let stderr = if stdio.terminal { Target::Null } else { target::parse(Stream::Stderr, &stdio.stderr)? };
        let mut pipes = Pipes { owner, child: ChildStdio::default(), outputs: Vec::new() };

        let stdin = stdin.map(|path| sink::open_stdin(&path)).transpose()?;
        let (stdin, stdin_writer) = match stdin {
            Some(fifo) => (Some(watch_readable(fifo.reader, Stream::Stdin)?), Some(fifo.writer)),
            None => (None, None),
        };
        let (ready, logger) = if stdio.terminal {
            let (output, logged, logger) = terminal_output(&stdout, names).await?;
            (Ready::Terminal { stdin, output, logged }, logger)
        } else {
            let stdin = stdin.map(|from| Ok((from, pipes.input()?))).transpose()?;
            let logger = pipes.all_outputs(&stdout, &stderr, names).await?;
            (Ready::Pipes { stdin, outputs: std::mem::take(&mut pipes.outputs) }, logger)
        };
        let io = Self {
            ready: Some(ready),
            stdin_writer,
            copies: JoinSet::new(),
            left: Sender::new(None),
            terminal: None,
            logger,
        };
        Ok((io, pipes.child))
    }

    /// Begins to copy, when the runtime has taken the [`ChildStdio`] and it was dropped here.
    pub fn start(&mut self) -> Result<()> {
        match self.ready.take() {
            Some(Ready::Pipes { stdin, outputs }) => {
                self.left.send_replace(Some(outputs.len()));
                for output in outputs {
                    self.copies.spawn_local(output.copy(Left(self.left.clone())));
                }
                if let Some((from, to)) = stdin {
                    self.copies.spawn_local(copy::input(from, to));
                }
                Ok(())
            }
            ready => {
                self.ready = ready;
                Err(Error::precondition("these streams are already copied, or they are a terminal's"))
            }
        }
    }

    /// Begins to copy between the pty and the client: instead of [`Io::start`] when there is a terminal.
    pub fn start_console(&mut self, master: OwnedFd) -> Result<()> {
        let master = nonblocking(master).context(|| "make the terminal non-blocking".to_owned())?;
        match self.ready.take() {
            Some(Ready::Terminal { stdin, output, logged }) => {
                let terminal = Terminal::new(master);
                self.left.send_replace(Some(1 + usize::from(logged.is_some())));
                if let Some(logged) = logged {
                    self.copies.spawn_local(logged.copy(Left(self.left.clone())));
                }
                let (left, copied) = (Left(self.left.clone()), terminal.clone());
                self.copies.spawn_local(async move {
                    terminal::output(copied, &output).await;
                    drop(left);
                    output.leave().await;
                });
                if let Some(from) = stdin {
                    self.copies.spawn_local(terminal::input(from, terminal.clone()));
                }
                self.terminal = Some(terminal);
                Ok(())
            }
            ready => {
                self.ready = ready;
                Err(Error::precondition("this terminal is already copied, or these streams are none"))
            }
        }
    }

    /// CloseIO: when the clients that have stdin open are gone too, the process reads end-of-file; with a terminal, the
    /// terminal hangs up. Does nothing the second time, or when there is no stdin.
    pub fn close_stdin(&mut self) {
        self.stdin_writer = None;
    }

    /// Sets the size of the terminal in characters; without a terminal it does nothing.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let (Ok(columns), Ok(rows)) = (u16::try_from(width), u16::try_from(height)) else {
            return Err(Error::invalid(format!("a terminal cannot have {width}x{height} characters: 65535 are most")));
        };
        self.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(columns, rows))
    }

    /// The process has exited; to be called at once, and before waiting for [`Io::drained`]. A terminal's output ends here,
    /// when what is in the pty has been copied: until here nobody may have the pty open for a while and open it again (an
    /// init that opens /dev/console for each message), and after it a forgotten child may keep it open for ever. Pipes end
    /// only when all who hold them are gone.
    pub fn exited(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.exited();
        }
    }

    /// Resolves when all output has been copied; several may wait. Without copies (null, binary loggers) at once. It does
    /// not borrow the Io; when that is closed or dropped it resolves too. Before `start` it waits.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut left = self.left.subscribe();
        async move {
            // An error is that all who count are gone.
            let _ = left.wait_for(|left| *left == Some(0)).await;
        }
    }

    /// The pid of the binary logger while it has not been reaped: the Io reaps it itself, a reaper of unknown children
    /// leaves it alone.
    pub fn logger_pid(&self) -> Option<u32> {
        self.logger.as_ref().and_then(Logger::pid)
    }

    /// Stops copying and closes everything; when it returns, all fds are closed. A binary logger reads end-of-file, then
    /// gets SIGTERM, and SIGKILL after 12 seconds. Never fails: what goes wrong is logged.
    pub async fn close(self) {
        self.close_with(Patience::USUAL).await;
    }

    async fn close_with(self, patience: Patience) {
        let Self { ready, stdin_writer, mut copies, left, terminal, logger } = self;
        drop((ready, stdin_writer, left));
        copies.shutdown().await;
        // Last of all: it is what a waiting process is hung up by.
        drop(terminal);
        if let Some(logger) = logger {
            logger.stop(patience).await;
        }
    }
}

/// One output less when dropped.
struct Left(Sender<Option<usize>>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left = left.map(|left| left.saturating_sub(1)));
    }
}

/// The pipes between the process and the shim, as they are made.
struct Pipes {
    owner: Option<(u32, u32)>,
    child: ChildStdio,
    outputs: Vec<Output>,
}

impl Pipes {
    /// The shim's end of stdin.
    fn input(&mut self) -> Result<AsyncFd<OwnedFd>> {
        let (read, write) = self.pipe(Stream::Stdin)?;
        self.child.stdin = Some(read);
        let write = nonblocking(write).context(|| "make the pipe for stdin non-blocking".to_owned())?;
        watch(write, Interest::WRITABLE).context(|| "watch the pipe for stdin".to_owned())
    }

    /// Stdout and stderr, which may be the same file or logger.
    async fn all_outputs(&mut self, stdout: &Target, stderr: &Target, names: &LoggerNames) -> Result<Option<Logger>> {
        let out = open(stdout, Stream::Stdout)?;
        let err = match &out {
            Some(Destination::Sink(Sink::File(file))) if stderr == stdout => {
                Some(Destination::Sink(Sink::File(file.clone())))
            }
            Some(Destination::Journal(journal)) if stderr == stdout => Some(Destination::Journal(journal.clone())),
            _ => open(stderr, Stream::Stderr)?,
        };
        for (to, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if let Some(to) = to {
                let (read, write) = self.pipe(stream)?;
                self.give(stream, write);
                self.outputs.push(Output { from: watch_readable(read, stream)?, to, stream });
            }
        }
        match (stdout, stderr) {
            (Target::Logger(one), Target::Logger(other)) if one != other => {
                Err(Error::invalid("stdout and stderr name two different loggers: a process has one"))
            }
            (Target::Logger(logger), _) | (_, Target::Logger(logger)) => {
                let (stdout, stderr) = (self.logged(stdout, Stream::Stdout)?, self.logged(stderr, Stream::Stderr)?);
                Logger::start(logger, names, stdout, stderr).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The logger's end of one of its two streams; of one that does not go to it, a pipe that has ended.
    fn logged(&mut self, target: &Target, stream: Stream) -> Result<OwnedFd> {
        let (read, write) = self.pipe(stream)?;
        if matches!(target, Target::Logger(_)) {
            self.give(stream, write);
        }
        Ok(read)
    }

    fn give(&mut self, stream: Stream, end: OwnedFd) {
        match stream {
            Stream::Stdin => self.child.stdin = Some(end),
            Stream::Stdout => self.child.stdout = Some(end),
            Stream::Stderr => self.child.stderr = Some(end),
        }
    }

    /// A pipe that the process's user may open again by /dev/stdout.
    fn pipe(&self, stream: Stream) -> Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).context(|| format!("make a pipe for {stream}"))?;
        if let Some((uid, gid)) = self.owner {
            // Both ends are one inode.
            fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .context(|| format!("give the pipe for {stream} to {uid}:{gid}"))?;
        }
        Ok((read, write))
    }
}

/// Where a terminal's output goes. What is not a file or a fifo gets it through a pipe; a logger's second stream has ended from
/// the start.
async fn terminal_output(stdout: &Target, names: &LoggerNames) -> Result<(Sink, Option<Output>, Option<Logger>)> {
    let mut pipes = Pipes { owner: None, child: ChildStdio::default(), outputs: Vec::new() };
    let pipe = || -> Result<(OwnedFd, Sink)> {
        let (read, write) = pipes.pipe(Stream::Stdout)?;
        let write = nonblocking(write).context(|| "make a terminal's pipe non-blocking".to_owned())?;
        Ok((read, Sink::pipe(write, Stream::Stdout)?))
    };
    if let Target::Logger(target) = stdout {
        let (read, sink) = pipe()?;
        let logger = Logger::start(target, names, read, pipes.logged(&Target::Null, Stream::Stderr)?).await?;
        return Ok((sink, None, Some(logger)));
    }
    match open(stdout, Stream::Stdout)? {
        // A terminal that nobody reads would stop the process.
        None => Ok((sink::open_null()?, None, None)),
        Some(Destination::Sink(sink)) => Ok((sink, None, None)),
        Some(to @ Destination::Journal(_)) => {
            let (read, sink) = pipe()?;
            let from = watch_readable(read, Stream::Stdout)?;
            Ok((sink, Some(Output { from, to, stream: Stream::Stdout }), None))
        }
    }
}

/// Opens everything but a logger.
fn open(target: &Target, stream: Stream) -> Result<Option<Destination>> {
    let sink = match target {
        Target::Null | Target::Logger(_) => return Ok(None),
        Target::Journal(target) => return Journal::open(target).map(|it| Some(Destination::Journal(it))),
        Target::Path(path) => sink::open_path(path, stream),
        Target::Fifo(path) => sink::open_fifo(path, stream),
        Target::File(path) => sink::open_file(path, stream),
    };
    sink.map(|sink| Some(Destination::Sink(sink)))
}

fn stdin_path(value: &str) -> Result<Option<std::path::PathBuf>> {
    match target::parse(Stream::Stdin, value)? {
        Target::Null => Ok(None),
        Target::Path(path) | Target::Fifo(path) => Ok(Some(path)),
        Target::File(_) | Target::Logger(_) | Target::Journal(_) => {
            Err(Error::invalid(format!("the stdin URI {value:?} is not served: stdin is a fifo")))
        }
    }
}

fn watch_readable(fd: OwnedFd, stream: Stream) -> Result<AsyncFd<OwnedFd>> {
    let failed = || format!("watch the pipe for {stream}");
    let fd = nonblocking(fd).context(failed)?;
    watch(fd, Interest::READABLE).context(failed)
}

fn nonblocking(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}

#[cfg(test)]
mod tests;
