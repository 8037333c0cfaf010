//! `events`: what a container uses, at intervals, and each time it ran out of memory; one JSON object a line, as runc's.
//!
//! ```text
//! {"type":"stats","id":"c1","data":{"cpu":{...},"memory":{...},...}}
//! {"type":"oom","id":"c1"}
//! ```

mod rdt;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::cgroup::{Cgroup, OomWatch, stats::Stats};
use crate::cli::{EventsArgs, Global};
use crate::error::{Context, Error, Kind, Result};
use crate::output::print;
use crate::state::{self, State};

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: rdt::Rdt,
    /// The runtime makes no interfaces of its own: always null, which readers expect.
    network_interfaces: Option<Vec<()>>,
}

/// Runs the command.
pub fn run(global: &Global, args: &EventsArgs) -> Result<()> {
    if args.interval.is_zero() {
        return Err(Error::invalid("--interval 0 would never pause: give a duration above 0, such as 5s"));
    }
    let state = state::load(&global.root(), &args.id)?;
    let init = state.init.as_ref().map(state::Init::open).transpose()?.flatten();
    let Some(init) = init else {
        return Err(Error::new(Kind::State, format!("container not running: {:?} is stopped", args.id)));
    };
    let cgroup = Cgroup::open(&state.cgroup)?;
    match args.stats {
        true => report(&state, &cgroup),
        false => follow(&state, &cgroup, &init, args.interval),
    }
}

fn report(state: &State, cgroup: &Cgroup) -> Result<()> {
    let data = Data { stats: cgroup.stats()?, intel_rdt: rdt::read(state.rdt.as_ref())?, network_interfaces: None };
    tell(&Event { kind: "stats", id: &state.id, data: Some(data) })
}

fn tell(event: &Event<'_>) -> Result<()> {
    let mut text =
        serde_json::to_vec(event).map_err(|error| Error::caused(Kind::System, "write an event as JSON", error))?;
    text.push(b'\n');
    print(&text)
}

/// Reports until the container's first process has ended.
fn follow(state: &State, cgroup: &Cgroup, init: &OwnedFd, interval: Duration) -> Result<()> {
    let mut oom = match cgroup.watch_oom() {
        Ok(watch) => Some(watch),
        Err(error) => {
            crate::log::warn(format_args!("out-of-memory events cannot be told: {error}"));
            None
        }
    };
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(oom.as_ref(), init, next)?;
        // Asked even when the process has ended: that may be why.
        for _ in 0..oom.as_mut().map(OomWatch::count).transpose()?.unwrap_or(0) {
            tell(&Event { kind: "oom", id: &state.id, data: None })?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            if let Err(error) = report(state, cgroup) {
                // It may just have ended; that is found out next.
                crate::log::warn(format_args!("{error}"));
            }
        }
    }
}

/// Waits for an event, for the end of the first process (then `true`), or until `until`.
fn wait(oom: Option<&OomWatch>, init: &OwnedFd, until: Instant) -> Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up, so that it does not wake too early again and again.
    let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    fds.extend(oom.map(|oom| PollFd::new(oom.as_fd(), oom.flags())));
    match poll(&mut fds, left) {
        Ok(_) => Ok(fds[0].any().unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).on("wait for", "events of a container"),
    }
}
