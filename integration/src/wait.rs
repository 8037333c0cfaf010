//! Waiting for events, each with a deadline.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// How long anything here may take: 60 seconds, or `TARE_DEADLINE` seconds. Only a hang reaches it.
pub fn limit() -> Duration {
    let seconds = std::env::var("TARE_DEADLINE").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    Duration::from_secs(seconds)
}

/// When that is over, from now on.
pub fn deadline() -> Instant {
    Instant::now() + limit()
}

/// Waits until the descriptor is readable (or hung up); false when the deadline came first.
pub fn readable(fd: BorrowedFd<'_>, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return true,
            Err(e) => panic!("poll: {e}"),
        }
    }
}

/// Waits until one of two descriptors is readable (or hung up), and says whether the first is; at the deadline neither is.
pub fn first_readable(first: BorrowedFd<'_>, second: BorrowedFd<'_>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(first, PollFlags::POLLIN), PollFd::new(second, PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Err(nix::errno::Errno::EINTR) => first_readable(first, second, until),
        Ok(_) => fds[0].any().unwrap_or(false),
        Err(e) => panic!("poll: {e}"),
    }
}

/// Like [`readable`], for the end of a container or of a runtime that waits for one: meanwhile reaps what such a container
/// left to us. An init does not end before everything in its pid namespace has been reaped, and of a process that was moved
/// in from outside (by exec) whose own parent is gone, that is up to this process.
pub fn readable_while_reaping(fd: BorrowedFd<'_>, until: Instant) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    while !readable(fd, until.min(Instant::now() + LOOK_EVERY)) {
        if Instant::now() >= until {
            return false;
        }
        reap_strays();
    }
    true
}

/// Reaps children of ours that have ended, are in another pid namespace and not its init, and that no
/// [`Orphan`](crate::Orphan) has charge of. The runtimes that tests start are in our own namespace, so never among them.
fn reap_strays() {
    let me = std::process::id().to_string();
    let entries = fs::read_dir("/proc").expect("read /proc");
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
        let inner: Vec<&str> = field("NSpid:").split_whitespace().skip(1).collect();
        let stray =
            field("State:").starts_with('Z') && field("PPid:") == me && inner.last().is_some_and(|pid| *pid != "1");
        if stray && !crate::container::is_adopted(pid) {
            let _ =
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        }
    }
}

/// Waits for the end of a child of ours; one that has none by the deadline is killed, and the test fails.
pub fn child(child: &mut std::process::Child) -> std::process::ExitStatus {
    let pid = i32::try_from(child.id()).expect("a process number");
    // One that has ended already is reaped below.
    let ended = crate::sys::pidfd_open(pid).map(|it| readable(it.as_fd(), deadline()));
    if matches!(ended, Ok(false)) {
        let _ = child.kill();
        let _ = child.wait();
        panic!("process {pid} did not end in time");
    }
    child.wait().expect("wait for a child")
}

/// Waits until the file exists and its content satisfies `enough`; returns the content. Panics at the deadline.
/// The file's directory must exist already.
pub fn file(path: &Path, enough: impl Fn(&str) -> bool) -> String {
    let until = deadline();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify_init1");
    let directory = path.parent().expect("a file in a directory");
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE;
    inotify.add_watch(directory, events).unwrap_or_else(|e| panic!("watch {}: {e}", directory.display()));
    loop {
        // Read after the watch stands, so that no change falls between the two.
        let content = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if let Ok(content) = &content
            && enough(content)
        {
            return content.clone();
        }
        if !readable(inotify.as_fd(), until) {
            panic!("waiting for {}: the deadline passed; it holds {content:?}", path.display());
        }
        let _ = inotify.read_events();
    }
}

/// Waits until this holds, for what tells nobody that it happened: asked again and again, each time of another process. Panics at the
/// deadline.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = deadline();
    while !holds() {
        assert!(Instant::now() < until, "waiting until {what}: the deadline passed");
        std::thread::yield_now();
    }
}
