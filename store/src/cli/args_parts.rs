//! The words of the command line for what images are made of: blobs, snapshots, leases, layers, namespaces.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::Registry;

/// Commands for blobs.
#[derive(Subcommand, Debug)]
pub enum Content {
    /// List blobs
    Ls {
        /// Only those that match one of these
        filters: Vec<String>,
    },
    /// Show one
    Info {
        /// Its digest
        digest: String,
    },
    /// Write one, or a part, to standard output
    Get {
        /// Its digest
        digest: String,
        /// From this byte on
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// So many bytes [default: up to the end]
        #[arg(long)]
        size: Option<u64>,
    },
    /// Store one from standard input
    Put {
        /// A name under which it comes, and is resumed
        reference: String,
        /// What its digest must be
        #[arg(long)]
        digest: Option<String>,
        /// A label; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// The lease that is to keep it
        #[arg(long, value_name = "LEASE")]
        lease: Option<String>,
    },
    /// Set labels; an empty value removes one
    Label {
        /// Its digest
        digest: String,
        /// Labels
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Remove blobs
    Rm {
        /// Their digests
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// List blobs that are still coming
    Ingests {
        /// Only those that match one of these
        filters: Vec<String>,
    },
    /// Forget what came of one
    Abort {
        /// Its reference
        reference: String,
    },
}

/// Whose snapshots.
#[derive(Args, Debug, Default)]
pub struct Snapshotter {
    /// The snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
}

/// A snapshot to be made.
#[derive(Args, Debug)]
pub struct NewSnapshot {
    /// Its key
    pub key: String,
    /// What it stands on: a committed snapshot [default: nothing]
    pub parent: Option<String>,
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// The lease that is to keep it
    #[arg(long, value_name = "LEASE")]
    pub lease: Option<String>,
    /// Print a mount command for this directory instead of the mounts
    #[arg(long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: Snapshotter,
}

/// Commands for snapshots.
#[derive(Subcommand, Debug)]
pub enum Snapshot {
    /// List snapshots
    Ls {
        /// Only those that match one of these
        filters: Vec<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Make one that can be written to, and print its mounts
    Prepare(NewSnapshot),
    /// Make one that can only be read, and print its mounts
    View(NewSnapshot),
    /// Print the mounts of one
    Mounts {
        /// Its key
        key: String,
        /// Print a mount command for this directory instead of the mounts
        #[arg(long, value_name = "DIR")]
        target: Option<PathBuf>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Turn an active one into a committed one
    Commit {
        /// Its key
        key: String,
        /// Its new name
        name: String,
        /// A label; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Remove snapshots
    Rm {
        /// Their keys or names
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Show one
    Info {
        /// Its key or name
        key: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Show what one takes on disk beyond what it stands on
    Usage {
        /// Its key or name
        key: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Set labels; an empty value removes one
    Label {
        /// Its key or name
        key: String,
        /// Labels
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Free what removed snapshots left on the disk
    Cleanup {
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
}

/// Commands for leases.
#[derive(Subcommand, Debug)]
pub enum Lease {
    /// List leases
    Ls {
        /// Only those that match one of these
        filters: Vec<String>,
    },
    /// Make one
    Create {
        /// Its name [default: one is chosen]
        id: Option<String>,
        /// It ends at this time, as in 2026-12-24T18:00:00Z
        #[arg(long, value_name = "TIME")]
        expire: Option<String>,
        /// A label; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
    },
    /// End leases
    Rm {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
        /// Remove at once what only these kept
        #[arg(long)]
        sync: bool,
    },
    /// Keep a thing
    Add {
        /// The lease
        id: String,
        /// content, ingests, images or snapshots/<snapshotter>
        kind: String,
        /// A digest, a reference, a name, a key
        resource: String,
    },
    /// Keep a thing no longer
    Drop {
        /// The lease
        id: String,
        /// content, ingests, images or snapshots/<snapshotter>
        kind: String,
        /// A digest, a reference, a name, a key
        resource: String,
    },
    /// List what one keeps
    Resources {
        /// The lease
        id: String,
    },
}

/// Commands between layers and snapshots.
#[derive(Subcommand, Debug)]
pub enum Diff {
    /// Unpack a layer onto an active snapshot
    Apply {
        /// The layer's digest
        digest: String,
        /// The snapshot's key
        key: String,
        /// The layer's media type
        #[arg(long, default_value = "application/vnd.oci.image.layer.v1.tar+gzip")]
        media_type: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
    /// Make a blob of what a snapshot has that another has not
    Create {
        /// The snapshot's key
        key: String,
        /// A view of what it stands on [default: nothing]
        below: Option<String>,
        /// The layer's media type
        #[arg(long, default_value = "application/vnd.oci.image.layer.v1.tar+gzip")]
        media_type: String,
        /// The latest time of a file, in seconds since 1970 [env: SOURCE_DATE_EPOCH]
        #[arg(long, value_name = "SECONDS")]
        source_date: Option<i64>,
        #[command(flatten)]
        #[allow(missing_docs)]
        of: Snapshotter,
    },
}

/// Commands for namespaces.
#[derive(Subcommand, Debug)]
pub enum Namespace {
    /// List namespaces
    Ls,
    /// Make one
    Create {
        /// Its name
        name: String,
        /// Labels
        #[arg(value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Set labels; an empty value removes one
    Label {
        /// Its name
        name: String,
        /// Labels
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Remove an empty one
    Rm {
        /// Its name
        name: String,
    },
}

/// Of `tags`.
#[derive(Args, Debug)]
pub struct Tags {
    /// The repository, as in debian or registry.example/team/app
    pub repository: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}

/// Of `search`.
#[derive(Args, Debug)]
pub struct Search {
    /// A word that names or descriptions have in them
    pub term: String,
    /// At this registry
    #[arg(long, value_name = "HOST", default_value = "docker.io")]
    pub host: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub limit: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: Registry,
}
