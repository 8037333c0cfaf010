//! The flags and arguments of every command, with the help texts.
//!
//! runc's own names and defaults; a doc comment of a field is its line of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum};

use super::values::{interval, root, signal, size, user};

/// Which way the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`.
    Text,
    /// One JSON object a line, with `level`, `msg` and `time`.
    Json,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// The runtime itself, in the cgroup file system.
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// Whether a cgroup that may not be written is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Found out from the user and its user namespace.
    Auto,
    /// The caller is not root in the eyes of the host.
    True,
    /// It is.
    False,
}

/// How `list` and `ps` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// The flags before the command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// enable debug logging
    #[arg(long)]
    pub debug: bool,
    /// set the log file to write to (default: standard error)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// set the log format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// root directory for storage of container state (default: $TARE_ROOT, or /run/tare, or $XDG_RUNTIME_DIR/tare when
    /// not root)
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(root))]
    root: Option<PathBuf>,
    /// accepted for runc's sake and ignored: criu is found in $PATH
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
    /// let systemd make the cgroups; cgroupsPath is then slice:prefix:name
    #[arg(long, conflicts_with = "cgroup_manager")]
    systemd_cgroup: bool,
    /// who makes the cgroups
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<CgroupManager>,
    /// ignore cgroup permission errors
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub rootless: Rootless,
    /// print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

impl Global {
    /// Who makes cgroups: the runtime itself unless a flag says otherwise.
    pub fn cgroup_manager(&self) -> CgroupManager {
        match self.cgroup_manager {
            Some(manager) => manager,
            None if self.systemd_cgroup => CgroupManager::Systemd,
            None => CgroupManager::Cgroupfs,
        }
    }

    /// Takes the root from the environment where no flag gave one.
    pub(super) fn or_root_of(mut self, environment: Option<OsString>) -> Result<Self, String> {
        if let (None, Some(path)) = (&self.root, environment) {
            self.root = Some(root(path.into()).map_err(|why| format!("$TARE_ROOT: {why}"))?);
        }
        Ok(self)
    }

    /// The directory of all state: `--root` or `$TARE_ROOT`, or a user's own runtime directory, or `/run/tare`.
    pub fn root(&self) -> PathBuf {
        if let Some(root) = &self.root {
            return root.clone();
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !dir.is_empty() && is_user() => PathBuf::from(dir).join("tare"),
            _ => PathBuf::from("/run/tare"),
        }
    }

    /// Whether the caller named the root.
    pub fn names_root(&self) -> bool {
        self.root.is_some()
    }
}

/// Whether the caller is a user of the host rather than its root: not root, or root only in a user namespace that a user
/// made (who then keeps their name in `$USER`).
fn is_user() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    let whole = |map: Vec<u8>| map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).eq(WHOLE_MAP);
    let in_namespace = std::fs::read("/proc/self/uid_map").is_ok_and(|map| !whole(map));
    in_namespace && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// The uid map of the host's own user namespace.
const WHOLE_MAP: [&[u8]; 3] = [b"0", b"0", b"4294967295"];

/// What `create` and `run` (and in part `restore`) share.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// path to the root of the bundle directory (default: the current directory)
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// path to an AF_UNIX socket that receives the master end of the console's pseudoterminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket that receives a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// the file to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// do not use pivot_root; needed where the rootfs is on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// do not create a new session keyring; the container inherits the caller's
    #[arg(long)]
    pub no_new_keyring: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// All that `create` takes.
    #[command(flatten)]
    pub create: CreateArgs,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub keep: bool,
    /// do not become the subreaper of the container's reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
}

/// A command whose only argument is the container.
#[derive(Args, Clone, Debug)]
pub struct IdArgs {
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// `delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// kill the container first if it is still running (SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// `kill`.
#[derive(Args, Clone, Debug)]
pub struct KillArgs {
    /// send the signal to all processes inside the container
    #[arg(short, long)]
    pub all: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
    /// the signal, by name or number
    #[arg(value_name = "signal", default_value = "SIGTERM", value_parser = signal)]
    pub signal: i32,
}

/// `exec`.
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// path to an AF_UNIX socket that receives the master end of the console's pseudoterminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// set an environment variable (NAME=VALUE); may be given several times
    #[arg(short, long, value_name = "ENV")]
    pub env: Vec<String>,
    /// allocate a pseudo-terminal
    #[arg(short, long)]
    pub tty: bool,
    /// the user, as <uid>[:<gid>]
    #[arg(short, long, value_name = "UID", value_parser = user)]
    pub user: Option<(u32, Option<u32>)>,
    /// an additional group id; may be given several times
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// path to a process.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// detach from the process
    #[arg(short, long)]
    pub detach: bool,
    /// the file to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// the SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// the AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// set no_new_privs for the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// add a capability to the process; may be given several times
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// pass N additional file descriptors to the process (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,
    /// run the process in an existing sub-cgroup: [<controller>[,…]:]<cgroup>; may be given several times
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Vec<String>,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// the name of the container, then the command and its arguments, verbatim
    #[arg(value_names = ["container-id", "command"], num_args = 1.., required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl ExecArgs {
    /// The name of the container.
    pub fn id(&self) -> &str {
        &self.words[0]
    }

    /// The command and its arguments, verbatim; empty with `--process`.
    pub fn command(&self) -> &[String] {
        &self.words[1..]
    }
}

/// `update`. What is absent stays as it is.
#[derive(Args, Clone, Debug)]
pub struct UpdateArgs {
    /// path to a JSON file of linux.resources, or '-' for standard input; every other flag but the RDT ones is then
    /// ignored
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// CFS period in microseconds
    #[arg(long, value_name = "USECS")]
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds a period, negative for none
    #[arg(long, value_name = "USECS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CFS time in microseconds that may be saved up beyond the quota
    #[arg(long, value_name = "USECS")]
    pub cpu_burst: Option<u64>,
    /// CPU shares (relative weight)
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// real-time period in microseconds
    #[arg(long, value_name = "USECS")]
    pub cpu_rt_period: Option<u64>,
    /// real-time run time in microseconds a period
    #[arg(long, value_name = "USECS", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// SCHED_IDLE for the whole cgroup: 0 or 1
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// memory limit in bytes (k, m, g, t, p are understood), -1 for none
    #[arg(long, value_name = "BYTES", value_parser = size, allow_negative_numbers = true)]
    pub memory: Option<i64>,
    /// soft memory limit in bytes
    #[arg(long, value_name = "BYTES", value_parser = size, allow_negative_numbers = true)]
    pub memory_reservation: Option<i64>,
    /// limit of memory and swap together in bytes, -1 for none
    #[arg(long, value_name = "BYTES", value_parser = size, allow_negative_numbers = true)]
    pub memory_swap: Option<i64>,
    /// accepted for runc's sake and ignored with a warning
    #[arg(long, value_name = "BYTES", hide = true)]
    pub kernel_memory: Option<String>,
    /// accepted for runc's sake and ignored with a warning
    #[arg(long, value_name = "BYTES", hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// greatest number of processes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT/CAT L3 cache schema
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT/MBA memory bandwidth schema
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// `list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// how to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// print the names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `ps`.
#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    /// how to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// the name of the container, then options of ps(1), verbatim
    #[arg(value_names = ["container-id", "ps options"], num_args = 1.., required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl PsArgs {
    /// The name of the container.
    pub fn id(&self) -> &str {
        &self.words[0]
    }

    /// The options for ps(1), verbatim.
    pub fn options(&self) -> &[String] {
        &self.words[1..]
    }
}

/// `spec`.
#[derive(Args, Clone, Debug)]
pub struct SpecArgs {
    /// path to the root of the bundle directory (default: the current directory)
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// write a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
}

/// `features`, which takes nothing.
#[derive(Args, Clone, Debug)]
pub struct FeaturesArgs {}

/// `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// time between two reports
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval)]
    pub interval: Duration,
    /// print the statistics once and exit
    #[arg(long)]
    pub stats: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}
