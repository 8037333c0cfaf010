//! `exec`: one more process in a running container.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::sys::stat::stat;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};

use crate::bundle;
use crate::cgroup::Cgroup;
use crate::cli::{ExecArgs, Global};
use crate::error::{Context, Error, Kind, Result};
use crate::init::credentials::run_on;
use crate::join::{self, Given};
use crate::message::{Reply, Request};
use crate::parent::serve::{explain, fetch_listener, hand_listener, one};
use crate::parent::{Next, Spawned, inherited, limits, rdt};
use crate::plan::namespaces::{self, Namespaces, Source};
use crate::plan::process::{self, Call, Keyring, ProcessPlan, inherited_listen_fds};
use crate::plan::seccomp::Seccomp;
use crate::signals::Signals;
use crate::state::{self, State, Status, write_atomically};
use crate::{lsm, selfexe, terminal};

/// Runs the command: the status of the process, or 0 once it is detached.
pub fn run(global: &Global, args: &ExecArgs, own: &selfexe::Mount) -> Result<i32> {
    let root = global.root();
    let state = state::load(&root, args.id())?;
    let (status, init) = state.look(&root)?;
    check_status(&state, status, args)?;
    let kept = root.join(&state.id);
    // The largest thing here is not taken apart again: the process ends when it is done with it.
    let config = ManuallyDrop::new(bundle::parse_spec(&bundle::read_limited(&kept.join("config.json"))?)?);
    let namespaces = namespaces::lower(&config)?;
    let process = requested(&config, args)?;
    let call = Call {
        container: &state.id,
        keyring: if state.own_keyring { Keyring::New } else { Keyring::Inherit },
        preserve_fds: args.preserve_fds,
        listen_fds: inherited_listen_fds(),
    };
    let plan = process::lower(&process, config.linux().as_ref(), &call)?;
    check_console(&plan, args)?;
    lsm::check_host(&plan, None)?;
    inherited::settle(plan.preserved_fds)?;
    limits::raise(&plan)?;
    let seccomp = match config.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        Some(_) => Some(Seccomp::from_bytes(&bundle::read_limited(&kept.join("seccomp"))?)?),
        None => None,
    };
    let gone = || Error::new(Kind::State, format!("cannot exec in container {:?}: it has stopped", state.id));
    let (pidfd, pid) = init.zip(state.init.map(|init| init.pid)).ok_or_else(gone)?;
    let cgroup = Cgroup::open(&state.cgroup)?;
    let entry = cgroup.for_exec(&args.cgroup, pid)?;
    let console_socket = args.console_socket.as_deref().map(terminal::connect_console).transpose()?;
    let given = Given {
        process: &plan,
        seccomp: seccomp.as_ref(),
        init: pidfd.as_fd(),
        namespaces: flags(&namespaces, pid)?,
        cgroups: &entry,
        announced: args.pidfd_socket.is_some() || args.pid_file.is_some() || state.rdt.is_some(),
    };
    if let Some(cpus) = &plan.exec_affinity.initial {
        run_on("process.execCPUAffinity.initial", cpus)?;
    }
    // From before there is a process that they could concern.
    let signals = if args.detach { None } else { Some(Signals::hold()?) };
    let announced = given.announced;
    let mut spawned = join::start(&given, cgroup.unit())?;
    let desk = Desk { state: &state, cgroup: &cgroup, seccomp: seccomp.as_ref(), console_socket, announced, own, args };
    match serve(&mut spawned, &desk) {
        Err(error) => {
            spawned.kill();
            Err(error)
        }
        Ok(console) => match signals {
            Some(signals) => terminal::relay(spawned.into_child(), console, &signals),
            None => Ok(0),
        },
    }
}

fn check_status(state: &State, status: Status, args: &ExecArgs) -> Result<()> {
    let why = match status {
        Status::Running | Status::Created => return Ok(()),
        Status::Paused if args.ignore_paused => return Ok(()),
        Status::Paused => "it is paused; resume it, or use --ignore-paused",
        Status::Stopped => "it has stopped",
        Status::Creating => "it is still being created",
    };
    Err(Error::new(Kind::State, format!("cannot exec in container {:?}: {why}", state.id)))
}

/// The process to run: from a file, or the container's own with what the flags say in place of it.
fn requested(config: &Spec, args: &ExecArgs) -> Result<Process> {
    if let Some(path) = &args.process {
        let mut process = bundle::load_process(path)?;
        inherit(&mut process, config.process().as_ref());
        return Ok(process);
    }
    if args.command().is_empty() {
        return Err(Error::invalid("exec needs a command, or --process FILE"));
    }
    let missing =
        || Error::invalid("the container's configuration has no process to take defaults from; use --process FILE");
    let mut process = config.process().clone().ok_or_else(missing)?;
    process.set_args(Some(args.command().to_vec()));
    process.set_terminal(Some(args.tty));
    process.env_mut().get_or_insert_default().extend(args.env.iter().cloned());
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.into());
    }
    if let Some((uid, gid)) = args.user {
        let user = process.user_mut();
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        process.user_mut().additional_gids_mut().get_or_insert_default().extend(&args.additional_gids);
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// What a process file does not say is as for the container's own process: leaving it out gives nobody more rights.
fn inherit(process: &mut Process, own: Option<&Process>) {
    let Some(own) = own else { return };
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(own.no_new_privileges());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(own.selinux_label().clone());
    }
}

/// `--cap` adds to what the process may use; never to what its children inherit (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = HashSet::new();
    for name in names {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let capability: Capability = serde_json::from_value(full.clone().into())
            .map_err(|_| Error::invalid(format!("--cap {name}: there is no capability {full}")))?;
        added.insert(capability);
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let with = |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&added).copied().collect());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

/// All five sets, empty: the crate's own default is a choice of capabilities.
fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    sets
}

fn check_console(plan: &ProcessPlan, args: &ExecArgs) -> Result<()> {
    match (&args.console_socket, &plan.terminal) {
        (None, Some(_)) if args.detach => {
            Err(Error::invalid("a terminal is asked for with --detach, but there is no --console-socket to send it to"))
        }
        (Some(_), None) => Err(Error::invalid("--console-socket is given, but no terminal is asked for")),
        _ => Ok(()),
    }
}

/// The namespaces that the container does not share with the caller, as CLONE_NEW* flags.
fn flags(namespaces: &Namespaces, pid: i32) -> Result<i32> {
    let flags = namespaces.flags(Source::is_private);
    if flags & libc::CLONE_NEWUSER == 0 {
        return Ok(flags);
    }
    // A user namespace that was joined may be the caller's own, which setns(2) refuses to join again.
    let own = stat("/proc/self/ns/user").on("look at", "the user namespace")?;
    let theirs = stat(format!("/proc/{pid}/ns/user").as_str()).on("look at", "the user namespace of the container")?;
    let same = (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino);
    Ok(if same { flags & !libc::CLONE_NEWUSER } else { flags })
}

/// What the parent works with while it serves.
struct Desk<'a> {
    state: &'a State,
    cgroup: &'a Cgroup,
    seccomp: Option<&'a Seccomp>,
    console_socket: Option<OwnedFd>,
    /// Whether the process waits until it has been told of.
    announced: bool,
    own: &'a selfexe::Mount,
    args: &'a ExecArgs,
}

/// Serves the child until its program runs; returns the master end of its pty, if it is for the foreground.
fn serve(spawned: &mut Spawned, desk: &Desk<'_>) -> Result<Option<OwnedFd>> {
    let mut console = None;
    loop {
        let (request, fds) = match spawned.next_request()? {
            Next::Request(request, fds) => (request, fds),
            Next::Silence(silence) => return Err(explain(silence, Some(desk.cgroup))),
        };
        match request {
            Request::InitStarted { pid } => {
                let intermediate = spawned.replace(pid, one(fds, &request)?);
                spawned.see_off(&intermediate)?;
                continue;
            }
            Request::Console => {
                let master = one(fds, &request)?;
                match &desk.console_socket {
                    Some(socket) => terminal::send_master(socket, &master)?,
                    None => {
                        // Before the program can look at it.
                        terminal::adopt(&master)?;
                        console = Some(master);
                    }
                }
            }
            Request::Listener { fd } => {
                let listener = fetch_listener(spawned, fd)?;
                let json = desk.state.to_oci_json(Status::Running, desk.state.init.map(|init| init.pid));
                hand_listener(listener, desk.seccomp, spawned.pid(), &json)?;
            }
            Request::Ready => {
                if let Some(class) = &desk.state.rdt {
                    // A process is born into the class of who makes it: that is ours.
                    rdt::join(class, spawned.pid())?;
                }
                if desk.announced {
                    announce(spawned, desk.args)?;
                    spawned.reply(&Reply::Done, &[])?;
                }
                desk.own.close();
                spawned.until_executed()?;
                return Ok(console);
            }
            request => {
                return Err(Error::new(Kind::System, format!("the process of an exec asked for {request:?}")));
            }
        }
        spawned.reply(&Reply::Done, &[])?;
    }
}

/// Tells the caller which process it is, before its program can run and end.
fn announce(spawned: &Spawned, args: &ExecArgs) -> Result<()> {
    if let Some(socket) = &args.pidfd_socket {
        terminal::send_pidfd(socket, spawned.pidfd())?;
    }
    if let Some(path) = &args.pid_file {
        write_atomically(path, spawned.pid().to_string().as_bytes(), 0o644)?;
    }
    Ok(())
}
