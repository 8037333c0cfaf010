//! `start`: what the daemon runs, in the bundle, to get a shim. It works out the socket of the container's group, forks the
//! process that serves it unless one answers there already, and prints where that is. Nothing else may reach stdout or stderr:
//! the daemon reads both as the answer.
//!
//! What is on stdin tells the daemons apart, not what they say of themselves:
//!
//! | daemon | stdin | environment | answer |
//! |---|---|---|---|
//! | containerd from 2.3 | `BootstrapParams` with the id and namespace of the flags | | `BootstrapResult`, version 3 |
//! | containerd 1.7 to 2.2 | `Any` of the runtime's options, or nothing | MAX_SHIM_VERSION=2 | JSON, version 2 |
//! | containerd 1.6 and before | the same | no MAX_SHIM_VERSION | the bare address |
//!
//! Why version 2 for all of the middle row: 1.7 refuses any above, and 2.0 to 2.2 send the same number, the same flags, the same
//! environment and the same bundle as it does, so nothing tells them apart (their own shim answers 3 regardless and can't be
//! started by 1.7). The version picks the name of the task service, and this server has both names. Beyond that, containerd 2.2
//! asks `start` again for each container of a pod instead of reusing the pod's address, which the group in `config.json`
//! answers with the same socket; only a container put into a sandbox without such an annotation gets a shim of its own there.
//! And it asks the shim to shut down after each container, which one with tasks ignores. Sandboxes and streams don't look at it.
//!
//! It leaves in the bundle: `address` (the answer, for daemons that come back and know no JSON), `s` (a link to the directory of
//! sockets, when the daemon named one).

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use protobuf::Message;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tare_proto::any::Packed;
use tare_proto::bootstrap::{BootstrapParams, BootstrapResult};
use tare_proto::{Any, runc, runtimeoptions};

use crate::args::Args;
use crate::error::{Context, Error, Kind, Result};
use crate::options::Options;
use crate::resident::Inheritance;
use crate::socket::{self, Claim};
use crate::sys::start::{Side, fork};

/// The most that is read from stdin.
const INPUT_LIMIT: u64 = 10 << 20;
/// The most that is read of a `config.json`.
const SPEC_LIMIT: u64 = 32 << 20;
/// Where sockets go when the daemon names no directory.
const SOCKETS: &str = "/run/containerd/s";
/// The link in the bundle to the directory of sockets.
const SOCKETS_LINK: &str = "s";

/// What the server process knows about its task from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The namespace of the daemon that everything here belongs to.
    pub namespace: String,
    /// The id of the first task, or of the sandbox.
    pub id: String,
    /// The daemon's gRPC address; what a publish binary is told.
    pub address: String,
    /// The daemon's ttrpc address; events go there. Empty when the daemon has none.
    pub ttrpc_address: String,
    /// The program to publish with when there is no ttrpc address. Empty when there is none.
    pub publish_binary: PathBuf,
    /// Log the details too.
    pub debug: bool,
    /// The bundle that the shim was started in, absolute.
    pub bundle: PathBuf,
    /// The socket that is served.
    pub socket: PathBuf,
}

/// What the daemon says through the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `TTRPC_ADDRESS`.
    pub ttrpc_address: String,
    /// `MAX_SHIM_VERSION` is there: containerd 1.7 or later.
    pub versioned: bool,
    /// `SCHED_CORE`: no other group of processes may share a core with this one.
    pub core_scheduling: bool,
}

impl Environment {
    /// This process's.
    pub fn read() -> Self {
        let text = |name| std::env::var(name).unwrap_or_default();
        Self {
            ttrpc_address: text("TTRPC_ADDRESS"),
            versioned: std::env::var_os("MAX_SHIM_VERSION").is_some(),
            core_scheduling: !text("SCHED_CORE").is_empty(),
        }
    }
}

/// In which form the daemon wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A `BootstrapResult`.
    Protobuf,
    /// An object with version, address and protocol.
    Json,
    /// The address and nothing else.
    Address,
}

/// All that a daemon says with a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose container it is.
    pub namespace: String,
    /// The container, or the sandbox.
    pub id: String,
    /// The daemon's gRPC address.
    pub address: String,
    /// Its ttrpc address, or nothing.
    pub ttrpc_address: String,
    /// Its program for events, or nothing.
    pub publish_binary: PathBuf,
    /// Log the details too.
    pub debug: bool,
    /// Where sockets shall be, if it cares.
    pub socket_dir: Option<PathBuf>,
    /// The cgroup that the shim itself shall be in, out of the options, which the shim need not understand to start; empty is
    /// none.
    pub shim_cgroup: Result<String>,
    /// How to answer.
    pub form: Form,
}

/// What `start` came to.
#[derive(Debug)]
pub enum Outcome {
    /// This is the caller's side: print this.
    Reply(Vec<u8>),
    /// This is the new process: serve.
    Serve(Box<Inheritance>),
}

/// Starts a shim for the bundle in the working directory, or finds the one of its group. Forks: it may return twice.
pub fn start(args: &Args) -> Result<Outcome> {
    let environment = Environment::read();
    let request = request(args, &environment, &input()?)?;
    let bundle = std::env::current_dir().context(|| "find the working directory, the bundle".to_owned())?;
    let directory = match &request.socket_dir {
        Some(directory) => {
            remember(&bundle, directory)?;
            directory.clone()
        }
        None => SOCKETS.into(),
    };
    let socket = directory.join(socket_name(&request.address, &request.namespace, &group(&bundle, &request.id)?));
    let address = format!("unix://{}", socket.display());
    let reply = reply(request.form, &address)?;
    let claim = socket::claim(&socket)?;
    // Before the fork, so that a failure is told, and after the claim, so that what stands there is served.
    let written = match request.form {
        Form::Protobuf => Ok(()),
        Form::Json | Form::Address => write_address(&bundle, &address),
    };
    let Claim::Ours(listening) = claim else {
        return written.map(|()| Outcome::Reply(reply));
    };
    // Of the daemon that called, which may be gone by the time the new process looks.
    let parents_score = oom_score(nix::unistd::getppid());
    match written.and_then(|()| fork().context(|| "start the shim's process".to_owned())) {
        Ok(Side::Caller) => Ok(Outcome::Reply(reply)),
        Ok(Side::New) => Ok(Outcome::Serve(Box::new(Inheritance {
            config: Config {
                namespace: request.namespace,
                id: request.id,
                address: request.address,
                ttrpc_address: request.ttrpc_address,
                publish_binary: request.publish_binary,
                debug: request.debug,
                bundle,
                socket,
            },
            listening,
            shim_cgroup: request.shim_cgroup,
            oom_score: parents_score.map(|score| score.saturating_add(1)),
            core_scheduling: environment.core_scheduling,
        }))),
        Err(error) => {
            // Nobody will serve it. The first failure is the one to tell.
            let _ = listening.entry.remove();
            Err(error)
        }
    }
}

/// What is on stdin; a terminal says nothing.
pub fn input() -> Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin.lock().take(INPUT_LIMIT + 1).read_to_end(&mut input).context(|| "read stdin".to_owned())?;
    }
    if input.len() as u64 > INPUT_LIMIT {
        return Err(Error::invalid(format!("what came on stdin is longer than {INPUT_LIMIT} bytes")));
    }
    Ok(input)
}

/// Reads what the daemon wants out of what it gave.
///
/// # Errors
/// There is no namespace or id, or stdin holds something that no daemon sends.
pub fn request(args: &Args, environment: &Environment, input: &[u8]) -> Result<Request> {
    for (value, flag) in [(&args.namespace, "-namespace"), (&args.id, "-id")] {
        if value.is_empty() {
            return Err(Error::invalid(format!("start needs {flag}")));
        }
    }
    let mut request = Request {
        namespace: args.namespace.clone(),
        id: args.id.clone(),
        address: args.address.clone(),
        ttrpc_address: environment.ttrpc_address.clone(),
        publish_binary: args.publish_binary.clone(),
        debug: args.debug,
        socket_dir: None,
        shim_cgroup: Ok(String::new()),
        form: if environment.versioned { Form::Json } else { Form::Address },
    };
    // The two messages have fields of the same numbers and types: only the names say which one it is.
    let params = BootstrapParams::parse_from_bytes(input)
        .ok()
        .filter(|params| params.instance_id == args.id && params.namespace == args.namespace);
    let Some(params) = params else {
        let options = Any::parse_from_bytes(input).map_err(|error| {
            Error::invalid(format!("what came on stdin is neither BootstrapParams nor a runtime's options: {error}"))
        })?;
        request.shim_cgroup = shim_cgroup(Some(&options));
        return Ok(request);
    };
    let options = params.extensions.iter().filter_map(|extension| extension.value.as_ref()).find(|any| is_options(any));
    request.shim_cgroup = shim_cgroup(options);
    request.form = Form::Protobuf;
    // LOG_LEVEL_DEBUG and all that is more.
    request.debug |= params.log_level.value() <= -4;
    request.socket_dir = params.socket_dir.filter(|directory| !directory.is_empty()).map(PathBuf::from);
    if let Some(directory) = &request.socket_dir
        && !directory.is_absolute()
    {
        return Err(Error::invalid(format!("socket_dir {} is not an absolute path", directory.display())));
    }
    for (value, place) in [
        (params.containerd_grpc_address, &mut request.address),
        (params.containerd_ttrpc_address, &mut request.ttrpc_address),
    ] {
        if !value.is_empty() {
            *place = value;
        }
    }
    if !params.containerd_binary.is_empty() {
        request.publish_binary = params.containerd_binary.into();
    }
    Ok(request)
}

fn is_options(any: &Any) -> bool {
    let name = any.type_url.rsplit('/').next();
    name == Some(runc::Options::TYPE_URL) || name == Some(runtimeoptions::Options::TYPE_URL)
}

fn shim_cgroup(options: Option<&Any>) -> Result<String> {
    Options::from_any(options).map(|options| options.shim_cgroup)
}

/// The answer in the form that the daemon understands.
pub fn reply(form: Form, address: &str) -> Result<Vec<u8>> {
    match form {
        Form::Address => Ok(address.as_bytes().to_vec()),
        Form::Json => Ok(serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"}).to_string().into()),
        Form::Protobuf => {
            let result = BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            };
            result.write_to_bytes().map_err(|error| Error::internal(format!("write the answer: {error}")))
        }
    }
}

/// The group of the container in this bundle: its own id, unless an annotation of its `config.json` puts it into one.
///
/// A sandbox without a container has no `config.json`.
pub fn group(bundle: &Path, id: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Spec {
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "io.containerd.runc.v2.group")]
        group: Option<String>,
        #[serde(rename = "io.kubernetes.cri.sandbox-id")]
        sandbox: Option<String>,
    }
    let path = bundle.join("config.json");
    let what = || format!("read {}", path.display());
    let mut text = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(id.to_owned()),
        file => file.and_then(|file| file.take(SPEC_LIMIT + 1).read_to_end(&mut text)).context(what)?,
    };
    if text.len() as u64 > SPEC_LIMIT {
        return Err(Error::invalid(format!("{} is longer than {SPEC_LIMIT} bytes", path.display())));
    }
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| Error::invalid(format!("{}: {error}", what())))?;
    let group = spec.annotations.and_then(|annotations| annotations.group.or(annotations.sandbox));
    Ok(group.unwrap_or_else(|| id.to_owned()))
}

/// The name of the group's socket: every shim of every make derives the same one.
pub fn socket_name(address: &str, namespace: &str, group: &str) -> String {
    let hash = Sha256::digest(join(&[address, namespace, group]));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the socket of the container in this bundle is, if it has one.
pub fn socket_of(bundle: &Path, address: &str, namespace: &str, id: &str) -> Result<PathBuf> {
    let directory = fs::read_link(bundle.join(SOCKETS_LINK)).unwrap_or_else(|_| SOCKETS.into());
    Ok(directory.join(socket_name(address, namespace, &group(bundle, id)?)))
}

/// Joins as Go's filepath.Join does: empty parts count for nothing, `.` and `..` are resolved without a look at the disk.
fn join(parts: &[&str]) -> String {
    let joined = parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let absolute = joined.starts_with('/');
    let mut clean: Vec<&str> = Vec::new();
    for name in joined.split('/') {
        match name {
            "" | "." => {}
            ".." if clean.last().is_some_and(|last| *last != "..") => {
                clean.pop();
            }
            ".." if absolute => {}
            name => clean.push(name),
        }
    }
    match (absolute, joined.is_empty(), clean.is_empty()) {
        (true, ..) => format!("/{}", clean.join("/")),
        (false, true, _) => String::new(),
        (false, false, true) => ".".to_owned(),
        (false, false, false) => clean.join("/"),
    }
}

/// Links to the directory of sockets in the bundle, for the clean-up that is told of none.
fn remember(bundle: &Path, directory: &Path) -> Result<()> {
    let link = bundle.join(SOCKETS_LINK);
    replace(&link, |fresh| symlink(directory, fresh))
        .context(|| format!("link {} to {}", link.display(), directory.display()))
}

/// Writes the address where daemons look for it that come back.
fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let path = bundle.join("address");
    let write = |fresh: &Path| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(fresh)?;
        file.write_all(address.as_bytes())
    };
    replace(&path, write).context(|| format!("write {}", path.display()))
}

/// Makes a file beside this one, then puts it there in one step: nobody sees half of it, and another start at the same time
/// does not come between.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}~", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&fresh).and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&fresh);
    })
}

/// How soon the kernel kills this process when memory is short.
pub(crate) fn oom_score(pid: nix::unistd::Pid) -> Result<i32> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let text = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    text.trim().parse().map_err(|_| Error::new(Kind::Internal, format!("{path} holds {text:?}, not a number")))
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
