//! What ties a container to the outside, or to itself: connections, terminals, pipes, locks.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Child;

use integration::Console;
use nix::fcntl::{Flock, FlockArg};

use super::*;

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
