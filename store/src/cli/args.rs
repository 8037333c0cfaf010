//! The words of the command line: the daemon, and what moves or looks at whole images.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::args_parts::{Content, Diff, Lease, Namespace, Search, Snapshot, Tags};
use crate::config::ServeArgs;

/// A content-addressed store of images and snapshots: the daemon, and a client for each of its calls.
#[derive(Parser, Debug)]
#[command(name = "tare-store", version, after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.")]
pub struct Cli {
    /// The daemon's socket [env: TARE_STORE_SOCKET] [default: /run/tare-store/ttrpc.sock, or below $XDG_RUNTIME_DIR for other users]
    #[arg(long, short = 's', global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The containerd namespace [env: TARE_STORE_NAMESPACE or CONTAINERD_NAMESPACE] [default: default]
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Answer in JSON: one document; with progress, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant)] // one value exists, for the life of the program
pub enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Fetch an image from its registry, verify and unpack it
    Pull(Pull),
    /// Send an image to a registry
    Push(Push),
    /// List images
    #[command(visible_alias = "ls")]
    Images(Images),
    /// Remove names of images
    Rmi(Rmi),
    /// Give an image one more name
    Tag(Tag),
    /// Show everything that is known of an image
    Inspect(Inspect),
    /// Take images from an archive (OCI or docker), a directory (OCI layout), or standard input
    Import(Import),
    /// Write images as an archive that is both OCI and docker, to a file or to standard output
    Export(Export),
    /// Make an image of what changed in a snapshot
    Commit(Commit),
    /// Unpack an image that is here
    Unpack(Unpack),
    /// Blobs
    #[command(subcommand)]
    Content(Content),
    /// Snapshots
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(Snapshot),
    /// Leases: what is not to be collected
    #[command(subcommand, visible_alias = "leases")]
    Lease(Lease),
    /// Layers onto snapshots, and snapshots to layers
    #[command(subcommand)]
    Diff(Diff),
    /// Namespaces
    #[command(subcommand, visible_alias = "namespaces")]
    Namespace(Namespace),
    /// Remove what nothing refers to
    Gc(Gc),
    /// Show what takes how much disk
    Df(Df),
    /// Read everything again and compare it with its digest
    Fsck(Fsck),
    /// List what refers to an image: signatures, attestations, artifacts
    Referrers(Referrers),
    /// List the tags that a repository has at its registry
    Tags(Tags),
    /// Look for images at a registry by a word of theirs
    Search(Search),
    /// Try credentials at a registry, and keep them in docker's config.json
    Login(Login),
    /// Forget a registry's credentials
    Logout(Logout),
    /// Show what the daemon is
    Info,
}

/// Of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ServeArgs,
    /// What to log: error, warn, info, debug or trace [env: TARE_STORE_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Which image of an index.
#[derive(Args, Debug, Default)]
pub struct Platform {
    /// For this platform, as os/architecture or os/architecture/variant [default: this host's]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all_platforms")]
    pub platform: Option<String>,
    /// For all platforms
    #[arg(long)]
    pub all_platforms: bool,
}

/// How a registry is reached.
#[derive(Args, Debug, Default)]
pub struct Registry {
    /// Speak HTTP; without it only loopback addresses are spoken to without TLS
    #[arg(long)]
    pub plain_http: bool,
    /// Believe any certificate
    #[arg(long)]
    pub skip_verify: bool,
    /// Log in as this user [default: as in docker's config.json]
    #[arg(long, short = 'u', value_name = "USER")]
    pub user: Option<String>,
    /// Read the password from standard input; without it, it is asked for
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// Docker's config.json [default: $DOCKER_CONFIG/config.json or ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub docker_config: Option<PathBuf>,
}

/// Of `pull`.
#[derive(Args, Debug)]
pub struct Pull {
    /// The image, as in debian:12 or registry.example/team/app@sha256:…
    pub reference: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub platform: Platform,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
    /// Only fetch; make no snapshots
    #[arg(long)]
    pub no_unpack: bool,
    /// Unpack for this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// A label for the image; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Keep no compressed layer that is unpacked
    #[arg(long)]
    pub discard_blobs: bool,
    /// Leave out layers that must not be distributed
    #[arg(long)]
    pub skip_foreign_layers: bool,
    /// Fetch also what refers to the image
    #[arg(long)]
    pub referrers: bool,
}

/// Of `push`.
#[derive(Args, Debug)]
pub struct Push {
    /// The image here
    pub source: String,
    /// Its name there [default: the same]
    pub target: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub platform: Platform,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}

/// Of `images`.
#[derive(Args, Debug)]
pub struct Images {
    /// Only those that match one of these, as in name~=debian or 'labels."a"==b'
    pub filters: Vec<String>,
    /// Names only
    #[arg(long)]
    pub names: bool,
}

/// Of `rmi`.
#[derive(Args, Debug)]
pub struct Rmi {
    /// Their names
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Remove at once what only these names led to
    #[arg(long)]
    pub sync: bool,
}

/// Of `tag`.
#[derive(Args, Debug)]
pub struct Tag {
    /// A name, a digest, or the beginning of a digest
    pub source: String,
    /// The new name
    pub target: String,
    /// Move a name that is taken
    #[arg(long, short)]
    pub force: bool,
}

/// A document of an image.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The manifest
    Manifest,
    /// The configuration
    Config,
}

/// Of `inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// A name, a digest, or the beginning of a digest
    pub image: String,
    /// For this platform [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// For this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// One document, byte for byte
    #[arg(long, value_name = "WHICH")]
    pub raw: Option<Document>,
}

/// Of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// A file, a directory, or - for standard input
    #[arg(default_value = "-")]
    pub path: PathBuf,
    /// Name for an image that the archive gives none
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub platform: Platform,
    /// Only take in; make no snapshots
    #[arg(long)]
    pub no_unpack: bool,
    /// Unpack for this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// A label for the images; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
}

/// Of `export`.
#[derive(Args, Debug)]
pub struct Export {
    /// Images
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Write to this file, or - for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Write an OCI layout into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub platform: Platform,
    /// Leave out what only docker load reads
    #[arg(long)]
    pub oci_only: bool,
}

/// Of `commit`.
#[derive(Args, Debug)]
pub struct Commit {
    /// The active snapshot whose changes become a layer
    pub snapshot: String,
    /// The new image's name [default: none but its digest]
    pub name: Option<String>,
    /// The image it came from
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,
    /// The snapshot's snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// Who made it
    #[arg(long, short)]
    pub author: Option<String>,
    /// What was done
    #[arg(long, short)]
    pub message: Option<String>,
    /// What made the layer, for the history
    #[arg(long, value_name = "COMMAND")]
    pub created_by: Option<String>,
    /// A file with the new configuration: JSON of an OCI image's `config`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Seconds since 1970 for all times, and the latest time of a file [env: SOURCE_DATE_EPOCH]
    #[arg(long, value_name = "SECONDS")]
    pub source_date: Option<i64>,
    /// gzip, zstd or none
    #[arg(long, value_name = "HOW")]
    pub compression: Option<String>,
    /// The image's platform [default: the base's, or this host's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Add to the history only, and no layer
    #[arg(long)]
    pub empty_layer: bool,
    /// A label for the image; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
}

/// Of `unpack`.
#[derive(Args, Debug)]
pub struct Unpack {
    /// The image
    pub image: String,
    /// For this platform [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// For this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
}

/// Of `gc`.
#[derive(Args, Debug)]
pub struct Gc {
    /// Say only what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Also images that no snapshot in use came from
    #[arg(long)]
    pub prune: bool,
    /// Also images that have no name but their digest
    #[arg(long)]
    pub prune_dangling: bool,
    /// Of those, only what is older than this, as in 7d
    #[arg(long, value_name = "TIME")]
    pub older_than: Option<String>,
}

/// Of `df`.
#[derive(Args, Debug)]
pub struct Df {
    /// Only this image
    pub image: Option<String>,
}

/// Of `fsck`.
#[derive(Args, Debug)]
pub struct Fsck {
    /// Fetch again what is damaged or missing
    #[arg(long)]
    pub repair: bool,
    /// Follow the references only; read no blob
    #[arg(long)]
    pub quick: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}

/// Of `referrers`.
#[derive(Args, Debug)]
pub struct Referrers {
    /// The image
    pub image: String,
    /// Of this type only
    #[arg(long = "type", value_name = "TYPE")]
    pub artifact_type: Option<String>,
    /// Ask the image's registry too
    #[arg(long)]
    pub remote: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}

/// Of `login`.
#[derive(Args, Debug)]
pub struct Login {
    /// The registry
    #[arg(default_value = "docker.io")]
    pub host: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}

/// Of `logout`.
#[derive(Args, Debug)]
pub struct Logout {
    /// The registry
    #[arg(default_value = "docker.io")]
    pub host: String,
    /// Docker's config.json [default: $DOCKER_CONFIG/config.json or ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub docker_config: Option<PathBuf>,
}
