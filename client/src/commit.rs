//! `commit`: what a container is now becomes an image.
//!
//! It stands still while it is read, for whoever holds `commit.lock` in its running directory. If that one is killed, the file is there and
//! nobody holds it: the next command lets the container go on.

use std::path::PathBuf;
use std::task::Poll;

use nix::sys::signal::Signal;
use tare_proto::store::{CommitRequest, ImageResult};
use tokio::signal::unix::{SignalKind, signal};

use crate::background::{self, Turn};
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::{Container, Status};
use crate::{changes, events, image, pause, spec, truth};

/// How.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Who made it.
    pub author: String,
    /// Why.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// A container that runs stands still while it is read.
    pub pause: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { author: String::new(), message: String::new(), changes: Vec::new(), pause: true }
    }
}

/// Makes an image of a container, by this name or without one. Gives its id.
///
/// # Errors
/// There is no such container, the name or a change is none, or the store failed. The container goes on in any case.
pub async fn commit(client: &Client, container: &str, name: Option<&str>, options: &Options) -> Result<String> {
    let mut record = truth::find(client, container).await?;
    name.map(check_name).transpose()?;
    changes::apply(&mut record.config, &options.changes)?;
    let base = image::find(client, &record.image.id).await?;
    let mut request = CommitRequest::new();
    request.snapshot.clone_from(&record.snapshot);
    request.base = base.name;
    request.author.clone_from(&options.author);
    request.message.clone_from(&options.message);
    request.config = changes::image_config(&record.config).to_string();
    request.created_by = spec::arguments(&record.config).join(" ");
    let mut resumed = Ok(());
    let made = if options.pause && record.state.status == Status::Running {
        // Whatever comes in between, an impatient person or the end of a session too: it goes on. Heard of from before it stands still.
        let interrupted = interruption()?;
        let still = Turn::take(&turn(client, &record.id))?;
        // As the two commands do it, so that the record tells what is so, and is told of by events as docker's.
        pause::pause(client, &record.id).await.inspect_err(|_| {
            if still.is_some() {
                forget(client, &record.id);
            }
        })?;
        let made = tokio::select! {
            made = make(client, &request) => made,
            by = interrupted => Err(Error::failed(format!("commit {}: interrupted by {by}", record.name))),
        };
        resumed = match pause::unpause(client, &record.id).await {
            // Somebody else let it go on, or ended it: that is no matter of the image's.
            Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => Ok(()),
            resumed => resumed,
        };
        if resumed.is_ok() {
            forget(client, &record.id);
        }
        drop(still);
        made?
    } else {
        make(client, &request).await?
    };
    if let Some(name) = name {
        image::tag::tag(client, &made.config, name).await?;
    }
    // Not before: the image is made, and would be without its name.
    resumed?;
    let comment = options.message.as_str();
    events::container(&client.paths, "commit", &record, &[("comment", comment), ("imageID", &made.config)]);
    Ok(made.config)
}

/// What whoever has it stand still holds.
fn turn(client: &Client, id: &str) -> PathBuf {
    client.paths.running(id).join("commit.lock")
}

/// Whether a container stands still for somebody who was killed over it.
pub(crate) fn is_given_up(client: &Client, record: &Container) -> bool {
    let turn = turn(client, &record.id);
    record.state.status == Status::Paused && turn.is_file() && !background::is_taken(&turn)
}

/// From now on it stands still for somebody else, or not at all.
pub(crate) fn forget(client: &Client, id: &str) {
    // There is none but where a commit was.
    let _ = std::fs::remove_file(turn(client, id));
}

/// As [`forget`], unless somebody is at it.
pub(crate) fn forget_killed(client: &Client, id: &str) {
    if !background::is_taken(&turn(client, id)) {
        forget(client, id);
    }
}

/// Waits for a signal that would have ended this program, from now on. One that whoever called us had ignored (`nohup`, a script's `&`)
/// would not have.
fn interruption() -> Result<impl Future<Output = Signal>> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").context(|| "read our own status".to_owned())?);
    let mut heard = Vec::new();
    for number in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM] {
        if ignored >> (number as u32 - 1) & 1 == 0 {
            let listener = signal(SignalKind::from_raw(number as i32)).context(|| "listen for signals".to_owned())?;
            heard.push((number, listener));
        }
    }
    Ok(std::future::poll_fn(move |task| {
        let come = heard.iter_mut().find_map(|(number, it)| it.poll_recv(task).is_ready().then_some(*number));
        come.map_or(Poll::Pending, Poll::Ready)
    }))
}

/// The signals that a process ignores, by its status (`proc_pid_status(5)`): the lowest bit is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).unwrap_or(0)
}

/// A name that a new image can have.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let wrong = || {
        Error::usage(format!("invalid reference format: {name:?}: give a name as in team/app:1.2, in small letters"))
    };
    let reference = image::reference::Reference::parse(name).ok_or_else(wrong)?;
    if reference.digest.is_some() {
        return Err(Error::usage(format!(
            "refusing to create a tag with a digest reference: leave out what is behind the @ in {name}"
        )));
    }
    Ok(())
}

/// Has the store make an image.
pub(crate) async fn make(client: &Client, request: &CommitRequest) -> Result<ImageResult> {
    let what = || client.store.call(&format!("commit {}", request.snapshot));
    let store = client.store.store().await?;
    let mut stream = store.commit(client.store.context(), request).await.context(what)?;
    let mut made = None;
    while let Some(progress) = client.store.next(&mut stream).await? {
        made = progress.result.into_option().and_then(|it| it.images.into_iter().next()).or(made);
    }
    made.ok_or_else(|| {
        Error::failed(format!("commit {}: the store told of no image: its log says more", request.snapshot))
    })
}
