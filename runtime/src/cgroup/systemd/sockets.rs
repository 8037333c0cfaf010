//! Where a systemd may be found, the best first.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::dbus::Link;
use crate::dbus::address::{self, Socket};
use crate::plan::cgroup::systemd::Domain;

/// The signals that a bus is to pass on.
const RULE: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A place to try.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where.
    pub socket: Socket,
    /// Who is there.
    pub link: Link,
}

fn peer(path: PathBuf) -> Candidate {
    Candidate { socket: Socket::Path(path), link: Link::Peer }
}

fn bus(socket: Socket) -> Candidate {
    Candidate { socket, link: Link::Bus { rule: RULE.to_owned() } }
}

/// The sockets of a systemd, for user `uid` with this environment.
pub(super) fn candidates(domain: Domain, uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Vec<Candidate> {
    let buses = |name: &str| {
        let list = variable(name).and_then(|list| list.into_string().ok()).unwrap_or_default();
        address::parse(&list).into_iter().map(bus)
    };
    match domain {
        Domain::System => {
            // Only root is answered there.
            let own = (uid == 0).then(|| peer("/run/systemd/private".into()));
            let given: Vec<Candidate> = buses("DBUS_SYSTEM_BUS_ADDRESS").collect();
            let known = given.is_empty().then(|| bus(Socket::Path("/run/dbus/system_bus_socket".into())));
            own.into_iter().chain(given).chain(known).collect()
        }
        Domain::User => {
            let directory = variable("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
            let directory = directory.unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")));
            let own = peer(directory.join("systemd/private"));
            let given = buses("DBUS_SESSION_BUS_ADDRESS");
            let known = bus(Socket::Path(directory.join("bus")));
            let mut all = vec![own];
            for candidate in given.chain([known]) {
                if !all.contains(&candidate) {
                    all.push(candidate);
                }
            }
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_socket_comes_before_a_bus() {
        type Environment<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Domain, u32, Environment<'_>, &[&str])] = &[
            (Domain::System, 0, &[], &["/run/systemd/private", "bus /run/dbus/system_bus_socket"]),
            (Domain::System, 7, &[], &["bus /run/dbus/system_bus_socket"]),
            (
                Domain::System,
                0,
                &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/b"), ("XDG_RUNTIME_DIR", "/x")],
                &["/run/systemd/private", "bus /b"],
            ),
            (Domain::User, 7, &[], &["/run/user/7/systemd/private", "bus /run/user/7/bus"]),
            (
                Domain::User,
                7,
                &[("XDG_RUNTIME_DIR", "/x"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x/bus")],
                &["/x/systemd/private", "bus /x/bus"],
            ),
            (
                Domain::User,
                0,
                &[("XDG_RUNTIME_DIR", "/x"), ("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=y;tcp:host=z")],
                &["/x/systemd/private", "bus @y", "bus /x/bus"],
            ),
        ];
        for (domain, uid, environment, expected) in table {
            let variable = |name: &str| {
                environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            let found: Vec<String> = candidates(*domain, *uid, variable)
                .iter()
                .map(|candidate| match candidate.link {
                    Link::Peer => candidate.socket.to_string(),
                    Link::Bus { .. } => format!("bus {}", candidate.socket),
                })
                .collect();
            assert_eq!(found, *expected, "{domain:?} {uid} {environment:?}");
        }
    }
}
