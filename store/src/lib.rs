//! `tare-store`: a content-addressed store of images and snapshots, one daemon over ttrpc.
//!
//! # On disk
//!
//! ```text
//! ROOT/  (0700; /var/lib/tare-store)
//!   lock                        flock(2)ed by the one daemon of this root
//!   reserve                     a little room, for what must be written to free some on a full disk
//!   metadata.db                 SQLite, WAL: names, labels, leases; what exists is what is written here
//!   content/blobs/sha256/<hex>  a blob, complete and verified          (sha512/ likewise)
//!   content/ingests/<n>/data    a blob that is still coming; outlives the daemon and is resumed
//!   snapshots/<n>/fs            a layer's changes, in overlayfs' form: whiteouts are 0/0 devices, opaque directories an xattr
//!   snapshots/<n>/work          overlayfs' work directory of an active snapshot
//!   spare/<batch>/<n>/          empty trees that nobody has yet: the next snapshots
//! RUN/   (0700; /run/tare-store)
//!   ttrpc.sock                  0600; peers are asked for their user
//! ```
//!
//! # The promise
//!
//! *Visibility is the last step.* What a call reported done is there after a power cut, and whatever instant the daemon is killed
//! at, the next start finds nothing half-made: a blob shows after its file was written, synced, renamed and its directory synced;
//! a layer after its tree was synced (one syncfs(2) for all layers of a pull); an image after all of that, in the one
//! transaction that makes it and its layers visible. What lies on disk and is written nowhere is rubbish from a crash
//! and is swept at the next start.
//!
//! *Nothing is published before both digests match*: of the compressed bytes and of the tar stream within.
//!
//! *Collection* marks from roots (images, leases, snapshots in use, labels that say so) and sweeps, in one transaction that
//! sees every lease; a file is unlinked only while nobody can publish its digest. A running call holds a lease.
//!
//! # Who does what
//!
//! ```text
//! clients --ttrpc--> service ----> pull push import export commit     (flows, read top-down)
//!                                    |        |         |       \
//!                       registry (async)   content    unpack   snapshots     (leaves: know nothing of each other)
//!                                             \__________|________/
//!                                                     metadata
//! ```
//!
//! The flows and the registry are asynchronous, on one thread; whatever computes or waits for a disk runs on tokio's blocking threads.
//! The store never mounts anything and runs no program (but credential helpers, by docker's protocol, if the configuration
//! names one): it hands out mounts, and who runs the container does them.

pub mod check;
pub mod cli;
pub mod collector;
pub mod commit;
pub mod config;
pub mod content;
pub mod descriptor;
pub mod documents;
pub mod error;
pub mod export;
pub mod fault;
mod fetch;
pub mod flights;
mod follow;
pub mod fs;
pub mod gc;
pub mod images;
pub mod import;
mod layers;
pub mod metadata;
pub mod progress;
pub mod pull;
pub mod push;
pub mod registry;
pub mod repair;
mod rights;
pub mod service;
pub mod snapshots;
pub mod store;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod unpack;
pub mod unpack_image;
pub mod usage;

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod poison_tests;
#[cfg(test)]
mod push_tests;
#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod registry_tests;
