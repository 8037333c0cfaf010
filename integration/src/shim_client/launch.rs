//! What the daemon runs: the shim's program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tare_proto::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use tare_proto::task_v3::DeleteResponse;
use tare_proto::types::RuntimeInfo;
use tare_proto::{Any, Message, MessageField};

use crate::wait;

/// How the daemon tells `start` what it must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Since containerd 2.3: parameters on standard input, a result on standard output, both protobuf.
    Params,
    /// Before: the options on standard input, an address on standard output, as text or within JSON.
    Options,
}

/// What the daemon says to a shim's program. [`Launch::new`] fills in what seldom matters.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub shim: PathBuf,
    /// The daemon's namespace.
    pub namespace: String,
    /// The container's or sandbox's id.
    pub id: String,
    /// The bundle's directory, in which `start` runs.
    pub bundle: PathBuf,
    /// In which form.
    pub bootstrap: Bootstrap,
    /// The runtime's options.
    pub options: Option<Any>,
    /// The daemon's gRPC socket, of which only the name matters.
    pub address: PathBuf,
    /// Its ttrpc socket, where events go.
    pub events: Option<PathBuf>,
    /// Its program, which publishes events when it has no ttrpc socket.
    pub publish_binary: PathBuf,
    /// Where the shim's socket is to lie. Daemons before 2.3 cannot say it.
    pub socket_dir: Option<PathBuf>,
    /// Whether it shall log the details.
    pub debug: bool,
    /// Whether nobody shall see what `delete` says beside its answer.
    pub quiet: bool,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Where a started shim listens.
#[derive(Debug)]
pub struct Started {
    /// `unix://` and a path.
    pub address: String,
    /// The version of its task service.
    pub version: i32,
    /// `ttrpc`.
    pub protocol: String,
    /// All that `start` wrote.
    pub output: Vec<u8>,
    /// Our end of the fifo for the shim's log. When it is dropped, the shim writes into the void.
    pub log: File,
    launch: Launch,
}

impl Started {
    /// What the shim has logged and nobody has read yet. Its log is a pipe, and holds no more than that does.
    pub fn read_log(&mut self) -> String {
        let mut text = Vec::new();
        // Ends with "would block": we hold the other end too.
        let _ = self.log.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A failed test leaves no shim and no container behind.
impl Drop for Started {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("the shim's log: {}", self.read_log());
        let path = self.address.trim_start_matches("unix://");
        let peer = UnixStream::connect(path).ok().and_then(|it| getsockopt(&it, PeerCredentials).ok());
        if let Some(peer) = peer {
            let _ = kill(Pid::from_raw(peer.pid()), Signal::SIGKILL);
        }
        let _ = self.launch.delete();
        let _ = fs::remove_file(path);
    }
}

impl Launch {
    /// The form of containerd 2.3, in the namespace `default`.
    pub fn new(shim: &Path, id: &str, bundle: &Path) -> Launch {
        Launch {
            shim: shim.to_owned(),
            namespace: "default".to_owned(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            bootstrap: Bootstrap::Params,
            options: None,
            address: bundle.join("daemon.sock"),
            events: None,
            publish_binary: PathBuf::from("/nonexistent/publish"),
            socket_dir: None,
            debug: false,
            quiet: false,
            environment: Vec::new(),
        }
    }

    /// Makes the fifo for the shim's log, and opens it.
    pub fn open_log(&self) -> io::Result<File> {
        match nix::unistd::mkfifo(&self.bundle.join("log"), Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
        // For writing too, so that it can be opened with nobody at the other end.
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(self.bundle.join("log"))
    }

    /// Runs `start`. The error has what the shim wrote.
    ///
    /// # Panics
    /// If the shim's server keeps the standard output of `start` open: the daemon would wait for ever.
    pub fn start(&self) -> io::Result<Started> {
        // The shim opens it too, and waits until somebody has it open for reading.
        let log = self.open_log()?;
        let mut command = self.command();
        command.arg("start").current_dir(&self.bundle);
        let output = run(command, &self.input()?, None)?;
        let (version, address, protocol) = match self.bootstrap {
            Bootstrap::Params => {
                let result = BootstrapResult::parse_from_bytes(&output).map_err(io::Error::other)?;
                (result.version, result.address, result.protocol)
            }
            Bootstrap::Options => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(json) => (
                        json["version"].as_i64().and_then(|it| it.try_into().ok()).unwrap_or(2),
                        json["address"].as_str().unwrap_or_default().to_owned(),
                        json["protocol"].as_str().unwrap_or_default().to_owned(),
                    ),
                    Err(_) => (2, text, "ttrpc".to_owned()),
                }
            }
        };
        Ok(Started { address, version, protocol, output, log, launch: self.clone() })
    }

    /// Runs `delete`, as the daemon does after each task and for a shim that is gone.
    pub fn delete(&self) -> io::Result<DeleteResponse> {
        let mut command = self.command();
        command.arg("-bundle").arg(&self.bundle).arg("delete").current_dir(&self.bundle);
        let stderr = if self.quiet { Stdio::null() } else { Stdio::inherit() };
        DeleteResponse::parse_from_bytes(&run(command, &[], Some(stderr))?).map_err(io::Error::other)
    }

    /// Runs `-info`.
    pub fn info(&self) -> io::Result<RuntimeInfo> {
        let mut command = Command::new(&self.shim);
        command.arg("-info");
        let input = self.options.as_ref().map(Message::write_to_bytes).transpose().map_err(io::Error::other)?;
        RuntimeInfo::parse_from_bytes(&run(command, &input.unwrap_or_default(), Some(Stdio::inherit()))?)
            .map_err(io::Error::other)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.shim);
        command.arg("-namespace").arg(&self.namespace).arg("-address").arg(&self.address);
        command.arg("-publish-binary").arg(&self.publish_binary).arg("-id").arg(&self.id);
        if self.debug {
            command.arg("-debug");
        }
        command.env_remove("TTRPC_ADDRESS");
        if let Some(events) = &self.events {
            command.env("TTRPC_ADDRESS", events);
        }
        command.env("GRPC_ADDRESS", &self.address).env("NAMESPACE", &self.namespace);
        command.env("MAX_SHIM_VERSION", "2").env("GOMAXPROCS", "2");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn input(&self) -> io::Result<Vec<u8>> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(io::ErrorKind::InvalidInput);
        let bytes = match self.bootstrap {
            Bootstrap::Options => self.options.as_ref().map_or(Ok(Vec::new()), Message::write_to_bytes),
            Bootstrap::Params => BootstrapParams {
                instance_id: self.id.clone(),
                namespace: self.namespace.clone(),
                log_level: if self.debug {
                    tare_proto::bootstrap::LogLevel::LOG_LEVEL_DEBUG.into()
                } else {
                    tare_proto::bootstrap::LogLevel::LOG_LEVEL_INFO.into()
                },
                containerd_version: "v2.3.4".to_owned(),
                containerd_ttrpc_address: self.events.as_deref().map_or(Ok(String::new()), text)?,
                containerd_grpc_address: text(&self.address)?,
                containerd_binary: text(&self.publish_binary)?,
                extensions: self
                    .options
                    .iter()
                    .map(|it| Extension { value: MessageField::some(it.clone()), ..Default::default() })
                    .collect(),
                socket_dir: self.socket_dir.as_deref().map(text).transpose()?,
                ..Default::default()
            }
            .write_to_bytes(),
        };
        bytes.map_err(io::Error::other)
    }
}

/// Runs one of the shim's commands and returns what came out of it; without a standard error of its own that is in the same
/// pipe, as the daemon has it for `start`.
fn run(mut command: Command, input: &[u8], stderr: Option<Stdio>) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = io::pipe()?;
    let what = command.get_args().last().unwrap_or_default().to_string_lossy().into_owned();
    let stderr = stderr.map_or_else(|| writer.try_clone().map(Stdio::from), Ok)?;
    let mut child = command.stdin(Stdio::piped()).stdout(writer).stderr(stderr).spawn()?;
    // With it go the ends of the pipe that the command holds.
    drop(command);
    // A shim may answer without having read all of it.
    let _ = child.stdin.take().expect("a pipe was asked for").write_all(input);
    let until = wait::deadline();
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // A `delete` of the containers of a shim that was killed: their processes are left to us as they are to a daemon.
        if !wait::readable_while_reaping(reader.as_fd(), until) {
            let _ = child.kill();
            let state = child.wait()?;
            panic!("{what} of the shim does not come to its end ({state}), or something keeps its output open");
        }
        match reader.read(&mut buffer)? {
            0 => break,
            count => output.extend_from_slice(&buffer[..count]),
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!("{what} of the shim: {status}: {}", String::from_utf8_lossy(&output))))
}
