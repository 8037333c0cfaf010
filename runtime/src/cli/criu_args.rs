//! The flags of `checkpoint` and `restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;

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
    /// skip TCP connections that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// link unlinked files back where possible
    #[arg(long)]
    pub link_remap: bool,
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
