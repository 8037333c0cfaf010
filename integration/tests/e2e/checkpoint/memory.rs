//! Where the memory goes, and when: earlier dumps, page servers, lazy pages.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Child;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::*;

/// Whether criu can do this here, by its own word.
fn criu_has(feature: &str) -> bool {
    Command::new("criu").args(["check", "--feature", feature]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn an_earlier_dump_of_the_memory_is_built_upon() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let container = run(&rt, &bundle);
    counts_on(&count);
    let images = rt.fresh_path("images");
    fs::create_dir(&images).unwrap();
    let pre = checkpoint(&container, &images.join("one"), &["--pre-dump"]);
    if !criu_has("mem_dirty_track") {
        // Said in one sentence, and the container is not harmed.
        assert!(pre.fails().error().contains("memory tracking"));
        counts_on(&count);
        skip!("this kernel does not track changes of memory (CONFIG_MEM_SOFT_DIRTY)");
    }
    pre.ok();
    assert_eq!(container.status(), "running");
    counts_on(&count);
    checkpoint(&container, &images.join("two"), &["--parent-path", "../one"]).ok();
    container.wait_exit();
    assert!(images.join("two/parent").is_symlink());
    let second = restore(&rt, &bundle, &images.join("two"), &[]).unwrap();
    counts_on(&count);
    drop(second);
}

/// Starts `criu lazy-pages`, which hands the pages of an image to the processes that ask for them, and ends when it has
/// handed out all.
fn lazy_pages_daemon(image: &Path, work: &Path, flags: &[&str]) -> Child {
    fs::create_dir(work).unwrap();
    let mut command = Command::new("criu");
    command.args(["lazy-pages", "--images-dir", text(image), "--work-dir", text(work), "-o", "lazy.log"]).args(flags);
    let daemon = command.spawn().unwrap();
    wait_for_entry(work, "lazy-pages.socket");
    daemon
}

#[test]
fn memory_can_follow_later() {
    need_criu!();
    if !criu_has("uffd-noncoop") {
        skip!("this kernel or machine has no userfaultfd");
    }
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let work = rt.fresh_path("lazy");
    let mut daemon = lazy_pages_daemon(&image, &work, &[]);
    let _second = restore(&rt, &bundle, &image, &["--lazy-pages", "--work-path", text(&work)]).unwrap();
    counts_on(&count);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn memory_can_stay_behind_until_it_is_asked_for() {
    need_criu!();
    if !criu_has("uffd-noncoop") {
        skip!("this kernel or machine has no userfaultfd");
    }
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    let port = free_port().to_string();
    let server = format!("127.0.0.1:{port}");
    let (mut ready, write_end) = std::io::pipe().unwrap();
    inherited(&write_end);
    let status_fd = write_end.as_raw_fd().to_string();
    let flags = [
        "checkpoint",
        "--image-path",
        text(&image),
        "--lazy-pages",
        "--page-server",
        &server,
        "--status-fd",
        &status_fd,
    ];
    let args: Vec<&str> = flags.into_iter().chain([first.id()]).collect();
    let dump = rt.spawn(&args, |_| {});
    drop(write_end);
    let mut byte = [1];
    assert!(wait::readable(ready.as_fd(), wait::deadline()), "the page server did not become ready");
    assert_eq!((ready.read(&mut byte).unwrap(), byte), (1, [0]));
    // Nobody keeps it open: who waits for its end sees it.
    assert!(wait::readable(ready.as_fd(), wait::deadline()), "the status descriptor stays open");
    assert_eq!(ready.read(&mut byte).unwrap(), 0);
    if !has_cap_sys_resource() {
        // The dump waits for somebody who fetches the pages, and ends when that one goes.
        drop(std::net::TcpStream::connect(&server).unwrap());
        dump.wait();
        skip!("criu's page server needs CAP_SYS_RESOURCE (for large pipes): pages cannot be fetched from it");
    }
    let work = rt.fresh_path("lazy");
    let mut daemon = lazy_pages_daemon(&image, &work, &["--page-server", "--address", "127.0.0.1", "--port", &port]);
    let _second = restore(&rt, &bundle, &image, &["--lazy-pages", "--work-path", text(&work)]).unwrap();
    dump.wait().ok();
    daemon.wait().unwrap();
    first.wait_exit();
    counts_on(&count);
}

/// Whether this process may exceed resource limits (capability 24).
fn has_cap_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() >> 24 & 1 == 1
}

/// Waits until a directory has an entry of that name.
fn wait_for_entry(dir: &Path, name: &str) {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    inotify.add_watch(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).unwrap();
    while fs::symlink_metadata(dir.join(name)).is_err() {
        assert!(wait::readable(inotify.as_fd(), wait::deadline()), "{name} did not appear in {}", dir.display());
        let _ = inotify.read_events();
    }
}

fn inherited(fd: &impl AsFd) {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
}

/// A port nobody listens on just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn memory_can_go_to_a_page_server() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    fs::create_dir(&image).unwrap();
    let port = free_port();
    // It says with a byte on its status descriptor when it listens, and ends after one dump.
    let (mut ready, write_end) = std::io::pipe().unwrap();
    inherited(&write_end);
    let mut server = Command::new("criu")
        .args(["page-server", "--address", "127.0.0.1", "--port", &port.to_string()])
        .args(["--images-dir", text(&image), "-o", "server.log", "--status-fd", &write_end.as_raw_fd().to_string()])
        .spawn()
        .unwrap();
    drop(write_end);
    assert!(wait::readable(ready.as_fd(), wait::deadline()), "the page server did not become ready");
    assert_eq!(ready.read(&mut [0]).unwrap(), 1);
    checkpoint(&first, &image, &["--page-server", &format!("127.0.0.1:{port}")]).ok();
    first.wait_exit();
    assert!(server.wait().unwrap().success());
    let _second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
}
