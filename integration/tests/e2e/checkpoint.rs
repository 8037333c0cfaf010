//! Checkpoint and restore, with a real criu found through PATH (`integration/criu-setup` provides one).

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::{Bundle, Console, Container, Leaks, Output, Runtime, skip, wait};
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use serde_json::json;

/// Returns (as skipped) from a test if there is no criu that works here.
macro_rules! need_criu {
    () => {
        match Command::new("criu").arg("check").output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => skip!("criu does not work on this kernel: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => skip!("criu cannot be run: {error}"),
        }
    };
}

/// Whether criu can do this here, by its own word.
fn criu_has(feature: &str) -> bool {
    Command::new("criu").args(["check", "--feature", feature]).output().is_ok_and(|output| output.status.success())
}

/// Files of the host are not a container's to checkpoint, so its standard descriptors are no files here.
fn no_stdio(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
}

/// A container's data directory, on the host and bound to /data, and a bundle with it.
fn with_data(rt: &Runtime, args: &[&str]) -> (PathBuf, Bundle) {
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]});
    (data.clone(), rt.bundle(args).push("/mounts", mount))
}

/// Starts a container that counts into `count` of the directory given.
fn counting(rt: &Runtime) -> (PathBuf, Bundle) {
    let (data, bundle) = with_data(rt, &["/bin/probe", "count", "/data/count"]);
    (data.join("count"), bundle)
}

fn run<'r>(rt: &'r Runtime, bundle: &Bundle) -> Container<'r> {
    rt.bring_up("run", bundle, &["--detach"], no_stdio).unwrap()
}

fn restore<'r>(rt: &'r Runtime, bundle: &Bundle, image: &Path, flags: &[&str]) -> Result<Container<'r>, Output> {
    let mut all = vec!["--detach", "--image-path", text(image)];
    all.extend(flags);
    rt.bring_up("restore", bundle, &all, no_stdio)
}

fn checkpoint(container: &Container<'_>, image: &Path, flags: &[&str]) -> Output {
    let mut all = vec!["--image-path", text(image)];
    all.extend(flags);
    container.call::<&str>("checkpoint", &all, &[])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers counted so far.
fn numbers(content: &str) -> Vec<u64> {
    // The last line may be half written.
    let complete = content.rfind('\n').map_or("", |end| &content[..end]);
    complete.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("a number: {line:?}"))).collect()
}

/// Waits for ten numbers more than there are, and checks that none is missing or twice: the counter went on.
#[track_caller]
fn counts_on(file: &Path) {
    let had = numbers(&fs::read_to_string(file).unwrap_or_default()).len();
    let content = wait::file(file, |content| numbers(content).len() >= had + 10);
    let found = numbers(&content);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_process_goes_on_under_another_id() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    // Content of a tmpfs is part of a checkpoint; the masks and read-only paths are mounts like any.
    first.exec(&["sh", "-c", "echo kept > /dev/shm/file"]).ok();
    let image = rt.fresh_path("image");
    let before = numbers(&fs::read_to_string(&count).unwrap()).len();
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    assert!(image.join("inventory.img").exists() && image.join("dump.log").exists());

    // As with runc, a container that was checkpointed away is gone.
    let gone = first.call::<&str>("state", &[], &[]).fails();
    assert!(gone.error().contains("does not exist"), "{gone:?}");
    let nothing = Leaks::snapshot(&rt);
    assert!(nothing.processes.is_empty() && nothing.cgroups.is_empty() && nothing.mounts.is_empty(), "{nothing:?}");

    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    assert!(numbers(&fs::read_to_string(&count).unwrap()).len() > before);
    let state = second.state();
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(i64::from(second.pid()))));
    assert_eq!(second.exec(&["cat", "/dev/shm/file"]).ok().stdout, "kept\n");
    assert_eq!(second.exec(&["cat", "/proc/keys"]).ok().stdout, "");
    assert_eq!(second.exec(&["hostname"]).ok().stdout, "container\n");
    second.exec(&["sh", "-c", "echo 1 > /proc/sys/kernel/hostname"]).fails();
    // Nothing of the work is left in the host's mount table, nor criu itself in the container's cgroups.
    assert!(Leaks::snapshot(&rt).mounts.is_empty());
    let procs = fs::read_to_string(second.cgroup("pids").join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), second.pid().to_string());

    second.kill("KILL").ok();
    second.wait_exit();
    assert_eq!(second.status(), "stopped");
    second.delete().ok();
}

#[test]
fn a_tree_of_processes_goes_on_and_can_be_saved_again() {
    need_criu!();
    let rt = Runtime::from_env();
    let script = "sleep 1000 & i=0; while :; do i=$((i+1)); echo $i >> /data/count; sleep 0.02; done";
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", script]);
    let count = data.join("count");
    let mut container = run(&rt, &bundle);
    for _ in 0..3 {
        counts_on(&count);
        let image = rt.fresh_path("image");
        checkpoint(&container, &image, &[]).ok();
        container.wait_exit();
        container = restore(&rt, &bundle, &image, &[]).unwrap();
    }
    counts_on(&count);
    let listed = container.exec(&["ps", "-o", "args"]).ok().stdout;
    assert!(listed.contains("sleep 1000"), "{listed}");
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn a_container_left_running_runs_on() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    let work = rt.fresh_path("work");
    checkpoint(&first, &image, &["--leave-running", "--work-path", text(&work)]).ok();
    assert_eq!(first.status(), "running");
    assert!(work.join("dump.log").exists() && !image.join("dump.log").exists());
    counts_on(&count);
    first.exec(&["true"]).ok();

    // The copy sees its own directory in place of the first one's, by its own bundle.
    let (other_count, other) = counting(&rt);
    fs::copy(&count, &other_count).unwrap();
    let second = restore(&rt, &other, &image, &[]).unwrap();
    wait::file(&other_count, |content| {
        content.lines().count() > fs::read_to_string(&count).unwrap().lines().count() / 2
    });
    assert_eq!((first.status(), second.status()), ("running".into(), "running".into()));
    counts_on(&count);
}

#[test]
fn a_paused_container_can_be_saved() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    first.call::<&str>("pause", &[], &[]).ok();
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--leave-running"]).ok();
    assert_eq!(first.status(), "paused");
    first.call::<&str>("resume", &[], &[]).ok();
    counts_on(&count);
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

#[test]
fn a_bind_mount_below_another_is_found_again_in_a_fresh_root() {
    need_criu!();
    let rt = Runtime::from_env();
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    let deep = rt.fresh_path("deep");
    fs::create_dir(&deep).unwrap();
    let file = rt.fresh_path("file");
    fs::write(&file, "a file\n").unwrap();
    let bind = |source: &Path, destination: &str, option: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["bind", option]});
    // `link` leads to `opt`: the mount table knows only the latter.
    let configure = |bundle: Bundle| {
        std::os::unix::fs::symlink("opt", bundle.rootfs().join("link")).unwrap();
        fs::create_dir(bundle.rootfs().join("opt")).unwrap();
        bundle
            .set("/root/readonly", json!(false))
            .push("/mounts", bind(&data, "/link/data", "rw"))
            .push("/mounts", bind(&deep, "/link/data/a/b", "rw"))
            .push("/mounts", bind(&file, "/etc/file", "ro"))
    };
    let bundle = configure(rt.bundle(&["/bin/probe", "count", "/link/data/a/b/count"]));
    let first = run(&rt, &bundle);
    let count = deep.join("count");
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();

    // The new root file system has none of the mount points, and neither has the data directory any more.
    fs::remove_dir_all(data.join("a")).unwrap();
    let fresh = configure(rt.bundle(&["unused"]));
    let second = restore(&rt, &fresh, &image, &[]).unwrap();
    counts_on(&count);
    assert_eq!(second.exec(&["cat", "/etc/file"]).ok().stdout, "a file\n");
    second.exec(&["sh", "-c", "echo no > /etc/file"]).fails();
    assert!(data.join("a/b").is_dir());
}

/// A file system of the test's own that is shared, as every mount of a host with systemd is.
struct SharedMount(PathBuf);

impl SharedMount {
    fn new(rt: &Runtime) -> SharedMount {
        use nix::mount::{MsFlags, mount};
        let place = rt.fresh_path("shared");
        fs::create_dir(&place).unwrap();
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, &place, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        SharedMount(place)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_host_whose_mounts_are_shared_is_left_alone() {
    need_criu!();
    let rt = Runtime::from_env();
    let shared = SharedMount::new(&rt);
    let data = shared.0.join("data");
    let rootfs = shared.0.join("rootfs");
    fs::create_dir(&data).unwrap();
    fs::create_dir(&rootfs).unwrap();
    integration::build_rootfs(&rootfs);
    let bundle = rt
        .bundle(&["/bin/probe", "count", "/data/count"])
        .set("/root/path", json!(rootfs))
        .push("/mounts", json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind"]}));
    let count = data.join("count");
    let before = Leaks::snapshot(&rt);
    let mut container = run(&rt, &bundle);
    for _ in 0..2 {
        counts_on(&count);
        let image = rt.fresh_path("image");
        checkpoint(&container, &image, &[]).ok();
        container.wait_exit();
        container = restore(&rt, &bundle, &image, &[]).unwrap();
        assert_eq!(Leaks::snapshot(&rt).mounts, before.mounts);
    }
    counts_on(&count);
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn a_killed_restore_leaves_what_delete_removes() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let before = Leaks::snapshot(&rt);
    // Killed while a hook waits: everything is half made then.
    let there = rt.fresh_path("there");
    let script = format!("echo > {}; exec sleep 1000", text(&there));
    let bundle = bundle.set("/hooks/createRuntime", json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]));
    bundle.write();
    let id = rt.fresh_id();
    let args = ["restore", "--detach", "--bundle", bundle.path_str(), "--image-path", text(&image), &id];
    let running = rt.spawn(&args, no_stdio);
    wait::file(&there, |content| !content.is_empty());
    running.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(running.wait().code(), 128 + 9);
    rt.call(&["delete", "--force", &id]).ok();
    // The hook is nobody's: it was the killed runtime's to end.
    let left = Leaks::snapshot(&rt);
    for (pid, command) in left.processes.iter().filter(|(_, command)| command.contains("sleep 1000")) {
        assert!(command.contains("sleep"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    before.assert_same(&rt);
}

/// A network namespace of its own with loopback up, kept by a process.
struct Network(Child);

impl Network {
    fn new() -> Network {
        let script = "ip link set lo up && echo up && exec sleep 1000";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux)");
        let mut said = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut said).expect("loopback up");
        Network(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn join(&self, bundle: Bundle) -> Bundle {
        bundle.without_namespace("network").push("/linux/namespaces", json!({"type": "network", "path": self.path()}))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that writes what it hears to a file, and a client that counts to it; 5000 is 1388 in the kernel's table.
const TALKING_TO_ITSELF: &str = "sleep 1000 | nc -l -p 5000 >> /data/count & \
    until grep -qs :1388 /proc/net/tcp /proc/net/tcp6; do :; done; \
    i=0; (while :; do i=$((i+1)); echo $i; sleep 0.02; done) | nc 127.0.0.1 5000";

#[test]
fn connections_to_itself_go_on_in_a_network_namespace_of_its_own() {
    need_criu!();
    let rt = Runtime::from_env();
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", TALKING_TO_ITSELF]);
    let count = data.join("count");
    let first = run(&rt, &bundle);
    wait::file(&count, |content| content.lines().count() > 5);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--tcp-established"]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &["--tcp-established"]).unwrap();
    counts_on(&count);
    let devices = second.exec(&["ip", "-o", "link"]).ok().stdout;
    assert!(devices.contains("lo: <LOOPBACK,UP"), "{devices}");
}

#[test]
fn established_connections_go_on_when_asked() {
    need_criu!();
    let rt = Runtime::from_env();
    let network = Network::new();
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", TALKING_TO_ITSELF]);
    let bundle = network.join(bundle);
    let count = data.join("count");
    let first = run(&rt, &bundle);
    wait::file(&count, |content| content.lines().count() > 5);

    // Refused without the flag, in words and with the log's name; and the container runs on.
    let refused = rt.fresh_path("image");
    let error = checkpoint(&first, &refused, &[]).fails().error();
    assert!(error.contains("criu failed") && error.contains("tcp-established"), "{error}");
    assert!(error.contains(text(&refused.join("dump.log"))), "{error}");
    assert_eq!(first.status(), "running");
    counts_on(&count);

    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--tcp-established"]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &["--tcp-established"]).unwrap();
    counts_on(&count);
    let joined = fs::metadata(format!("/proc/{}/ns/net", second.pid())).unwrap().ino();
    assert_eq!(joined, fs::metadata(network.path()).unwrap().ino());
}

#[test]
fn a_connection_to_a_socket_outside_goes_on_when_asked() {
    need_criu!();
    let rt = Runtime::from_env();
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    let path = data.join("socket");
    // criu looks for the peers of its sockets in their own network namespace only, and finds them again by the name they
    // were bound to: the directory has the same name on both sides.
    let bundle = rt
        .bundle(&["/bin/probe", "datagrams", text(&path)])
        .push("/mounts", json!({"destination": data, "type": "bind", "source": data, "options": ["rbind"]}))
        .without_namespace("network");
    let socket = UnixDatagram::bind(&path).unwrap();
    let first = run(&rt, &bundle);
    let next = || {
        assert!(wait::readable(socket.as_fd(), wait::deadline()), "no datagram came");
        let mut buffer = [0; 32];
        let length = socket.recv(&mut buffer).unwrap();
        std::str::from_utf8(&buffer[..length]).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((1..=10).map(|_| next()).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());

    let error = checkpoint(&first, &rt.fresh_path("image"), &[]).fails().error();
    assert!(error.contains("criu failed"), "{error}");
    assert_eq!(first.status(), "running");

    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--ext-unix-sk"]).ok();
    first.wait_exit();
    // What was sent before is still in the queue: empty it to see what comes after.
    let mut last = 10;
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 32];
    while let Ok(length) = socket.recv(&mut buffer) {
        last = std::str::from_utf8(&buffer[..length]).unwrap().parse().unwrap();
    }
    socket.set_nonblocking(false).unwrap();
    let _second = restore(&rt, &bundle, &image, &["--ext-unix-sk"]).unwrap();
    // The one it was about to send may have been sent already.
    assert_eq!(next(), last + 1);
}

#[test]
fn a_terminal_goes_on_at_a_new_console() {
    need_criu!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh"]).set("/process/terminal", json!(true));
    let console = Console::listen(&rt);
    let first = rt.bring_up("run", &bundle, &["--detach", "--console-socket", text(console.path())], no_stdio).unwrap();
    let (master, _) = console.accept();
    type_into(&master, "word=kept\n");
    Console::read_until(&master, |text| text.contains("word=kept") && text.matches("# ").count() > 1);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    drop(master);

    let console = Console::listen(&rt);
    let second = restore(&rt, &bundle, &image, &["--console-socket", text(console.path())]).unwrap();
    let (master, _) = console.accept();
    type_into(&master, "echo is $word\n");
    Console::read_until(&master, |text| text.contains("is kept"));
    type_into(&master, "exit\n");
    second.wait_exit();
    second.delete().ok();
}

#[test]
fn a_terminal_needs_a_console_socket_to_be_restored_detached() {
    need_criu!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh"]).set("/process/terminal", json!(true));
    let image = rt.fresh_path("image");
    fs::create_dir(&image).unwrap();
    let error = restore(&rt, &bundle, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains("console socket") || error.contains("console-socket"), "{error}");
}

fn type_into(master: &OwnedFd, text: &str) {
    fs::File::from(master.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
}

#[test]
fn file_locks_are_kept_when_asked() {
    need_criu!();
    let rt = Runtime::from_env();
    let (data, bundle) = with_data(&rt, &["/bin/probe", "lock", "/data/file"]);
    let file = data.join("file");
    fs::write(&file, "").unwrap();
    let locked = || Flock::lock(fs::File::open(&file).unwrap(), FlockArg::LockExclusiveNonblock).is_err();
    // It says "locked" to nobody, so the kernel's list of locks is asked, until its end by the deadline of the test.
    let bundle = bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/sh", "-c", "exec probe lock /data/file > /data/said"]);
    });
    let first = run(&rt, &bundle);
    wait::file(&data.join("said"), |text| text.contains("locked"));
    assert!(locked());

    let error = checkpoint(&first, &rt.fresh_path("image"), &[]).fails().error();
    assert!(error.contains("lock"), "{error}");

    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--file-locks"]).ok();
    first.wait_exit();
    assert!(!locked());
    let second = restore(&rt, &bundle, &image, &["--file-locks"]).unwrap();
    assert!(locked());
    second.kill("TERM").ok();
    second.wait_exit();
    assert!(!locked());
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
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
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

#[test]
fn each_way_to_treat_cgroups_keeps_the_limits() {
    need_criu!();
    for mode in ["", "soft", "full", "strict", "ignore"] {
        let rt = Runtime::from_env();
        let (count, bundle) = counting(&rt);
        let bundle = bundle.set("/linux/resources/pids/limit", json!(77));
        let first = run(&rt, &bundle);
        counts_on(&count);
        let flags: &[&str] = if mode.is_empty() { &[] } else { &["--manage-cgroups-mode", mode] };
        let image = rt.fresh_path("image");
        checkpoint(&first, &image, flags).ok();
        first.wait_exit();
        let second = match restore(&rt, &bundle, &image, flags) {
            Ok(second) => second,
            Err(output) => panic!("{mode}: {output:?}"),
        };
        counts_on(&count);
        let cgroup = second.cgroup("pids");
        assert!(text(&cgroup).contains(rt.tag()), "{mode}: {}", cgroup.display());
        assert_eq!(fs::read_to_string(cgroup.join("pids.max")).unwrap(), "77\n", "{mode}");
    }
}

/// A container in namespaces that are not the usual ones is saved and restored, and a process executed in it sees the same.
fn goes_on_in(rt: &Runtime, bundle: Bundle, count: &Path, what: &str) {
    let mut container = run(rt, &bundle);
    for _ in 0..2 {
        counts_on(count);
        let image = rt.fresh_path("image");
        let saved = checkpoint(&container, &image, &[]);
        assert!(saved.status.success(), "{what}: {saved:?}");
        container.wait_exit();
        container = restore(rt, &bundle, &image, &[]).unwrap_or_else(|output| panic!("{what}: {output:?}"));
    }
    counts_on(count);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let seen = container.exec(&["readlink", &format!("/proc/self/ns/{kind}")]).ok().stdout;
        let init = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).unwrap();
        assert_eq!(seen.trim(), text(&init), "{what}");
    }
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn every_sort_of_namespace_is_found_again() {
    need_criu!();
    type Change = fn(Bundle) -> Bundle;
    let cases: [(&str, Change); 4] = [
        ("as usual", |bundle| bundle),
        ("a cgroup namespace", |bundle| bundle.push("/linux/namespaces", json!({"type": "cgroup"}))),
        ("the host's uts, ipc and network", |bundle| {
            ["uts", "ipc", "network"]
                .iter()
                .fold(bundle.remove("/hostname"), |bundle, kind| bundle.without_namespace(kind))
        }),
        ("the host's pids", |bundle| bundle.without_namespace("pid")),
    ];
    for (what, change) in cases {
        let rt = Runtime::from_env();
        let (count, bundle) = counting(&rt);
        goes_on_in(&rt, change(bundle), &count, what);
    }
}

#[test]
fn a_user_namespace_is_saved_and_a_restore_that_criu_cannot_do_leaves_nothing() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    std::os::unix::fs::chown(count.parent().unwrap(), Some(100_000), Some(100_000)).unwrap();
    let bundle = bundle.with_user_namespace();
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--leave-running"]).ok();
    counts_on(&count);
    first.kill("KILL").ok();
    first.wait_exit();
    first.delete().ok();
    let before = Leaks::snapshot(&rt);
    match restore(&rt, &bundle, &image, &[]) {
        Ok(_) => {}
        Err(output) => {
            // The processes of the new user namespace open the images themselves, which are the host's root's.
            assert!(output.error().contains("criu failed"), "{output:?}");
            before.assert_same(&rt);
            skip!("this criu does not restore into a user namespace: {}", output.error());
        }
    }
}

#[test]
fn joined_namespaces_are_joined_again() {
    need_criu!();
    let rt = Runtime::from_env();
    // The pause container of a pod.
    let pod = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let (count, bundle) = counting(&rt);
    let join = |bundle: Bundle, kind: &str, file: &str| {
        let path = format!("/proc/{}/ns/{file}", pod.pid());
        bundle.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path}))
    };
    let bundle = join(join(bundle.remove("/hostname"), "network", "net"), "ipc", "ipc");
    let bundle = join(bundle, "uts", "uts");
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    for file in ["net", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(of(second.pid()), of(pod.pid()));
    }
}

#[test]
fn images_are_exchanged_with_runc() {
    need_criu!();
    let Some(runc) = ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(Path::new).find(|path| path.is_file()) else {
        skip!("there is no runc");
    };
    for (saves, restores) in [(None, Some(runc)), (Some(runc), None)] {
        let open = |binary: Option<&Path>| binary.map_or_else(Runtime::from_env, Runtime::of_binary);
        let (one, other) = (open(saves), open(restores));
        let (count, bundle) = counting(&one);
        let first = run(&one, &bundle);
        counts_on(&count);
        let image = one.fresh_path("image");
        checkpoint(&first, &image, &[]).ok();
        first.wait_exit();
        let _second = restore(&other, &bundle, &image, &[]).unwrap();
        counts_on(&count);
    }
}

#[test]
fn a_seccomp_filter_stays() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
    let bundle = bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    let status = fs::read_to_string(format!("/proc/{}/status", second.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let refused = second.exec(&["mkdir", "/dev/shm/x"]).fails();
    assert!(refused.stderr.contains("not supported"), "{refused:?}");
}

#[test]
fn a_pid_file_that_cannot_be_written_undoes_a_restore() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let before = Leaks::snapshot(&rt);
    let pid_file = rt.work().join("missing/pid");
    let id = rt.fresh_id();
    let args = [
        "restore",
        "--detach",
        "--bundle",
        bundle.path_str(),
        "--image-path",
        text(&image),
        "--pid-file",
        text(&pid_file),
        &id,
    ];
    let error = rt.spawn(&args, no_stdio).wait().fails().error();
    assert!(error.contains(text(&pid_file)), "{error}");
    before.assert_same(&rt);
}

#[test]
fn a_restored_container_is_managed_like_any_other() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    second.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(second.status(), "paused");
    second.call::<&str>("resume", &[], &[]).ok();
    counts_on(&count);
    second.call::<&str>("update", &["--pids-limit", "33"], &[]).ok();
    assert_eq!(fs::read_to_string(second.cgroup("pids").join("pids.max")).unwrap(), "33\n");
    let listed = second.call::<&str>("ps", &["--format", "json"], &[]).ok().json();
    assert_eq!(listed, json!([second.pid()]));
    let twice = second.call::<&str>("start", &[], &[]).fails();
    assert!(twice.error().contains("running"), "{twice:?}");
    second.kill("KILL").ok();
    second.wait_exit();
    second.delete().ok();
}

#[test]
fn a_terminal_is_relayed_by_a_restore_in_the_foreground() {
    need_criu!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh"]).set("/process/terminal", json!(true));
    let console = Console::listen(&rt);
    let first = rt.bring_up("run", &bundle, &["--detach", "--console-socket", text(console.path())], no_stdio).unwrap();
    let (master, _) = console.accept();
    type_into(&master, "word=kept\n");
    Console::read_until(&master, |text| text.contains("word=kept") && text.matches("# ").count() > 1);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let id = rt.fresh_id();
    let args = ["restore", "--bundle", bundle.path_str(), "--image-path", text(&image), &id];
    let (input, mut typed) = std::io::pipe().unwrap();
    let running = rt.spawn(&args, |command| {
        command.stdin(input);
    });
    typed.write_all(b"echo is $word; exit 5\n").unwrap();
    let output = running.wait();
    assert!(output.stdout.contains("is kept"), "{output:?}");
    assert_eq!(output.code(), 5);
}

#[test]
fn strict_refuses_cgroups_that_exist() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let parent = first.cgroup("pids");
    let taken = parent.with_file_name(format!("{}taken", rt.tag()));
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    fs::create_dir(&taken).unwrap();
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/{}taken", rt.tag())));
    let error = restore(&rt, &bundle, &image, &["--manage-cgroups-mode", "strict"]).unwrap_err().fails().error();
    assert!(error.contains("taken exists already"), "{error}");
    fs::remove_dir(&taken).unwrap();
    let _second = restore(&rt, &bundle, &image, &["--manage-cgroups-mode", "strict"]).unwrap();
    counts_on(&count);
}

#[test]
fn a_restored_network_namespace_is_there_for_the_hooks_to_fill() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let said = rt.fresh_path("said");
    let script = format!("cat > {}; readlink /proc/self/ns/net > {}", text(&said), text(&said.with_extension("net")));
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--empty-ns", "network"]).ok();
    first.wait_exit();
    let bundle = bundle.set("/hooks/createRuntime", hook);
    let second = restore(&rt, &bundle, &image, &["--empty-ns", "network"]).unwrap();
    counts_on(&count);
    // The hook runs beside the runtime and is told the pid whose namespaces stand.
    let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(&said).unwrap()).unwrap();
    assert_eq!(state["pid"].as_i64(), Some(i64::from(second.pid())));
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(fs::read_to_string(said.with_extension("net")).unwrap().trim(), text(&host));
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", second.pid())).unwrap(), host);
}

#[test]
fn a_failing_hook_undoes_a_restore() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let before = Leaks::snapshot(&rt);
    let failing = bundle.set("/hooks/createRuntime", json!([{"path": "/bin/false", "args": ["false"]}]));
    let error = restore(&rt, &failing, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains("/bin/false"), "{error}");
    before.assert_same(&rt);
}

#[test]
fn the_output_goes_on_into_a_new_pipe() {
    need_criu!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "count", "/dev/stdout"]);
    let (read_end, write_end) = std::io::pipe().unwrap();
    let first = rt
        .bring_up("run", &bundle, &["--detach"], |command| {
            command.stdin(Stdio::null()).stdout(write_end).stderr(Stdio::null());
        })
        .unwrap();
    let before = read_lines(read_end, 10, || {
        let image = rt.work().join("image");
        checkpoint(&first, &image, &[]).ok();
        first.wait_exit();
    });

    let (read_end, write_end) = std::io::pipe().unwrap();
    let image = rt.work().join("image");
    let second = rt
        .bring_up("restore", &bundle, &["--detach", "--image-path", text(&image)], |command| {
            command.stdin(Stdio::null()).stdout(write_end).stderr(Stdio::null());
        })
        .unwrap();
    let after = read_lines(read_end, 10, || {
        second.kill("KILL").ok();
        second.wait_exit();
    });
    let all: Vec<u64> = before.into_iter().chain(after).collect();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
}

/// Reads so many lines, does something that ends the writer, and reads what is left.
fn read_lines(pipe: std::io::PipeReader, some: usize, then: impl FnOnce()) -> Vec<u64> {
    let mut all = String::new();
    let mut pipe = pipe;
    while all.lines().count() <= some {
        assert!(wait::readable(pipe.as_fd(), wait::deadline()), "nothing more came after {all:?}");
        let mut buffer = [0; 4096];
        let length = pipe.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the pipe ended");
        all += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    then();
    pipe.read_to_string(&mut all).unwrap();
    all.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_restore_in_the_foreground_tells_the_status() {
    need_criu!();
    let rt = Runtime::from_env();
    let script = "trap 'exit 7' TERM; echo $$ > /data/ready; while :; do sleep 0.02; done";
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", script]);
    let first = run(&rt, &bundle);
    wait::file(&data.join("ready"), |text| text.contains('1'));
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let id = rt.fresh_id();
    let pid_file = rt.work().join("restored.pid");
    let args =
        ["restore", "--bundle", bundle.path_str(), "--image-path", text(&image), "--pid-file", text(&pid_file), &id];
    let running = rt.spawn(&args, no_stdio);
    wait::file(&pid_file, |text| !text.is_empty());
    // The runtime forwards the signal to the restored init.
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.wait().code(), 7);
    assert!(!rt.root().join(&id).exists());
}

#[test]
fn a_failed_restore_leaves_nothing() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let before = Leaks::snapshot(&rt);

    // No image, an empty image, a damaged image, a bundle without the mount's source.
    let missing = rt.fresh_path("missing");
    let error = restore(&rt, &bundle, &missing, &[]).unwrap_err().fails().error();
    assert!(error.contains(text(&missing)), "{error}");
    before.assert_same(&rt);

    let empty = rt.fresh_path("empty");
    fs::create_dir(&empty).unwrap();
    restore(&rt, &bundle, &empty, &[]).unwrap_err().fails();
    before.assert_same(&rt);

    let damaged = rt.fresh_path("damaged");
    fs::create_dir(&damaged).unwrap();
    for entry in fs::read_dir(&image).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), damaged.join(entry.file_name())).unwrap();
    }
    fs::write(damaged.join("pstree.img"), "no image").unwrap();
    let error = restore(&rt, &bundle, &damaged, &[]).unwrap_err().fails().error();
    assert!(error.contains("criu failed") && error.contains(text(&damaged.join("restore.log"))), "{error}");
    before.assert_same(&rt);

    fs::remove_dir_all(count.parent().unwrap()).unwrap();
    let error = restore(&rt, &bundle, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains(text(count.parent().unwrap())), "{error}");
    before.assert_same(&rt);
}

#[test]
fn what_cannot_be_saved_is_refused_in_words() {
    need_criu!();
    let rt = Runtime::from_env();
    let image = rt.fresh_path("image");
    let created = rt.bring_up("create", &rt.bundle(&["/bin/true"]), &[], no_stdio).unwrap();
    let error = checkpoint(&created, &image, &[]).fails().error();
    assert!(error.contains("created"), "{error}");
    created.start().ok();
    created.wait_exit();
    let error = checkpoint(&created, &image, &[]).fails().error();
    assert!(error.contains("stopped"), "{error}");

    let (count, bundle) = counting(&rt);
    let running = run(&rt, &bundle);
    counts_on(&count);
    for (flags, word) in [
        (&["--parent-path", "/absolute"][..], "relative"),
        (&["--parent-path", "missing"][..], "missing"),
        (&["--page-server", "nonsense"][..], "ADDRESS:PORT"),
        (&["--page-server", "127.0.0.1:x"][..], "port"),
        (&["--manage-cgroups-mode", "odd"][..], "odd"),
        (&["--empty-ns", "mount"][..], "empty-ns"),
        (&["--lazy-pages", "--page-server", "127.0.0.1:1", "--status-fd", "987"][..], "status-fd"),
    ] {
        let error = checkpoint(&running, &image, flags).fails().error();
        assert!(error.to_lowercase().contains(&word.to_lowercase()), "{flags:?}: {error}");
    }
    counts_on(&count);
}

#[test]
fn a_missing_criu_is_said_with_the_remedy() {
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let container = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    let without = |command: &mut Command| {
        command.env("PATH", "/nonexistent");
    };
    let args = ["checkpoint", "--image-path", text(&image), container.id()];
    let error = rt.spawn(&args, without).wait().fails().error();
    assert!(error.contains("criu") && error.contains("package"), "{error}");
    assert_eq!(container.status(), "running");

    fs::create_dir_all(&image).unwrap();
    let before = Leaks::snapshot(&rt);
    let id = rt.fresh_id();
    let args: [&OsStr; 6] = [
        "restore".as_ref(),
        "--bundle".as_ref(),
        bundle.path().as_ref(),
        "--image-path".as_ref(),
        image.as_ref(),
        id.as_ref(),
    ];
    let error = rt.spawn(&args, without).wait().fails().error();
    assert!(error.contains("criu") && error.contains("package"), "{error}");
    before.assert_same(&rt);
}
