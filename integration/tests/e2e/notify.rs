//! NOTIFY_SOCKET: a service manager hears, through the runtime, that a container's program is ready.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Instant;

use integration::{Bundle, Container, Runtime, sys, wait};

/// The service manager's end.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn listen(rt: &Runtime) -> Manager {
        let path = rt.fresh_path("manager");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager { path, socket }
    }

    fn receive(&self) -> (String, Vec<OwnedFd>) {
        assert!(wait::readable(self.socket.as_fd(), wait::deadline()), "the manager hears nothing");
        let (fds, bytes) = sys::receive_fds(&self.socket).unwrap();
        (String::from_utf8(bytes).unwrap(), fds)
    }

    fn has_heard_nothing(&self) -> bool {
        !wait::readable(self.socket.as_fd(), Instant::now())
    }
}

/// A program that says several things, of which only that it is ready is for the manager to hear.
fn bundle(rt: &Runtime) -> Bundle {
    rt.bundle(&["/bin/probe", "notify", "STATUS=on its way\nMAINPID=1", "STATUS=up\nREADY=1\nMAINPID=1"])
}

/// What the manager is told, and that the runtime (process `teller`) stays until the manager has read it.
#[track_caller]
fn hears_that_it_is_ready(manager: &Manager, main_pid: i32, teller: i32) {
    let (text, fds) = manager.receive();
    assert_eq!((text, fds.len()), (format!("READY=1\nMAINPID={main_pid}"), 0));
    let (text, mut fds) = manager.receive();
    assert_eq!((text.as_str(), fds.len()), ("BARRIER=1", 1));
    assert_eq!(settled(teller), 'S', "the runtime did not wait for the manager");
    fds.clear();
}

/// What a process does once it no longer runs: it sleeps (S) or has ended (Z).
fn settled(pid: i32) -> char {
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
            Some('R' | 'D') => std::thread::yield_now(),
            state => return state.unwrap_or('X'),
        }
    }
}

#[test]
fn start_tells_the_manager_that_the_program_is_ready() {
    let rt = Runtime::from_env();
    let manager = Manager::listen(&rt);
    let container = rt
        .bring_up("create", &bundle(&rt), &[], |command| {
            command.env("NOTIFY_SOCKET", &manager.path);
        })
        .unwrap();
    assert!(manager.has_heard_nothing());
    let start = rt.spawn(&["start", container.id()], |command| {
        command.env("NOTIFY_SOCKET", &manager.path);
    });
    hears_that_it_is_ready(&manager, container.pid(), start.pid());
    start.wait().ok();
    // The container can write to the socket, and do no more.
    let refused = container.exec(&["sh", "-c", "rm /run/notify/notify.sock"]).fails();
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
}

#[test]
fn run_tells_the_manager_that_the_program_is_ready() {
    let rt = Runtime::from_env();
    let manager = Manager::listen(&rt);
    let bundle = bundle(&rt);
    bundle.write();
    let run = |flags: &[&str]| {
        let id = rt.fresh_id();
        let args = [&["run", "--bundle", bundle.path_str()], flags, &[&id]].concat();
        let running = rt.spawn(&args, |command| {
            command.env("NOTIFY_SOCKET", &manager.path);
        });
        (running, id)
    };
    let state = |id: &str| rt.call(&["state", id]).ok().json();

    let pid_file = rt.fresh_path("pid");
    let (detached, id) = run(&["--detach", "--pid-file", pid_file.to_str().unwrap()]);
    let pid = wait::file(&pid_file, |text| !text.is_empty()).parse().unwrap();
    hears_that_it_is_ready(&manager, pid, detached.pid());
    detached.wait().ok();
    assert_eq!(state(&id)["pid"], pid);

    // In the foreground the runtime is the service's main process, and forwards what the manager signals.
    let (foreground, id) = run(&[]);
    hears_that_it_is_ready(&manager, foreground.pid(), foreground.pid());
    wait::file(foreground.stdout_file(), |text| text.contains("told"));
    foreground.signal(nix::sys::signal::Signal::SIGTERM);
    foreground.wait().ok();
    rt.call(&["state", &id]).fails();
}

#[test]
fn a_program_that_ends_without_a_word_holds_nobody_up() {
    let rt = Runtime::from_env();
    let manager = Manager::listen(&rt);
    let container = rt
        .bring_up("run", &rt.bundle(&["/bin/true"]), &["--detach"], |command| {
            command.env("NOTIFY_SOCKET", &manager.path);
        })
        .unwrap();
    container.wait_exit();
    assert!(manager.has_heard_nothing());
}

#[test]
fn a_manager_that_is_not_there_is_an_error() {
    let rt = Runtime::from_env();
    let nowhere = rt.fresh_path("nowhere");
    let output = rt
        .bring_up("run", &bundle(&rt), &["--detach"], |command| {
            command.env("NOTIFY_SOCKET", &nowhere);
        })
        .map(|container: Container<'_>| container.id().to_owned())
        .unwrap_err();
    assert_eq!(output.error(), format!("connect to NOTIFY_SOCKET {}: no such file or directory", nowhere.display()));
    // Without one at its start, a container created for one begins and stands alone.
    let manager = Manager::listen(&rt);
    let container = rt
        .bring_up("create", &rt.bundle(&["/bin/true"]), &[], |command| {
            command.env("NOTIFY_SOCKET", &manager.path);
        })
        .unwrap();
    container.start().ok();
    container.wait_exit();
}
