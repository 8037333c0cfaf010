//! `tarectl`: docker's words, without docker's daemon.
//!
//! `cli` reads the command line and prints; every other module does one thing and returns data.
//!
//! ```text
//! tarectl run ─┬─ ttrpc ─> tare-store            image, snapshot: mounts to be done     (started if it is not running)
//!              ├─ CNI ──> plugins                a named network namespace, addresses, ports
//!              ├─ files > /var/lib/tarectl       the record of the container: what was asked for, and how it is
//!              └─ ttrpc ─> containerd-shim-tare-v2, one a container: mounts the root, runs `tare`, holds the streams, writes the log
//!                             └─ at each event: tarectl publish ─> the record; at the end: network, --restart, --rm
//! ```
//!
//! No process stays but the shims and the store. A command reads records, acts, writes records and ends; two that meet at one
//! container take turns by a lock on its directory. What no record tells (is it running?) is asked of the shim, and of the kernel
//! where the shim is gone: a record never overrules what is.
//!
//! # On disk
//!
//! ```text
//! ROOT/  (0700; /var/lib/tarectl, TARECTL_ROOT)
//!   containers/<id>/container.json       the record, replaced atomically; the directory is its own lock (flock)
//!   containers/<id>/{hosts,hostname,resolv.conf}    what is bound over the container's
//!   containers/<id>/<id>-json.log        docker's log, rotated
//!   containers/<id>/{revive,restart}.lock     held by whoever is to start it again
//!   names/<name>                         a link to the id: making it is what takes a name
//!   imports/<key>                        the snapshot of an import that runs; locked by it
//!   volumes/<name>/{volume.json,data}    networks/<name>.json    events.log
//! RUN/   (0700; /run/tarectl, TARECTL_RUN; gone after a boot, as what it is about is)
//!   containers/<id>/                     bundle, attach socket, stdin's fifo, a note of each exec that the shim knows of
//!   netns/<id>                           the network namespace, bound here
//!   shims/                               the shims' sockets
//! ```
//!
//! # Invariants
//!
//! - What an image says (labels, environment, user names, paths) never becomes configuration of the host: its paths are
//!   resolved beneath its root by openat2(2), its numbers are parsed strictly.
//! - A command that fails takes back what it made; what a killed one left is found by its record and taken back by the next.
//! - Exit codes are docker's: 125 for what `tarectl` itself cannot do, 126 and 127 for a command that cannot be run or found, otherwise
//!   the container's own.

pub mod apparmor;
pub mod archive;
pub mod attach;
mod background;
pub mod beneath;
pub mod boot;
pub mod changes;
pub mod cli;
pub mod client;
pub mod commit;
pub mod cp;
pub mod create;
pub mod diff;
mod disk;
mod ended;
pub mod error;
pub mod events;
pub mod exec;
pub mod export;
pub mod health;
pub mod image;
pub mod import;
pub mod kill;
pub mod logs;
pub mod names;
pub mod network;
pub mod outfile;
pub mod paths;
pub mod pause;
pub mod policy;
pub mod publish;
pub mod record;
pub mod records;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod root;
pub mod run;
pub mod shim;
mod shm;
pub mod spec;
pub mod start;
pub mod stop;
pub mod store;
mod sys;
pub mod table;
pub mod template;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod time;
pub mod tree;
pub mod truth;
pub mod units;
pub mod users;
pub mod volumes;
pub mod wait;
mod watch;
