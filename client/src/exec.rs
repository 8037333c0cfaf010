//! `exec`: one more process in a container that runs.
//!
//! It is the container's own process (of the bundle's `config.json`) with another command, environment, user and directory. Its output goes
//! to a socket as the container's does, so that a client that is killed holds it up no more than one that leaves.

mod notes;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use self::notes::Note;
use crate::apparmor;
use crate::attach::{self, Frames, Outcome, Session};
use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::paths::text;
use crate::record::{Container, Status};
use crate::shim::{Shim, Streams};
use crate::spec::capabilities;
use crate::terminal::{self, DetachKeys};
use crate::{events, records, root, start, truth, users};

/// How many ids are tried.
const ATTEMPTS: usize = 100;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name or id.
    pub container: String,
    /// With its arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE`, over the container's; `KEY` alone takes the container's away.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub user: String,
    /// Empty: the container's.
    pub working_dir: String,
    /// It has a terminal.
    pub tty: bool,
    /// What is typed goes to it.
    pub interactive: bool,
    /// Nobody looks on.
    pub detach: bool,
    /// The keys that leave it running.
    pub detach_keys: DetachKeys,
    /// It has all capabilities.
    pub privileged: bool,
}

/// The files of one exec, which go with whoever is at it, but for the note.
struct Files {
    id: String,
    socket: PathBuf,
    stdin: PathBuf,
    note: Note,
}

impl Files {
    /// Has the shim forget it.
    async fn delete(&self, shim: &Shim) -> Result<()> {
        let deleted = shim.delete(&self.id).await.map(drop);
        if deleted.is_ok() || deleted.as_ref().is_err_and(|error| error.kind == Kind::NotFound) {
            self.note.remove();
        }
        deleted
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // The socket is the shim's to remove; one that was killed leaves it to whoever removes the directory.
        let _ = std::fs::remove_file(&self.stdin);
    }
}

/// Runs a command in a container; its exit code, or 0 if nobody looks on or the person left.
///
/// # Errors
/// There is no such container, it does not run, or the command cannot be run.
pub async fn exec(client: &Client, request: &Request) -> Result<u8> {
    let record = truth::find(client, &request.container).await?;
    match record.state.status {
        Status::Running => {}
        Status::Paused => {
            return Err(Error::conflict(format!("container {} is paused: unpause it first", record.name)));
        }
        _ => return Err(Error::conflict(format!("container {} is not running: start it first", record.name))),
    }
    let Some(program) = request.command.first() else {
        return Err(Error::usage("exec needs a command: give one after the container"));
    };
    let process = process(client, &record, request)?;
    let shim = Shim::of(&record).await?;
    let words = request.command.join(" ");
    let files = add(client, &record, &shim, request, &process).await?;
    let execs = |action: &str| {
        events::container(&client.paths, &format!("{action}: {words}"), &record, &[("execID", &files.id)]);
    };
    execs("exec_create");
    let started = shim.start(&files.id).await;
    if let Err(error) = started {
        // Nothing of it stays.
        let _ = files.delete(&shim).await;
        return Err(start::command_failure(program, error));
    }
    execs("exec_start");
    if request.detach {
        return Ok(0);
    }
    look_on(&shim, request, &files).await
}

/// Adds the process to the shim, under an id that is free there.
async fn add(client: &Client, record: &Container, shim: &Shim, request: &Request, process: &Value) -> Result<Files> {
    let directory = client.paths.running(&record.id);
    notes::collect(shim, &directory).await;
    for _ in 0..ATTEMPTS {
        // Short: the socket's path has to be.
        let id = format!("x{}", &records::new_id()?[..5]);
        let note = Note::make(&directory, &id).map_err(|error| match error.kind {
            Kind::NotFound => Error::conflict(format!("container {} has just ended: start it first", record.name)),
            _ => error,
        })?;
        let Some(note) = note else { continue };
        let files = Files { socket: directory.join(&id), stdin: directory.join(format!("{id}-stdin")), id, note };
        let output = format!("json-file:///dev/null?attach={}&wait=true", start::encoded(&text(&files.socket)));
        let streams = if request.detach {
            Streams { terminal: request.tty, ..Streams::default() }
        } else {
            Streams {
                stdin: if request.interactive { text(&files.stdin) } else { String::new() },
                stderr: if request.tty { String::new() } else { output.clone() },
                stdout: output,
                terminal: request.tty,
            }
        };
        if !streams.stdin.is_empty() {
            mkfifo(&files.stdin, Mode::S_IRUSR | Mode::S_IWUSR)
                .context(|| format!("make {}", files.stdin.display()))?;
        }
        match shim.exec(&files.id, process, &streams).await {
            Ok(()) => return Ok(files),
            // Whether it knows of it is not known.
            Err(error) if error.kind == Kind::CutOff => return Err(error),
            Err(error) => {
                files.note.remove();
                if error.kind != Kind::Conflict {
                    return Err(error);
                }
            }
        }
    }
    Err(Error::failed(format!("add a process to container {}: {ATTEMPTS} ids were all taken", record.name)))
}

/// Looks on until it ends; its exit code. Nothing it has written yet is lost: it is held back until somebody looks on.
async fn look_on(shim: &Shim, request: &Request, files: &Files) -> Result<u8> {
    let frames = Frames::connect(&files.socket).await?;
    if let Some((columns, rows)) = terminal::size().filter(|_| request.tty) {
        // It may have ended already.
        let _ = shim.resize(&files.id, columns, rows).await;
    }
    let stdin = if request.interactive {
        let writer = attach::open_fifo(&files.stdin)?;
        if !request.tty {
            // From here on we alone hold it open: however we end, the process reads the end.
            let _ = shim.close_stdin(&files.id).await;
        }
        Some(writer)
    } else {
        None
    };
    let options = attach::Options { detach_keys: request.detach_keys.clone(), ..attach::Options::default() };
    let session = Session { shim, exec: &files.id, frames, stdin, tty: request.tty, options };
    let served = session.serve_from(async || Ok(()), async |_| files.delete(shim).await).await?;
    Ok(match served {
        Outcome::Ended(exit) => attach::exit_code(exit.code),
        Outcome::Left(code) => code,
    })
}

/// Runs a command with nobody at it, so long at most; how it ended, and the first bytes that it wrote.
///
/// # Errors
/// It cannot be run, or the time was over: then it was killed.
pub(crate) async fn captured(
    client: &Client,
    record: &Container,
    shim: &Shim,
    request: &Request,
    within: Duration,
    most: usize,
) -> Result<(i64, Vec<u8>)> {
    let process = process(client, record, request)?;
    let files = add(client, record, shim, request, &process).await?;
    let mut output = Vec::new();
    let ran = async {
        shim.start(&files.id).await?;
        let mut frames = Frames::connect(&files.socket).await?;
        let read = async {
            while let Ok(Some((_, bytes))) = frames.next().await {
                let left = most - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(left)]);
            }
        };
        let ended = async {
            let exit = shim.wait(&files.id).await?;
            files.delete(shim).await.map(|()| exit.code)
        };
        tokio::join!(ended, read).0
    };
    match tokio::time::timeout(within, ran).await {
        Ok(Ok(code)) => Ok((code, output)),
        Ok(Err(error)) => {
            // Nothing of it stays.
            let _ = files.delete(shim).await;
            Err(error)
        }
        Err(_) => {
            let _ = shim.kill(&files.id, nix::libc::SIGKILL).await;
            let _ = shim.wait(&files.id).await;
            let _ = files.delete(shim).await;
            Err(Error::failed(format!("it took longer than {} s", within.as_secs_f64())))
        }
    }
}

/// The container's own process, with what was asked for in its place.
fn process(client: &Client, record: &Container, request: &Request) -> Result<Value> {
    let path = client.paths.bundle(&record.id).join("config.json");
    let text = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    let mut config: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::failed(format!("read {}: {error}: restart the container", path.display())))?;
    let mut process = config["process"].take();
    process["args"] = json!(request.command);
    process["terminal"] = json!(request.tty);
    if let Some(process) = process.as_object_mut() {
        process.remove("consoleSize");
    }
    process["env"] = json!(environment(&process["env"], &request.env, request.tty));
    if !request.working_dir.is_empty() {
        if !request.working_dir.starts_with('/') {
            return Err(Error::usage(format!(
                "the working directory {:?} is no absolute path: give one that begins with /",
                request.working_dir
            )));
        }
        process["cwd"] = json!(request.working_dir);
    }
    if !request.user.is_empty() {
        let root = root::of_process(record.state.pid)?;
        let user = users::resolve(root.as_fd(), &request.user, &record.host_config.group_add)?;
        process["user"] = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
        if !request.env.iter().any(|it| it.starts_with("HOME=")) {
            set(&mut process["env"], "HOME", user.home.as_deref().unwrap_or("/"));
        }
    }
    if request.privileged {
        let all = capabilities::resolve(true, &[], &[], last_capability())?;
        process["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
        if process["apparmorProfile"].is_string() {
            process["apparmorProfile"] = json!(apparmor::UNCONFINED);
        }
    }
    Ok(process)
}

/// The highest number that the kernel knows.
fn last_capability() -> usize {
    let told = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    told.and_then(|it| it.trim().parse().ok()).unwrap_or(40)
}

/// The container's environment with what was asked for over it.
fn environment(containers: &Value, asked: &[String], tty: bool) -> Vec<String> {
    let mut environment: Vec<String> =
        containers.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect();
    if tty && !environment.iter().any(|it| it.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    for variable in asked {
        let name = variable.split('=').next().unwrap_or_default();
        environment.retain(|it| it.split('=').next() != Some(name));
        if variable.contains('=') {
            environment.push(variable.clone());
        }
    }
    environment
}

fn set(environment: &mut Value, name: &str, value: &str) {
    if let Some(environment) = environment.as_array_mut() {
        environment.retain(|it| it.as_str().is_none_or(|it| it.split('=').next() != Some(name)));
        environment.push(json!(format!("{name}={value}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_containers_with_what_was_asked_for() {
        let containers = json!(["PATH=/bin", "A=1", "B=2"]);
        let asked = ["A=3".to_owned(), "B".to_owned(), "C=".to_owned()];
        assert_eq!(environment(&containers, &asked, false), ["PATH=/bin", "A=3", "C="]);
        assert_eq!(environment(&containers, &[], true)[3], "TERM=xterm");
    }
}
