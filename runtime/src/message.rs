//! What init and the process of an exec may ask of their parent, and when: the only definition of that protocol.
//!
//! ```text
//!   intermediate                init                        parent
//!   IdMaps ─────────────────────────────────────────────►  writes the maps                       ► Done
//!   TimeOffsets ────────────────────────────────────────►  writes timens_offsets                 ► Done
//!   InitStarted{pid} + pidfd ───────────────────────────►  watches that one from now on          ► Done
//!                               IdMaps ─────────────────►  (without an intermediate)             ► Done
//!                               Cgroup ─────────────────►  makes the cgroups, hands over fds     ► Cgroup + fds
//!                               Network ────────────────►  moves the net devices in              ► Done
//!                               Sources, several times ─►  opens them, hands them over           ► Sources + fds
//!                               RuntimeHooks ───────────►  prestart, createRuntime               ► Done
//!                               Console + pty ──────────►  passes it on, or keeps it             ► Done
//!                               Built ──────────────────►  puts the state in place, tells of it  ► Done
//!                               Listener{fd} ───────────►  sends it to the seccomp agent         ► Done
//!                               Ready ──────────────────►  create is done                        (no reply)
//!                               (end of file by execve, or by waiting on exec.fifo)
//!   Warning, Failed at any time ────────────────────────►  logs; fails with it                    (no reply)
//! ```
//!
//! Steps that a container does not need are left out; what comes out of this order is refused by the parent.
//!
//! Cgroup and Built are asked ahead ([`crate::link::Link::ask_ahead`]): init goes on, and takes the answer when it needs it.
//!
//! The process of an exec goes through the same order, without Built. Its InitStarted has no answer, and its Ready has one only
//! if somebody is to be told of the process before its program runs: what it was cloned with says so.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::parent::mount_source::OpenedKind;

/// A child's request. The order of the variants is the order in which they may come.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Write uid_map and gid_map of the sender, which has just made its user namespace.
    IdMaps,
    /// Write timens_offsets of the sender, which has just made the time namespace of its children.
    TimeOffsets,
    /// The intermediate made init: its pid in the parent's pid namespace; its pidfd is with this.
    InitStarted {
        /// The pid as the parent sees it.
        pid: i32,
    },
    /// Hand over what is needed to join the container's cgroups.
    Cgroup,
    /// The network namespace is there: move the net devices into it.
    Network,
    /// Hand over the sources of bind mounts. May come several times.
    Sources {
        /// The first one, as an index into the mounts.
        first: usize,
        /// How many in a row.
        count: usize,
    },
    /// The mounts are made: run the prestart and createRuntime hooks.
    RuntimeHooks,
    /// The pty of the container; its fd is with this.
    Console,
    /// The container is all there; only the process has yet to become the user and find its program. The program does not run
    /// before this is answered, so that whoever is told of the container is told first.
    Built,
    /// The seccomp listener. A filter is in force already, so it is not sent, which would take sendmsg(2): the parent is to
    /// fetch it (pidfd_getfd(2)), for which this takes write(2) alone.
    Listener {
        /// Its number in the sender.
        fd: i32,
    },
    /// Everything is done but the last step.
    Ready,
    /// Something the user should know; not an end.
    Warning(String),
    /// The child gives up.
    Failed(Error),
}

/// The parent's answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// To join the cgroups, write `0` into each of the first `join` fds with this; none: it has been done. The others are the
    /// container's directories in the hierarchies as detached trees, for the mount that shows them.
    Cgroup {
        /// How many fds are for joining.
        join: usize,
    },
    /// The sources that were asked for, in order; the fds with this are those of the trees among them.
    Sources(Vec<OpenedKind>),
}

/// How far a child has come, as the parent sees it.
#[derive(Debug, Default)]
pub struct Order(u8);

impl Order {
    /// Takes note of a request; one that comes again, or after a later one, is refused.
    pub fn admit(&mut self, request: &Request) -> Result<()> {
        let rank = match request {
            Request::IdMaps => 1,
            Request::TimeOffsets => 2,
            Request::InitStarted { .. } => 3,
            Request::Cgroup => 4,
            Request::Network => 5,
            // As often as they come.
            Request::Sources { .. } if self.0 <= 5 => return Ok(()),
            Request::Sources { .. } => 0,
            Request::RuntimeHooks => 6,
            Request::Console => 7,
            Request::Built => 8,
            Request::Listener { .. } => 9,
            Request::Ready => 10,
            Request::Warning(_) | Request::Failed(_) => return Ok(()),
        };
        if rank <= self.0 {
            return Err(Error::new(Kind::System, format!("init asked for {request:?} out of order")));
        }
        self.0 = rank;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::decode;

    fn all() -> Vec<Request> {
        vec![
            Request::IdMaps,
            Request::TimeOffsets,
            Request::InitStarted { pid: 7 },
            Request::Cgroup,
            Request::Network,
            Request::RuntimeHooks,
            Request::Console,
            Request::Built,
            Request::Listener { fd: 9 },
            Request::Ready,
        ]
    }

    #[test]
    fn every_pair_of_requests_is_admitted_only_in_order() {
        for (first, one) in all().iter().enumerate() {
            for (second, other) in all().iter().enumerate() {
                let mut order = Order::default();
                order.admit(one).unwrap();
                assert_eq!(order.admit(other).is_ok(), second > first, "{one:?} then {other:?}");
            }
        }
    }

    #[test]
    fn sources_may_come_again_until_the_mounts_are_made() {
        let sources = Request::Sources { first: 0, count: 1 };
        let mut order = Order::default();
        for request in [&Request::Cgroup, &sources, &Request::Network, &sources, &sources, &Request::RuntimeHooks] {
            order.admit(request).unwrap();
        }
        assert!(order.admit(&sources).is_err());
    }

    #[test]
    fn a_warning_may_come_at_any_time() {
        let mut order = Order::default();
        order.admit(&Request::Ready).unwrap();
        order.admit(&Request::Warning("w".into())).unwrap();
        order.admit(&Request::Failed(Error::invalid("x"))).unwrap();
    }

    #[test]
    fn messages_come_back_as_they_were_and_garbage_does_not() {
        for request in all() {
            let bytes = serde_json::to_vec(&request).unwrap();
            assert_eq!(decode::<Request>(&bytes).unwrap(), request);
        }
        for garbage in ["", "{", "\"Readyy\"", "{\"InitStarted\":{}}", "\"Ready\" x"] {
            assert!(decode::<Request>(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
