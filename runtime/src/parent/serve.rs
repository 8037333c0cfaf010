//! Serving a new container's init until it is ready: one loop, one exhaustive match.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::cgroup::{Cgroup, Systemd};
use crate::error::{Context, Error, Kind, Result};
use crate::message::{Reply, Request};
use crate::parent::netdev::Moved;
use crate::parent::{Next, Silence, Spawned, died, idmap, limits, mount_source, netdev, seccomp_agent};
use crate::plan::Plan;
use crate::plan::hooks::Stage;
use crate::plan::seccomp::Seccomp;
use crate::state::{ContainerDir, Init, Replaced, Staged, State, Status};
use crate::sys::process::pidfd_getfd;
use crate::{hooks, selfexe, terminal};

/// What the parent works with while it serves.
#[derive(Debug)]
pub struct Desk<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// The container's directory.
    pub dir: &'a ContainerDir,
    /// The configuration, as it was read.
    pub config: &'a [u8],
    /// Its state, saved whenever it changes.
    pub state: &'a mut State,
    /// Its cgroups, from the moment they exist.
    pub cgroup: &'a mut Option<Cgroup>,
    /// Who makes them, if that is systemd.
    pub systemd: &'a mut Option<Systemd>,
    /// Set once hooks have begun to run: poststop must then run, however create ends.
    pub hooks_began: bool,
    /// Where the master end of its pty goes; without one it is kept.
    pub console_socket: Option<OwnedFd>,
    /// What this process runs from, to be closed when there is time.
    pub own: &'a selfexe::Mount,
}

impl Desk<'_> {
    /// Writes what only who enters or restores the container wants.
    fn keep(&self) -> Result<()> {
        self.dir.keep("config.json", self.config)?;
        match &self.plan.seccomp {
            Some(seccomp) => self.dir.keep("seccomp", &seccomp.to_bytes()),
            None => Ok(()),
        }
    }
}

/// What serving left.
#[derive(Debug, Default)]
pub struct Served {
    /// The master end of the pty, for the foreground relay.
    pub console: Option<OwnedFd>,
    /// The network devices that are no longer the host's.
    pub moved: Option<Moved>,
    /// The state of the complete container, to be put in place when it is that.
    pub complete: Option<Staged>,
    /// Whether others have been told of the container.
    pub announced: bool,
}

/// Serves `spawned` until it is ready to execute the program. `announce` tells of the container, once it is all there.
pub fn until_ready(
    spawned: &mut Spawned,
    desk: &mut Desk<'_>,
    served: &mut Served,
    announce: impl Fn(&Spawned, &mut Desk<'_>, Option<Staged>) -> Result<Replaced>,
) -> Result<()> {
    let mut binds = mount_source::Binds::new(&desk.plan.rootfs);
    let namespaces = &desk.plan.namespaces;
    let mut is_noted = namespaces.need_intermediate();
    loop {
        let (request, fds) = match spawned.next_request()? {
            Next::Request(request, fds) => (request, fds),
            Next::Silence(silence) => return Err(explain(silence, desk.cgroup.as_ref())),
        };
        if !std::mem::replace(&mut is_noted, true) {
            note(spawned.pid(), desk)?;
        }
        match request {
            Request::IdMaps => idmap::write(spawned.pid(), namespaces)?,
            Request::TimeOffsets => idmap::write_time_offsets(spawned.pid(), &namespaces.time_offsets)?,
            Request::InitStarted { pid } => {
                let intermediate = spawned.replace(pid, one(fds, &request)?);
                spawned.reply(&Reply::Done, &[])?;
                spawned.see_off(&intermediate)?;
                note(pid, desk)?;
                continue;
            }
            Request::Network => {
                let path = format!("/proc/{}/ns/net", spawned.pid());
                let namespace = File::open(&path).on("open", path)?;
                served.moved = netdev::move_all(&desk.plan.net_devices, namespace.as_fd())?;
            }
            Request::Sources { first, count } => {
                let asked = first.checked_add(count).and_then(|end| desk.plan.mounts.get(first..end));
                let asked =
                    asked.ok_or_else(|| Error::new(Kind::System, "init asked for mounts that nobody planned"))?;
                let opened = binds.open(asked)?;
                let (kinds, fds) = mount_source::pack(&opened);
                spawned.reply(&Reply::Sources(kinds), &fds)?;
                continue;
            }
            Request::Cgroup => {
                // What takes longest on this side; init makes its namespaces and mounts meanwhile.
                let join = join_fds(desk, spawned.pid())?;
                let trees = mount_source::open_cgroups(&desk.plan.cgroup_view, &desk.plan.mounts)?;
                let fds: Vec<&OwnedFd> = join.iter().chain(&trees).collect();
                spawned.reply(&Reply::Cgroup { join: join.len() }, &fds)?;
                // init now has work for a while. What it would otherwise wait for at its end is done here.
                desk.own.close();
                desk.keep()?;
                if desk.plan.rdt.is_none() {
                    desk.state.complete = true;
                    served.complete = Some(desk.dir.stage(desk.state)?);
                }
                continue;
            }
            Request::RuntimeHooks => {
                let json = desk.state.to_oci_json(Status::Creating, Some(spawned.pid()));
                let hooks = &desk.plan.hooks;
                desk.hooks_began = true;
                // prestart is the older name of the same moment, and runs first (runtime-spec, config).
                for stage in [Stage::Prestart, Stage::CreateRuntime] {
                    hooks::run(stage, hooks.of(stage), &json, &desk.state.bundle)?;
                }
            }
            Request::Console => {
                let master = one(fds, &request)?;
                match &desk.console_socket {
                    Some(socket) => terminal::send_master(socket, &master)?,
                    None => {
                        // Before the program can look at it.
                        terminal::adopt(&master)?;
                        served.console = Some(master);
                    }
                }
            }
            Request::Built => {
                served.announced = true;
                let replaced = announce(spawned, desk, served.complete.take())?;
                spawned.reply(&Reply::Done, &[])?;
                replaced.remove();
                continue;
            }
            Request::Listener { fd } => {
                let listener = fetch_listener(spawned, fd)?;
                let json = desk.state.to_oci_json(Status::Creating, Some(spawned.pid()));
                hand_listener(listener, desk.plan.seccomp.as_ref(), spawned.pid(), &json)?;
            }
            Request::Ready => return Ok(()),
            // next_request() keeps these for itself.
            Request::Warning(_) | Request::Failed(_) => continue,
        }
        spawned.reply(&Reply::Done, &[])?;
    }
}

/// Notes which process is init, before it does anything that outlives it: a runtime killed from here on leaves a state that
/// delete can act on. And sets what only this process may set.
pub fn note(pid: i32, desk: &mut Desk<'_>) -> Result<()> {
    limits::set_oom_score(pid, &desk.plan.process)?;
    desk.state.init = Some(Init::of(pid)?);
    desk.dir.save(desk.state)
}

/// The seccomp listener that is number `fd` in the child.
pub fn fetch_listener(spawned: &Spawned, fd: i32) -> Result<OwnedFd> {
    pidfd_getfd(spawned.pidfd(), fd).on("fetch", "the seccomp listener from init")
}

/// Sends the seccomp listener of process `pid` to the agent that the configuration names.
pub fn hand_listener(listener: OwnedFd, seccomp: Option<&Seccomp>, pid: i32, state: &[u8]) -> Result<()> {
    let notify = seccomp.and_then(|seccomp| seccomp.notify.as_ref());
    let notify = notify.ok_or_else(|| Error::new(Kind::System, "a seccomp listener came that nobody planned"))?;
    seccomp_agent::send(listener, notify, state, pid)
}

/// Makes the cgroups, unless they are there already. What init, process `pid`, needs to join them.
fn join_fds(desk: &mut Desk<'_>, pid: i32) -> Result<Vec<OwnedFd>> {
    match desk.cgroup {
        // It has been cloned into it.
        Some(cgroup) if cgroup.clone_fd().is_some() => Ok(Vec::new()),
        Some(cgroup) => cgroup.join_fds(),
        None => {
            let plan = &desk.plan.cgroup;
            // systemd tells a connection of every job, so it is kept no longer than needed.
            let (cgroup, join) = match desk.systemd.take() {
                Some(systemd) => (Cgroup::create_unit(plan, systemd, pid, &mut desk.state.cgroup)?, None),
                None => Cgroup::create_to_join(plan).map(|(cgroup, join)| (cgroup, Some(join)))?,
            };
            // From now on what is in them is the container's: a clean-up may kill it.
            desk.state.cgroup = cgroup.saved();
            let cgroup = desk.cgroup.insert(cgroup);
            join.map_or_else(|| cgroup.join_fds(), Ok)
        }
    }
}

/// The one fd that came with a request.
pub fn one(fds: Vec<OwnedFd>, request: &Request) -> Result<OwnedFd> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(fd), None) => Ok(fd),
        _ => Err(Error::new(Kind::System, format!("init sent {request:?} with no fd, or with several"))),
    }
}

/// The error behind a child's silence.
pub fn explain(silence: Silence, cgroup: Option<&Cgroup>) -> Error {
    match silence {
        Silence::Failed(error) => error,
        Silence::Died(exit, step) => died("init", exit, &step, cgroup.and_then(Cgroup::out_of_memory)),
    }
}
