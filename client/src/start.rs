//! `start`: a container that is there begins to run.
//!
//! ```text
//! RUN/containers/<id> ─> [ shim | network | mounts of its root ] ─> config.json ─> task created ─> [somebody attaches] ─> task started
//! ```
//!
//! The record names a shim from before anything is made until all of it is gone: so what a killed start leaves is found. A start
//! that fails takes back what it made.

use std::os::fd::AsFd;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tare_proto::types::Mount;

use crate::apparmor;
use crate::client::Client;
use crate::create::{Prepared, prepared};
use crate::error::{Context, Error, Kind, Result};
use crate::paths::text;
use crate::record::{Container, Status};
use crate::records::Lock;
use crate::shim::{self, Shim, Streams};
use crate::time::Time;
use crate::{attach, disk, ended, events, health, network, rm, shm, spec, terminal, truth, volumes};

/// What the record says in place of a shim's address until there is one.
pub(crate) const NONE_YET: &str = "none yet";

/// How many shims are started for one start, at most: one is, unless what comes before it is asked takes longer than it waits.
const SHIMS: u32 = 3;

/// How `start` is called.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Show what it writes (-a) and, unless `no_stdin` is set, send what is typed (-i).
    pub attach: Option<attach::Options>,
}

/// A container that its runtime has made, and whose process waits for the word.
#[derive(Debug)]
pub(crate) struct Ready {
    lock: Lock,
    pub(crate) record: Container,
    shim: Shim,
}

/// Starts a container; 0, or attached its exit code. One that runs already is left alone.
///
/// # Errors
/// There is none, it is paused, or it cannot be started.
pub async fn start(client: &Client, name: &str, options: &Options) -> Result<u8> {
    let (lock, mut record) = truth::hold(client, name).await?;
    match record.state.status {
        Status::Running => {
            drop(lock);
            return match &options.attach {
                Some(how) => attach::attach(client, &record.id, how).await,
                None => Ok(0),
            };
        }
        Status::Paused => return Err(Error::failed("cannot start a paused container: unpause it instead")),
        Status::Created | Status::Exited | Status::Dead | Status::Restarting | Status::Removing => {}
    }
    record.state.restart_count = 0;
    record.state.restart_delay = 0;
    let ready = begin(client, lock, record, None).await?;
    match &options.attach {
        None => ready.go(client).await.map(|_| 0),
        Some(how) => ready.attached(client, how).await,
    }
}

/// All but the last step. If it fails all is as before, but for the record's word about why.
pub(crate) async fn begin(client: &Client, lock: Lock, mut record: Container, root: Option<Prepared>) -> Result<Ready> {
    record.state.shim = NONE_YET.to_owned();
    record.state.oom_killed = false;
    record.state.error.clear();
    lock.save(&record)?;
    match make(client, &lock, &mut record, root).await {
        Ok(shim) => Ok(Ready { lock, record, shim }),
        Err(error) => Err(failed(client, lock, record, error).await),
    }
}

async fn make(client: &Client, lock: &Lock, record: &mut Container, root: Option<Prepared>) -> Result<Shim> {
    let id = record.id.clone();
    shim::check_runtime(client, record)?;
    let bundle = client.paths.bundle(&id);
    disk::make_private(&bundle)?;
    if record.config.open_stdin {
        let stdin = client.paths.stdin(&id);
        mkfifo(&stdin, Mode::S_IRUSR | Mode::S_IWUSR).context(|| format!("make {}", stdin.display()))?;
    }
    shm::make(client, record)?;
    // These three have nothing to do with each other, and the first and the last are programs that run beside us.
    let starting = shim::spawn(client, &id).inspect_err(|_| {
        // Where the program cannot be executed nothing has begun, and what would clean up after it is the same program.
        let _ = std::fs::remove_dir_all(&bundle);
    })?;
    let snapshot = record.snapshot.clone();
    let root = async {
        match root {
            Some(root) => Ok(root),
            None => prepared(client, &snapshot).await,
        }
    };
    let (root, attached) = tokio::join!(root, network::attach(client, record));
    // First of all what can be taken back only if it is known.
    record.state.shim = starting.address()?;
    lock.save(record)?;
    attached?;
    let root = root?;
    // Open until the task is made.
    let held = volumes::hold(record)?;
    let config = configuration(client, record, &root, &held).await?;
    disk::replace(&bundle.join("config.json"), config.to_string().as_bytes(), 0o600)?;
    let shim = create(client, lock, record, root.mounts).await?;
    drop(held);
    if record.config.tty {
        let asked = record.host_config.console_size;
        if let Some((columns, rows)) = Some((asked[1], asked[0])).filter(|it| *it != (0, 0)).or_else(terminal::size) {
            shim.resize("", columns, rows).await?;
        }
    }
    Ok(shim)
}

/// Has the shim that was started make the container; or another one, where that gave up waiting: the network may have taken long.
async fn create(client: &Client, lock: &Lock, record: &mut Container, root: Vec<Mount>) -> Result<Shim> {
    let streams = streams(client, record);
    for _ in 0..SHIMS {
        match Shim::of(record).await {
            Ok(shim) if shim.answers().await => match shim.create(client, record, root.clone(), &streams).await {
                Err(error) if error.kind == Kind::Unavailable => {}
                created => return created.map(|_| shim).map_err(|error| judged(record, error)),
            },
            Err(error) if error.kind != Kind::NotFound => return Err(error),
            _ => {}
        }
        record.state.shim = shim::spawn(client, &record.id)?.address()?;
        lock.save(record)?;
    }
    Err(Error::failed(format!(
        "start container {}: {SHIMS} shims have ended before they were asked: the host has too much to do, try it again",
        record.name
    )))
}

/// What the runtime is told.
async fn configuration(client: &Client, record: &Container, root: &Prepared, held: &volumes::Held) -> Result<Value> {
    let network::Files { hosts, hostname, resolv_conf } = network::files(client, record);
    let host = &record.host_config;
    let ipc = joined(client, &host.ipc_mode, "--ipc").await?;
    let shm = match &ipc {
        Some(other) => Some(shm::of_other(client, other)?),
        None => shm::of(client, record),
    };
    let apparmor = apparmor::of(host);
    apparmor.as_deref().map_or(Ok(()), apparmor::load)?;
    spec::build(&spec::Inputs {
        apparmor: apparmor.as_deref(),
        record,
        files: &spec::Files { hosts, hostname, resolv_conf },
        netns: network::namespace(client, record)?.as_deref(),
        links: &network::link_environment(client, record)?,
        root: root.root.as_fd(),
        joins: &spec::Joins {
            pid: joined(client, &host.pid_mode, "--pid").await?.map(|it| it.state.pid),
            ipc: ipc.map(|it| it.state.pid),
            shm,
        },
        held,
    })
}

/// The container whose namespace is shared.
async fn joined(client: &Client, mode: &str, flag: &str) -> Result<Option<Container>> {
    let Some(id) = mode.strip_prefix("container:") else { return Ok(None) };
    let other = truth::find(client, id).await?;
    if other.state.status != Status::Running {
        return Err(Error::failed(format!(
            "{flag} container:{}: that container is {}, not running: start it first",
            other.name,
            other.state.status.name()
        )));
    }
    Ok(Some(other))
}

/// Where its streams go.
fn streams(client: &Client, record: &Container) -> Streams {
    let log = &record.host_config.log_config;
    // Without a log it can be attached to all the same.
    let path = if log.kind == "none" { "/dev/null".into() } else { client.paths.log(&record.id) };
    let mut options: Vec<String> = ["max-size", "max-file"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", log.config.get(name)?)))
        .filter(|_| log.kind != "none")
        .collect();
    options.push(format!("attach={}", encoded(&text(&client.paths.attach(&record.id)))));
    let output = format!("json-file://{}?{}", encoded(&text(&path)), options.join("&"));
    Streams {
        stdin: if record.config.open_stdin { text(&client.paths.stdin(&record.id)) } else { String::new() },
        stderr: if record.config.tty { String::new() } else { output.clone() },
        stdout: output,
        terminal: record.config.tty,
    }
}

/// As it stands in a URI (RFC 3986, 2.3).
pub(crate) fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Tells a command that is not there, or may not be run, from all else. A runtime says it in words alone: in runc's, or ours.
fn judged(record: &Container, error: Error) -> Error {
    let config = &record.config;
    let mut words = config.entrypoint.iter().chain(&config.cmd).flatten();
    match words.next() {
        Some(program) => command_failure(program, error),
        None => error,
    }
}

/// As [`judged`], for this program.
pub(crate) fn command_failure(program: &str, error: Error) -> Error {
    let says = |sign: &str| error.message.to_ascii_lowercase().contains(sign);
    if !error.message.contains(&format!("{program:?}")) && !error.message.contains(&format!(" {program}:")) {
        return error;
    }
    // Also below a file there is nothing.
    let kind = if says("executable file not found") || says("no such file or directory") || says("not a directory") {
        Kind::CommandNotFound
    } else if says("permission denied") || says("is a directory") || says("exec format error") {
        Kind::CannotRun
    } else {
        error.kind
    };
    Error { kind, ..error }
}

/// Takes back what there is of a container that could not be started, and records why. The failure, to be returned.
async fn failed(client: &Client, lock: Lock, mut record: Container, error: Error) -> Error {
    let shim = ended::shim_of(client, &record).await;
    record.state.error.clone_from(&error.message);
    record.state.exit_code = match error.kind {
        Kind::CommandNotFound => 127,
        Kind::CannotRun => 126,
        _ => 128,
    };
    record.state.status = if record.state.started_at.is_never() { Status::Created } else { Status::Exited };
    // The first failure is the one to tell; what stays is cleaned up by the next command.
    if ended::clean(client, &mut record, shim.as_ref()).await.is_ok() && record.host_config.auto_remove {
        record.state.status = Status::Removing;
    }
    let _ = lock.save(&record);
    if record.state.status == Status::Removing {
        let _ = rm::destroy(client, lock, record).await;
    }
    if let Some(shim) = shim {
        shim.shutdown().await;
    }
    error
}

impl Ready {
    /// The last step: its process runs.
    pub(crate) async fn go(self, client: &Client) -> Result<Container> {
        let Self { lock, mut record, shim } = self;
        let pid = match shim.start("").await {
            Ok(pid) => pid,
            Err(error) => {
                let error = judged(&record, error);
                return Err(failed(client, lock, record, error).await);
            }
        };
        record.state.status = Status::Running;
        record.state.pid = pid;
        record.state.exit_code = 0;
        record.state.started_at = Time::now();
        record.state.finished_at = Time::NEVER;
        record.state.stopped_by_user = false;
        record.state.health = health::at_start(&record);
        lock.save(&record)?;
        events::container(&client.paths, "start", &record, &[]);
        health::ensure(client, &record)?;
        Ok(record)
    }

    /// The same with a person at it, until it ends or the person leaves; its exit code.
    pub(crate) async fn attached(self, client: &Client, how: &attach::Options) -> Result<u8> {
        let (record, shim) = (self.record.clone(), self.shim.clone());
        let ends = async {
            let frames = attach::Frames::connect(&client.paths.attach(&record.id)).await?;
            let stdin = if how.no_stdin { None } else { attach::open_stdin(client, &shim, &record).await? };
            Ok((frames, stdin))
        };
        let (frames, stdin) = match ends.await {
            Ok(ends) => ends,
            Err(error) => return Err(failed(client, self.lock, self.record, error).await),
        };
        events::container(&client.paths, "attach", &record, &[]);
        let session =
            attach::Session { shim: &shim, exec: "", frames, stdin, tty: record.config.tty, options: how.clone() };
        attach::finish_from(client, &record, session, async || self.go(client).await.map(drop)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_there_is_told_from_one_that_may_not_be_run() {
        for (message, kind) in [
            (r#"run program "nope": executable file not found in $PATH"#, Kind::CommandNotFound),
            (r#"exec: "nope": stat nope: no such file or directory: unknown"#, Kind::CommandNotFound),
            (r#"run program "nope": permission denied"#, Kind::CannotRun),
            (r#"run program "nope": is a directory"#, Kind::CannotRun),
            (r#"run program "nope": permission denied; it is a directory"#, Kind::CannotRun),
            (r#"run program "nope": not a directory"#, Kind::CommandNotFound),
            (r#"mount "/data": no such file or directory"#, Kind::Failed),
            ("the runtime takes too long", Kind::Failed),
        ] {
            assert_eq!(command_failure("nope", Error::failed(message)).kind, kind, "{message}");
        }
    }

    #[test]
    fn a_path_in_a_uri_is_encoded() {
        assert_eq!(encoded("/var/lib/a b?c#d%"), "/var/lib/a%20b%3Fc%23d%25");
    }
}
