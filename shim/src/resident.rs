//! The process that stays: forked off by `start`, it serves the socket until its tasks are over.
//!
//! It comes to life with the memory of `start`, one thread, no tokio. Before it serves, it lets go of the daemon: its own session,
//! no stream or pipe of the caller, its words in the bundle's log. What the caller asked for beyond that and the host refuses
//! (an OOM score, a cgroup, core scheduling) is logged and no reason to fail: a container without a shim is worse.

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::Level;

use crate::bootstrap::Config;
use crate::cgroup::Cgroup;
use crate::error::{Context, Result};
use crate::events::{ANSWER, Daemon, Publisher, PublisherConfig};
use crate::exits::Children;
use crate::service::services;
use crate::socket::Listening;
use crate::sys::memory::give_back;
use crate::sys::start::{replace_arguments, schedule_core};
use crate::tasks::{self, Tasks};
use crate::{log, server};

/// How long after something was done memory is given back.
const QUIET: Duration = Duration::from_secs(1);

/// What `start` leaves to it.
#[derive(Debug)]
pub struct Inheritance {
    /// Whom it serves.
    pub config: Config,
    /// The socket, bound, its backlog open since before the daemon was told.
    pub listening: Listening,
    /// The cgroup it shall be in; empty is where it is.
    pub shim_cgroup: Result<String>,
    /// The OOM score it shall have: one more than the daemon's, so that the daemon dies last.
    pub oom_score: Result<i32>,
    /// Whether its group of processes shall have its cores to itself.
    pub core_scheduling: bool,
}

/// Serves until the tasks are over.
pub fn run(inheritance: Inheritance) -> ExitCode {
    let entry = inheritance.listening.entry.clone();
    match settle(&inheritance).and_then(|()| serve(inheritance)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the shim ends");
            // So that the next start does not have to find out.
            let _ = entry.remove();
            ExitCode::FAILURE
        }
    }
}

fn settle(inheritance: &Inheritance) -> Result<()> {
    let config = &inheritance.config;
    // A session has no terminal and no signals from one, and is a process group of its own. Who leads such a group (a supervisor
    // made it one) cannot leave it, and need not.
    match nix::unistd::setsid() {
        Err(nix::errno::Errno::EPERM) => {}
        made => made.map(drop).context(|| "make a session".to_owned())?,
    }
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.context(|| "open /dev/null".to_owned())?;
    // The daemon waits for the end of what it reads as the answer: as long as any of these is open, it waits.
    for replaced in [nix::unistd::dup2_stdin(&null), nix::unistd::dup2_stdout(&null), nix::unistd::dup2_stderr(&null)] {
        replaced.context(|| "put /dev/null in place of a standard stream".to_owned())?;
    }
    let level = if config.debug { Level::DEBUG } else { Level::INFO };
    // Without a log there is nowhere to say so.
    let _ = log::to_bundle(&config.bundle, level);
    let optional = [
        ("set the OOM score", inheritance.oom_score.clone().and_then(set_oom_score)),
        ("join the shim's cgroup", inheritance.shim_cgroup.clone().and_then(join)),
        ("schedule cores", core_scheduling(inheritance.core_scheduling)),
    ];
    for (what, done) in optional {
        if let Err(error) = done {
            tracing::warn!(%error, "{what}");
        }
    }
    // The runtime's processes become ours when it exits; without that no exit would ever be seen.
    nix::sys::prctl::set_child_subreaper(true).context(|| "become the reaper of the containers".to_owned())?;
    Ok(())
}

fn set_oom_score(score: i32) -> Result<()> {
    let path = "/proc/self/oom_score_adj";
    // 1000 is the highest there is.
    std::fs::write(path, score.min(1000).to_string()).context(|| format!("write {score} to {path}"))
}

fn join(cgroup: String) -> Result<()> {
    if cgroup.is_empty() { Ok(()) } else { Cgroup::load(&cgroup)?.add(std::process::id()) }
}

fn core_scheduling(wanted: bool) -> Result<()> {
    if wanted { schedule_core().context(|| "make a core scheduling cookie".to_owned()) } else { Ok(()) }
}

fn serve(inheritance: Inheritance) -> Result<()> {
    let Inheritance { config, listening, .. } = inheritance;
    let awake = Arc::new(Notify::new());
    let woken = awake.clone();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io().enable_time().on_thread_unpark(move || woken.notify_one());
    let runtime = builder.build().context(|| "make the event loop".to_owned())?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(give_back_when_quiet(awake));
        let children = Rc::<Children>::default();
        let told = PublisherConfig { daemon: daemon(&config), namespace: config.namespace.clone() };
        let publisher = Publisher::new(told, children.clone());
        let (tasks, done) = tasks::spawn(config.clone(), publisher.clone(), children);
        answer_signals(&tasks)?;
        // Last: who sees it in ps may send signals.
        set_title(&config);
        tracing::debug!(namespace = config.namespace, id = config.id, socket = %config.socket.display(), "the shim serves");
        let over = async {
            done.await;
            // While it still listens: a start that finds it dead would put its own there.
            if let Err(error) = listening.entry.remove() {
                tracing::warn!(%error, "leave the socket");
            }
            publisher.flush(ANSWER).await;
        };
        server::serve(listening.listener, services(tasks), over).await
    })
}

/// Gives free memory back a while after each time there was something to do: what a burst took would stay for as long as the
/// shim lives, which is mostly idle. An idle shim is not woken for it.
async fn give_back_when_quiet(awake: Arc<Notify>) {
    loop {
        awake.notified().await;
        tokio::time::sleep(QUIET).await;
        give_back();
        // What woke us, this timer included, is done with: it came before. So nothing is left to give back.
        let _ = awake.notified().now_or_never();
    }
}

/// Lets ps show whose shim this is, in the words in which the Go shim shows it.
fn set_title(config: &Config) {
    let program = std::env::args().next().unwrap_or_default();
    let words = [&program, "-namespace", &config.namespace, "-id", &config.id, "-address", &config.address];
    if let Err(error) = replace_arguments(&words) {
        tracing::warn!(%error, "replace the arguments");
    }
}

/// The way to tell the daemon what happens.
fn daemon(config: &Config) -> Daemon {
    if !config.ttrpc_address.is_empty() {
        Daemon::Ttrpc(config.ttrpc_address.clone())
    } else if !config.publish_binary.as_os_str().is_empty() {
        Daemon::Binary { binary: config.publish_binary.clone(), address: config.address.clone() }
    } else {
        Daemon::Nobody
    }
}

/// Answers signals for as long as the shim lives.
///
/// SIGTERM and SIGINT end a shim that holds nothing; a shim with tasks ignores them: it is ended by ending those, and by the
/// host's SIGKILL. SIGUSR1 asks for the table. None is blocked: that would go on to every runtime and container.
fn answer_signals(tasks: &Tasks) -> Result<()> {
    let handlers = [
        (SignalKind::terminate(), Tell::End),
        (SignalKind::interrupt(), Tell::End),
        (SignalKind::user_defined1(), Tell::Table),
    ];
    for (kind, tell) in handlers {
        let mut signals = signal(kind).context(|| "handle signals".to_owned())?;
        let tasks = tasks.clone();
        tokio::task::spawn_local(async move {
            while signals.recv().await.is_some() {
                match tell {
                    Tell::End => tasks.shutdown().await,
                    Tell::Table => tasks.dump().await,
                }
            }
        });
    }
    Ok(())
}

enum Tell {
    End,
    Table,
}
