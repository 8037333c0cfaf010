//! The driver that lets systemd make a container's cgroup: a transient scope around the container's first process.
//!
//! ```text
//!   create   StartTransientUnit(name, "replace", properties, [])  ──►
//!                                            ◄── the job; then the signal JobRemoved(…, job, name, "done")
//!   update   SetUnitProperties(name, runtime, properties)  ──►
//!   delete   StopUnit(name, "replace")  ──►  ◄── the job, JobRemoved; or: no such unit
//!            ResetFailedUnit(name)  ──►          only where there was one
//! ```
//!
//! One call a create: to ask for systemd's version, or to make room for the unit where one that failed is left over, is for
//! when a call was refused for it. The connection is opened, and its greeting sent, before the plan is made: it is
//! answered by when it is needed. systemd's own socket is preferred to a bus: there is nobody in between, nothing to
//! subscribe to, and it is there before any bus is.
//!
//! Nothing of a cgroup is frozen around a change of its properties: an update changes no devices, and so systemd does not
//! write their rules anew.

mod scope;
mod sockets;
mod unit;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::sockets::Candidate;
use crate::cli::{CgroupManager, Global};
use crate::dbus::{Broken, Call, Connection, Deadline, Failure, Message, Value};
use crate::error::{Error, Kind, Result};
use crate::plan::cgroup::systemd::{Domain, Site};
use crate::plan::cgroup::{Manager, Privilege};

/// How long a call may take, and a job that it starts: as long as with runc. Starting a scope takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A container's unit, as state.json keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedUnit {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub domain: Domain,
}

/// A systemd that can be asked.
#[derive(Debug)]
pub struct Systemd {
    domain: Domain,
    /// Where it was found, for an error's text.
    socket: String,
    connection: Connection,
    patience: Duration,
}

/// Who makes the cgroups for this call; for systemd with a connection to it.
pub fn manager(global: &Global) -> Result<(Manager, Option<Systemd>)> {
    match global.cgroup_manager() {
        CgroupManager::Cgroupfs => Ok((Manager::Cgroupfs, None)),
        CgroupManager::Disabled => Ok((Manager::Disabled, None)),
        CgroupManager::Systemd => {
            let mut systemd = Systemd::connect(domain(global.rootless.into()))?;
            let site = systemd.site()?;
            Ok((Manager::Systemd(site), Some(systemd)))
        }
    }
}

/// Whose systemd it is to be. Root of a user namespace may be in a container that has a systemd of its own, or an ordinary
/// user who has one: who has the environment of a user's session is that user.
fn domain(privilege: Privilege) -> Domain {
    let has_session =
        || ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"].iter().any(|name| std::env::var_os(name).is_some());
    let root_of_a_namespace = || privilege == Privilege::Auto && nix::unistd::geteuid().is_root() && !has_session();
    match super::is_root(privilege) || root_of_a_namespace() {
        true => Domain::System,
        false => Domain::User,
    }
}

impl Systemd {
    /// Connects to one of where it may be found. Nothing has been answered yet.
    pub fn connect(domain: Domain) -> Result<Self> {
        let uid = nix::unistd::geteuid().as_raw();
        let candidates = sockets::candidates(domain, uid, |name| std::env::var_os(name));
        Self::connect_to(domain, &candidates, PATIENCE)
    }

    fn connect_to(domain: Domain, candidates: &[Candidate], patience: Duration) -> Result<Self> {
        let (uid, mapped) = (nix::unistd::geteuid().as_raw(), super::in_user_namespace());
        let mut failures = Vec::new();
        for Candidate { socket, link } in candidates {
            match Connection::open(socket, link.clone(), uid, mapped, Deadline::within(patience)) {
                Ok(connection) => {
                    return Ok(Self { domain, socket: socket.to_string(), connection, patience });
                }
                Err(broken) => failures.push(format!("{socket}: {broken}")),
            }
        }
        let (whose, remedy) = match domain {
            Domain::System => ("the host's systemd", "it does not run here"),
            Domain::User => (
                "the user's systemd",
                "it does not run for this user (log in, or enable it with loginctl enable-linger), or XDG_RUNTIME_DIR is not \
                 that of the user",
            ),
        };
        Err(Error::caused(
            Kind::Unsupported,
            format!("ask {whose} for a cgroup ({})", failures.join("; ")),
            format!("{remedy}; or use --cgroup-manager cgroupfs"),
        ))
    }

    /// Where its units lie: below its own cgroup, which its process tells, or else it itself.
    fn site(&mut self) -> Result<Site> {
        let domain = self.domain;
        let pid = match (self.connection.is_bus(), domain) {
            (false, _) => self.connection.peer(),
            (true, Domain::System) => Some(1),
            (true, Domain::User) => None,
        };
        let text = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
        let base = match text.as_deref().and_then(own_cgroup) {
            Some(path) => path.strip_suffix("/init.scope").unwrap_or(path).to_owned(),
            None => self.property("ControlGroup")?,
        };
        let inside = super::Layout::below_mount(&base)?;
        Ok(Site { domain, base: inside.trim_matches('/').to_owned() })
    }

    /// A property of the manager that is a text.
    fn property(&mut self, name: &str) -> Result<String> {
        let arguments = [Value::text(MANAGER), Value::text(name)];
        let call = Call { destination: NAME, path: PATH, interface: PROPERTIES, member: "Get", arguments: &arguments };
        let answer = self.connection.call(&call, |_| false, Deadline::within(self.patience));
        let text = answer.and_then(|answer| answer.body().text_in_variant().ok_or(Failure::Broken(Broken::Nonsense)));
        text.map_err(|failure| self.told(&format!("ask systemd for its {name}"), failure))
    }

    /// Calls a method of the manager. Ends of jobs of `unit` that come meanwhile are kept.
    fn ask(&mut self, member: &str, arguments: &[Value], unit: &str, deadline: Deadline) -> Result<Message, Failure> {
        let call = Call { destination: NAME, path: PATH, interface: MANAGER, member, arguments };
        self.connection.call(&call, |signal| unit::job_of(signal, unit).is_some(), deadline)
    }

    /// A failed call as a sentence.
    fn told(&self, what: &str, failure: Failure) -> Error {
        let refusal = match failure {
            Failure::Broken(broken) => {
                return Error::caused(Kind::System, format!("{what} ({})", self.socket), broken);
            }
            Failure::Refused(refusal) => refusal,
        };
        let error = Error::caused(Kind::System, what, &refusal.message);
        match refusal.name.as_str() {
            "org.freedesktop.DBus.Error.AccessDenied"
            | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => error
                .hint("this user may not manage units there: be root, or use the user's own systemd (--rootless true)"),
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                error.hint(format!("no systemd is on the bus {}: use --cgroup-manager cgroupfs", self.socket))
            }
            _ => error,
        }
    }
}

/// The cgroup of a process that systemd keeps it in: the unified hierarchy, or its own.
fn own_cgroup(text: &str) -> Option<&str> {
    let line = |prefix: &str| {
        text.lines().find_map(|line| line.split_once(':').and_then(|(_, rest)| rest.strip_prefix(prefix)))
    };
    line("name=systemd:").or_else(|| line(":"))
}

#[cfg(test)]
mod tests;
