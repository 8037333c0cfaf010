//! The command line: runc's own spelling of every command, flag, alias and default.
//!
//! It is read in two steps, so that an argument error of a command already reaches the log file the global flags name,
//! and so that only the command in use is built: [`globals`] reads what stands before the command and returns a
//! [`Line`]; [`Line::command`] reads the rest. Both may answer with a text to print (help, version) instead.
//!
//! Callers write flags as Go programs read them: `-root x` is `--root x`, `--detach=false` is no flag at all. What clap
//! reads otherwise is rewritten first ([`go_style`]). This module knows nothing of what a command does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, FromArgMatches, ValueEnum};

use crate::error::{Error, Kind, Result};

/// The version of the runtime-spec this program implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// What `--version` prints after the program's name; dockerd and go-runc read these lines.
const VERSION: &str =
    concat!("version ", env!("CARGO_PKG_VERSION"), "\ncommit: ", env!("TARE_COMMIT"), "\nspec: 1.3.0");

const ABOUT: &str = "an OCI runtime for Linux containers";

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

/// How criu handles cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ManageCgroups {
    /// Restores only the cgroups that are missing.
    Soft,
    /// Restores all of them and their properties.
    Full,
    /// Refuses when one exists.
    Strict,
    /// Leaves them alone.
    Ignore,
}

/// A namespace that criu makes but leaves empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmptyNamespace {
    /// The network namespace.
    Network,
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
    /// root directory for storage of container state (default: /run/tare, or $XDG_RUNTIME_DIR/tare when not root)
    #[arg(long, value_name = "DIR")]
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

    /// The directory of all state: `--root`, or the user's own runtime directory when not root, or `/run/tare`.
    pub fn root(&self) -> PathBuf {
        if let Some(root) = &self.root {
            return root.clone();
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !dir.is_empty() && !nix::unistd::geteuid().is_root() => PathBuf::from(dir).join("tare"),
            _ => PathBuf::from("/run/tare"),
        }
    }
}

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
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// print the statistics once and exit
    #[arg(long)]
    pub stats: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// What `checkpoint` and `restore` share: how criu works.
#[derive(Args, Clone, Debug)]
pub struct CriuArgs {
    /// directory of criu's image files (default: checkpoint in the current directory)
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// directory of criu's work files and logs
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// close open TCP connections
    #[arg(long)]
    pub tcp_close: bool,
    /// allow external unix sockets
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// allow shell jobs
    #[arg(long)]
    pub shell_job: bool,
    /// handle file locks
    #[arg(long)]
    pub file_locks: bool,
    /// use userfaultfd for memory pages
    #[arg(long)]
    pub lazy_pages: bool,
    /// how cgroups are handled (default: soft)
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<ManageCgroups>,
    /// create a namespace but do not restore its properties; may be given several times
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<EmptyNamespace>,
    /// deduplicate memory images
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `checkpoint`.
#[derive(Args, Clone, Debug)]
pub struct CheckpointArgs {
    /// How criu works.
    #[command(flatten)]
    pub criu: CriuArgs,
    /// directory of an earlier pre-dump, relative to the image path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// leave the processes running
    #[arg(long)]
    pub leave_running: bool,
    /// criu writes \0 to this fd once lazy-pages is ready
    #[arg(long, value_name = "FD", default_value_t = -1, allow_negative_numbers = true, hide_default_value = true)]
    pub status_fd: i32,
    /// ADDRESS:PORT of the page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// dump memory only and leave the container running
    #[arg(long)]
    pub pre_dump: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// `restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// All that `run` takes.
    #[command(flatten)]
    pub run: RunArgs,
    /// How criu works.
    #[command(flatten)]
    pub criu: CriuArgs,
    /// an LSM profile for the restore, as TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// an LSM mount context for the restore
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
}

/// `completion`.
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// bash, zsh or fish
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// the directory to write the pages to
    pub dir: PathBuf,
}

/// The commands in one table: variant, arguments, name, line of help, and who may see it.
macro_rules! commands {
    ($($variant:ident($args:ty) $name:literal $about:literal $(, $hidden:ident)?;)*) => {
        /// A command with its arguments.
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant)] // one value exists, for the life of the program
        pub enum Command {
            $(#[doc = $about] $variant($args),)*
        }

        impl Command {
            /// The definition of one command, without the others; `None` if there is none of that name.
            fn definition(name: &str) -> Option<clap::Command> {
                match name {
                    $($name => Some(<$args>::augment_args(clap::Command::new($name).about($about))
                        $(.$hidden(true))?),)*
                    _ => None,
                }
            }

            /// The command `name` from what clap read for it.
            fn from_matches(name: &str, matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                match name {
                    $($name => <$args>::from_arg_matches(matches).map(Self::$variant),)*
                    _ => Err(clap::Error::new(ErrorKind::InvalidSubcommand)),
                }
            }
        }

        const NAMES: &[&str] = &[$($name),*];
    };
}

commands! {
    Checkpoint(CheckpointArgs) "checkpoint" "checkpoint a running container";
    Create(CreateArgs) "create" "create a container";
    Delete(DeleteArgs) "delete" "delete any resources held by the container";
    Events(EventsArgs) "events" "display container events such as OOM notifications, cpu, memory, and IO usage statistics";
    Exec(ExecArgs) "exec" "execute a new process inside the container";
    Features(FeaturesArgs) "features" "show the enabled features";
    Kill(KillArgs) "kill" "send a signal (default: SIGTERM) to the container's init process";
    List(ListArgs) "list" "list the containers of the given root";
    Pause(IdArgs) "pause" "suspend all processes inside the container";
    Ps(PsArgs) "ps" "display the processes running inside a container";
    Restore(RestoreArgs) "restore" "restore a container from a previous checkpoint";
    Resume(IdArgs) "resume" "resume all processes that have been paused";
    Run(RunArgs) "run" "create and run a container";
    Spec(SpecArgs) "spec" "create a new specification file";
    Start(IdArgs) "start" "execute the user-defined process in a created container";
    State(IdArgs) "state" "output the state of a container";
    Update(UpdateArgs) "update" "update container resource constraints";
    Completion(CompletionArgs) "completion" "print a completion script for a shell", hide;
    Man(ManArgs) "man" "write the manual pages", hide;
}

/// What the command line asks for: a text (help, version) or something to do.
#[derive(Debug)]
pub enum Asked<T> {
    /// To be printed on standard output; the exit status is then 0.
    Text(String),
    /// To be done.
    For(T),
}

/// A command line whose global flags are read; the command's own arguments are not yet.
#[derive(Debug)]
pub struct Line {
    /// The flags before the command.
    pub global: Global,
    name: String,
    rest: Vec<OsString>,
}

/// Reads the global flags and the name of the command. `args` begins with the program's own name.
pub fn globals(args: impl IntoIterator<Item = OsString>) -> Result<Asked<Line>> {
    let definition = program().allow_external_subcommands(true);
    let args = go_style(&definition, args.into_iter().collect());
    let matches = match definition.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return Ok(Asked::Text(error.to_string())),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Asked::Text(help(&[])?)),
        Err(error) => return Err(sentence(&error, "tare")),
    };
    let global = Global::from_arg_matches(&matches).map_err(|error| sentence(&error, "tare"))?;
    let Some((name, rest)) = matches.subcommand() else {
        return Ok(Asked::Text(help(&[])?));
    };
    let rest: Vec<OsString> = rest.get_many::<OsString>("").into_iter().flatten().cloned().collect();
    match name {
        "help" | "h" => Ok(Asked::Text(help(&rest)?)),
        _ => Ok(Asked::For(Line { name: name.to_owned(), global, rest })),
    }
}

impl Line {
    /// Reads the command's own arguments.
    pub fn command(self) -> Result<Asked<Command>> {
        let name = self.name;
        let Some(definition) = Command::definition(&name) else {
            return Err(Error::invalid(format!("no such command: {name} (tare --help lists them)")));
        };
        let definition = definition.bin_name(format!("tare {name}"));
        let program = std::iter::once(OsString::from(&name));
        let args = go_style(&definition, program.chain(self.rest).collect());
        let read = definition.try_get_matches_from(args).and_then(|found| Command::from_matches(&name, &found));
        match read {
            Ok(command) => Ok(Asked::For(command)),
            Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Asked::Text(error.to_string())),
            Err(error) => Err(sentence(&error, &format!("tare {name}"))),
        }
    }
}

/// The program with its global flags and no command.
fn program() -> clap::Command {
    Global::augment_args(clap::Command::new("tare").about(ABOUT).version(VERSION).disable_version_flag(true))
}

/// The whole definition, as help, completions and manual pages need it.
pub fn tree() -> clap::Command {
    program().subcommand_required(true).subcommands(NAMES.iter().filter_map(|name| Command::definition(name)))
}

/// The help of the program, or of the command `words` names.
fn help(words: &[OsString]) -> Result<String> {
    let mut tree = tree();
    tree.build();
    match words.first() {
        None => Ok(tree.render_help().to_string()),
        Some(word) => match word.to_str().and_then(|name| tree.find_subcommand_mut(name)) {
            Some(command) => Ok(command.render_help().to_string()),
            None => Err(Error::invalid(format!("no such command: {}", word.display()))),
        },
    }
}

/// Rewrites what Go's flag package reads differently from clap: long flags after one dash, and `=true` or `=false` after
/// a switch. `args` begins with the program's name. Arguments after `--`, and those a command takes verbatim, stay.
fn go_style(definition: &clap::Command, args: Vec<OsString>) -> Vec<OsString> {
    // Almost no caller needs it, and walking costs more than looking.
    let odd = |arg: &OsString| {
        let bytes = arg.as_bytes();
        bytes.starts_with(b"-") && bytes.len() > 2 && (bytes[1] != b'-' || bytes.contains(&b'='))
            || bytes == b"--rootless"
    };
    if !args.iter().skip(1).any(odd) {
        return args;
    }
    let ends_at_word = definition.is_allow_external_subcommands_set()
        || definition.get_positionals().any(clap::Arg::is_trailing_var_arg_set);
    let mut out = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    out.extend(args.next());
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" || (ends_at_word && !bytes.starts_with(b"-")) {
            out.push(arg);
            break;
        }
        let Some((name, value)) = flag(bytes) else {
            out.push(arg);
            continue;
        };
        let known = definition.get_arguments().find(|known| {
            known.get_long().is_some_and(|long| long.as_bytes() == name)
                || (name.len() == 1 && known.get_short() == Some(char::from(name[0])))
        });
        let Some(known) = known else {
            out.push(if name == b"help" { "--help".into() } else { arg });
            continue;
        };
        let dashes: &[u8] = if name.len() == 1 { b"-" } else { b"--" };
        let plain = OsString::from_vec([dashes, name].concat());
        let switch = !known.get_action().takes_values();
        match value {
            Some(b"false" | b"False" | b"FALSE" | b"f" | b"F" | b"0") if switch => {}
            Some(b"true" | b"True" | b"TRUE" | b"t" | b"T" | b"1") if switch => out.push(plain),
            Some(value) => out.push(OsString::from_vec([plain.as_bytes(), b"=", value].concat())),
            // runc's --rootless wants a value, ours may stand alone: a following word is its value only if it is one.
            None if name == b"rootless" && !switch => match args.next_if(|next| rootless(next).is_some()) {
                Some(value) => out.push(OsString::from_vec([plain.as_bytes(), b"=", value.as_bytes()].concat())),
                None => out.push(plain),
            },
            None => {
                out.push(plain);
                if !switch {
                    out.extend(args.next());
                }
            }
        }
    }
    out.extend(args);
    out
}

fn rootless(word: &OsStr) -> Option<Rootless> {
    Rootless::from_str(word.to_str()?, false).ok()
}

/// Splits `-name`, `--name`, `-name=value` or `--name=value`; `None` for a word.
fn flag(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let rest = bytes.strip_prefix(b"-")?;
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    if rest.is_empty() {
        return None;
    }
    Some(match rest.iter().position(|&byte| byte == b'=') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    })
}

/// What clap found wrong, as one sentence.
fn sentence(error: &clap::Error, program: &str) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let arg = text(ContextKind::InvalidArg);
    let value = text(ContextKind::InvalidValue);
    let what = match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("unknown flag {arg}"),
        ErrorKind::UnknownArgument => format!("one argument too many: {arg}"),
        ErrorKind::MissingRequiredArgument => format!("{arg} is missing"),
        ErrorKind::ArgumentConflict => format!("{arg} cannot be used with {}", text(ContextKind::PriorArg)),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues if value.is_empty() => format!("{arg} needs a value"),
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => {
                format!("{arg}: {value:?} is not one of {}", valid.join(", "))
            }
            _ => format!("{arg}: {value:?} is not valid"),
        },
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(cause) => format!("{arg}: {value:?}: {cause}"),
            None => format!("{arg}: {value:?} is not valid"),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        // The first line of clap's own text is a whole sentence.
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Error::new(Kind::Invalid, format!("{program}: {what}"))
}

/// A signal by number, or by name with or without `SIG`, in either case; `RTMIN+n` and `RTMAX-n` too.
fn signal(text: &str) -> Result<i32, String> {
    let unknown = || "no such signal".to_owned();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // 0 sends nothing and only asks whether the process is there.
        return text.parse().ok().filter(|number| (0..=libc::SIGRTMAX()).contains(number)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char, base: i32, direction: i32| {
        let offset = match rest.strip_prefix(sign) {
            Some(digits) => digits.parse::<u8>().ok()?,
            None if rest.is_empty() => 0,
            None => return None,
        };
        let number = base + direction * i32::from(offset);
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, '+', libc::SIGRTMIN(), 1).ok_or_else(unknown);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, '-', libc::SIGRTMAX(), -1).ok_or_else(unknown);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        "UNUSED" => "SYS",
        other => other,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

/// `<uid>[:<gid>]`: numbers only, each a u32, nothing else.
fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |what: &str, digits: &str| {
        // `parse` would let a sign through.
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain).ok_or_else(|| format!("the {what} is not a number from 0 to 4294967295"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number("uid", uid)?, Some(number("gid", gid)?))),
        None => Ok((number("uid", text)?, None)),
    }
}

/// A size in bytes as go-units reads it: `64m`, `1.5GiB`, `4096`; `-1` is no limit.
fn size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || "not a size such as 4096, 64m or 1.5g".to_owned();
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start_matches(' ').to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        "p" | "pb" | "pi" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let factor = 1_i64 << shift;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor).ok_or_else(|| "too large".to_owned());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    if bytes >= i64::MAX as f64 { Err("too large".to_owned()) } else { Ok(bytes as i64) }
}

/// A duration as Go writes it: `5s`, `1m30s`, `500ms`, `1.5h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration such as 5s, 500ms or 1m30s".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = &rest[end..];
        let unit = &unit[..unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| "too long".to_owned())?;
        total = total.checked_add(part).ok_or_else(|| "too long".to_owned())?;
        rest = &rest[end + unit.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests;
