//! A person at a process: what it writes is shown here, what is typed here goes there, until it ends or the person leaves.
//!
//! ```text
//! shim ── attach socket: frames (stream, length, bytes) ──> our standard output and error
//! our standard input ── fifo ──> shim                       signals of ours ── Kill ──> the process     (without a terminal)
//! our terminal's size ── ResizePty ──> shim
//! ```
//!
//! Everybody who is attached sees the same and writes to the same input. Leaving (the detach keys, or being killed) ends nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::{Container, Status};
use crate::shim::{Exit, Shim};
use crate::terminal::{DetachKeys, Raw, Stream, size};
use crate::{ended, events, truth};

/// How long an attach socket may be on its way.
const WELCOME: Duration = Duration::from_secs(10);
/// The longest frame that a shim sends is far below.
const LONGEST_FRAME: usize = 1 << 20;

/// How a person attaches.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is typed here stays here.
    pub no_stdin: bool,
    /// What it writes to standard output is not shown.
    pub no_stdout: bool,
    /// What it writes to standard error is not shown.
    pub no_stderr: bool,
    /// Signals sent to us go to the process.
    pub sig_proxy: bool,
    /// The keys that leave it.
    pub detach_keys: DetachKeys,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process has ended.
    Ended(Exit),
    /// The person left; what our exit status is then.
    Left(u8),
}

/// Attaches to a running container; its exit code, or 0 if the person left.
///
/// # Errors
/// There is no such container, or it does not run.
pub async fn attach(client: &Client, name: &str, options: &Options) -> Result<u8> {
    let record = truth::find(client, name).await?;
    match record.state.status {
        Status::Running => {}
        Status::Paused => return Err(Error::failed("cannot attach to a paused container: unpause it first")),
        Status::Restarting => return Err(Error::failed("cannot attach to a restarting container: wait until it runs")),
        _ => return Err(Error::failed("cannot attach to a stopped container: start it first")),
    }
    let shim = Shim::of(&record).await?;
    let frames = Frames::connect(&client.paths.attach(&record.id)).await?;
    events::container(&client.paths, "attach", &record, &[]);
    let stdin = if options.no_stdin { None } else { open_stdin(client, &shim, &record).await? };
    if let Some((columns, rows)) = size().filter(|_| record.config.tty) {
        // A program that draws is told to draw anew only by a size that is another one.
        let _ = shim.resize("", columns, rows.saturating_add(1)).await;
        let _ = shim.resize("", columns, rows).await;
    }
    // As docker's attach: with a terminal, its keys do that.
    let options = Options { sig_proxy: options.sig_proxy && !record.config.tty, ..options.clone() };
    let session = Session { shim: &shim, exec: "", frames, stdin, tty: record.config.tty, options };
    finish(client, &record, session).await
}

/// Serves a container's session to its end, and settles what its end leaves to be done; its exit code.
async fn finish(client: &Client, record: &Container, session: Session<'_>) -> Result<u8> {
    finish_from(client, record, session, async || Ok(())).await
}

/// The same for a container that `begin` starts.
pub(crate) async fn finish_from(
    client: &Client,
    record: &Container,
    session: Session<'_>,
    begin: impl AsyncFnOnce() -> Result<()>,
) -> Result<u8> {
    let end = async |_exit: Exit| ended::settle(client, &record.id).await.map(drop);
    match session.serve_from(begin, end).await {
        Ok(Outcome::Ended(exit)) => Ok(exit_code(exit.code)),
        Ok(Outcome::Left(code)) => {
            events::container(&client.paths, "detach", record, &[]);
            Ok(code)
        }
        // The shim went away under us: what became of the container is found out as for any other command.
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::CutOff) => {
            ended::settle(client, &record.id).await?.map_or(Err(error), |code| Ok(exit_code(code)))
        }
        Err(error) => Err(error),
    }
}

/// As the process's exit status is.
#[must_use]
pub fn exit_code(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The way to a container's standard input, if it has one that is open.
pub(crate) async fn open_stdin(client: &Client, shim: &Shim, record: &Container) -> Result<Option<pipe::Sender>> {
    if !record.config.open_stdin {
        return Ok(None);
    }
    let writer = open_fifo(&client.paths.stdin(&record.id))?;
    if record.config.stdin_once && !record.config.tty {
        // From here on we alone hold it open: however we end, the process reads the end.
        shim.close_stdin("").await?;
    }
    Ok(Some(writer))
}

/// The writing end of a fifo that the shim reads.
pub(crate) fn open_fifo(path: &Path) -> Result<pipe::Sender> {
    pipe::OpenOptions::new().open_sender(path).context(|| format!("open {}", path.display()))
}

/// What a process writes, as the shim sends it to whoever is attached.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: UnixStream,
    received: Vec<u8>,
    early: Vec<(u8, Vec<u8>)>,
}

impl Frames {
    /// Attaches; all that is written from now on will come.
    ///
    /// # Errors
    /// Nobody listens there, or the shim does not let us in.
    pub(crate) async fn connect(path: &Path) -> Result<Self> {
        let what = || format!("attach at {}", path.display());
        let stream = UnixStream::connect(path).await.context(what)?;
        let mut frames = Self { stream, received: Vec::new(), early: Vec::new() };
        let welcome = tokio::time::timeout(WELCOME, frames.next()).await;
        match welcome.map_err(|_| Error::failed(format!("{}: the shim does not answer", what())))? {
            Ok(Some((0, _))) => Ok(frames),
            // Something was written at that very moment, and came first.
            Ok(Some((stream, bytes))) => {
                frames.early.push((stream, bytes));
                Ok(frames)
            }
            Ok(None) => Err(Error::failed(format!("{}: the process has ended", what()))),
            Err(error) => Err(error).context(what),
        }
    }

    /// The next bytes, and the number of their stream; None at the end. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if let Some(frame) = self.early.pop() {
            return Ok(Some(frame));
        }
        loop {
            if let Some(header) = self.received.first_chunk::<8>() {
                let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
                let stream = header[0];
                if length > LONGEST_FRAME {
                    return Err(io::Error::other("a frame that is too long came from the shim"));
                }
                if self.received.len() >= 8 + length {
                    let bytes = self.received[8..8 + length].to_vec();
                    self.received.drain(..8 + length);
                    return Ok(Some((stream, bytes)));
                }
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.received) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // The shim was killed.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A person at a process.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) shim: &'a Shim,
    /// Empty: the container's own process.
    pub(crate) exec: &'a str,
    pub(crate) frames: Frames,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) tty: bool,
    pub(crate) options: Options,
}

impl Session<'_> {
    /// Serves until the process has ended and all it wrote is shown, or the person leaves. `begin` starts the process when all is ready for
    /// what it will write; `end` is called when it has ended, and has the shim close the streams (delete), which is what ends the frames.
    pub(crate) async fn serve_from(
        self,
        begin: impl AsyncFnOnce() -> Result<()>,
        end: impl AsyncFnOnce(Exit) -> Result<()>,
    ) -> Result<Outcome> {
        let Self { shim, exec, mut frames, stdin, tty, options } = self;
        let raw = if tty && stdin.is_some() { Raw::enter()? } else { None };
        let mut signals = Signals::new(raw.is_some(), tty, options.sig_proxy)?;
        // Asked for before it runs: one that ends at once may be gone, and all that the shim knew of it, before we could ask.
        let mut exit = Box::pin(shim.wait(exec));
        let mut begun = Box::pin(begin());
        let early = tokio::select! {
            biased;
            ended = &mut exit => {
                begun.await?;
                Some(ended?)
            }
            done = &mut begun => {
                done?;
                None
            }
        };
        let output = show(&mut frames, !options.no_stdout, !options.no_stderr);
        let input = async {
            match stdin {
                Some(stdin) => send(stdin, tty, options.detach_keys).await,
                None => std::future::pending().await,
            }
        };
        let (mut output, mut input) = (Box::pin(output), Box::pin(input));
        let mut shown = None;
        let unshown = |error: io::Error| Err::<Outcome, _>(error).context(|| "show what the process writes".to_owned());
        let exit = loop {
            if let Some(exit) = early {
                break exit;
            }
            tokio::select! {
                ended = &mut exit => break ended?,
                done = &mut output, if shown.is_none() => {
                    shown = Some(());
                    match done {
                        Ok(()) => {}
                        // Nobody reads what we write any more, as behind `| head`.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Outcome::Left(BROKEN_PIPE)),
                        Err(error) => return unshown(error),
                    }
                }
                typed = &mut input => {
                    typed.context(|| "copy standard input".to_owned())?;
                    return Ok(Outcome::Left(0));
                }
                leave = signals.serve(shim, exec) => return Ok(Outcome::Left(leave)),
            }
        };
        drop(input);
        let (closed, rest) =
            tokio::join!(end(exit), async { if shown.is_none() { (&mut output).await } else { Ok(()) } });
        drop(raw);
        closed?;
        match rest {
            // What nobody reads any more at the end is lost with whoever would have read it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => unshown(error),
            _ => Ok(Outcome::Ended(exit)),
        }
    }
}

/// 128 and SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Shows what the process writes, until the end.
async fn show(frames: &mut Frames, shows_output: bool, shows_errors: bool) -> io::Result<()> {
    let (mut output, mut errors) = (None, None);
    while let Some((stream, bytes)) = frames.next().await? {
        let (place, open): (&mut Option<Stream>, fn() -> Result<Stream>) = match stream {
            1 if shows_output => (&mut output, Stream::output),
            2 if shows_errors => (&mut errors, Stream::errors),
            _ => continue,
        };
        if place.is_none() {
            *place = Some(open().map_err(|error| io::Error::other(error.message))?);
        }
        if let Some(stream) = place {
            stream.write(&bytes).await?;
        }
    }
    Ok(())
}

/// Sends what is typed; returns when the person leaves by the keys, and never at the end of what is typed: the process may still write.
async fn send(stdin: pipe::Sender, tty: bool, mut keys: DetachKeys) -> io::Result<()> {
    let mut input = Stream::input().map_err(|error| io::Error::other(error.message))?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = input.read(&mut buffer).await?;
        let (bytes, leave) = if tty { keys.filter(&buffer[..read]) } else { (buffer[..read].to_vec(), false) };
        if read == 0 || feed(&stdin, &bytes).await.is_err() {
            // The process closed its input, or ours is at its end: either way there is no more of it.
            drop(stdin);
            return std::future::pending().await;
        }
        if leave {
            return Ok(());
        }
    }
}

async fn feed(stdin: &pipe::Sender, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stdin.writable().await?;
        match stdin.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The signals that we do something about.
struct Signals {
    resized: Option<Signal>,
    /// Sent on to the process, or with a terminal the end of us, who have to leave the terminal as it was.
    ours: Vec<(i32, Signal)>,
    proxied: bool,
}

impl Signals {
    fn new(raw: bool, tty: bool, sig_proxy: bool) -> Result<Self> {
        use nix::libc::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let wanted: &[i32] = match (sig_proxy, raw) {
            (true, _) => &[SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT],
            (false, true) => &[SIGHUP, SIGINT, SIGQUIT, SIGTERM],
            // They do what they always do: end us, and nothing else.
            (false, false) => &[],
        };
        let listen =
            |number: i32| signal(SignalKind::from_raw(number)).context(|| format!("listen for signal {number}"));
        let ours = wanted.iter().map(|number| Ok((*number, listen(*number)?))).collect::<Result<_>>()?;
        let resized = if tty { Some(listen(SignalKind::window_change().as_raw_value())?) } else { None };
        Ok(Self { resized, ours, proxied: sig_proxy })
    }

    /// Serves signals; returns when one ends us, with our exit status. May be dropped while it waits.
    async fn serve(&mut self, shim: &Shim, exec: &str) -> u8 {
        loop {
            let number = self.next().await;
            if number == nix::libc::SIGWINCH {
                if let Some((columns, rows)) = size() {
                    // It may just have ended.
                    let _ = shim.resize(exec, columns, rows).await;
                }
            } else if self.proxied {
                let _ = shim.kill(exec, number).await;
            } else {
                return u8::try_from(128 + number).unwrap_or(u8::MAX);
            }
        }
    }

    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|task| {
            if let Some(resized) = &mut self.resized
                && resized.poll_recv(task).is_ready()
            {
                return std::task::Poll::Ready(nix::libc::SIGWINCH);
            }
            let come =
                self.ours.iter_mut().find_map(|(number, signal)| signal.poll_recv(task).is_ready().then_some(*number));
            come.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}
