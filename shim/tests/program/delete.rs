//! `delete`: what it cleans up after a shim, and what it does not touch.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use protobuf::Message;
use tare_proto::task_v3::DeleteResponse;

use crate::bundle::{Bundle, PATIENCE, SHIM, root, runtime, skip};

/// Its answer and its warnings.
fn deleted(bundle: &Bundle) -> (DeleteResponse, String) {
    let output = bundle.shim("delete").output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.seconds > 1_700_000_000);
    (response, words)
}

#[test]
fn delete_asks_the_runtime_that_made_it() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let path = runtime(&bundle, "");
    bundle.write("options.json", &format!(r#"{{"binary_name":"{}","root":"/the/root"}}"#, path.display()));
    bundle.write("init.pid", "4194303");
    for _ in 0..2 {
        let (response, warnings) = deleted(&bundle);
        assert_eq!((response.pid, warnings.as_str()), (4_194_303, ""));
    }
    let log = bundle.path().join("log.json");
    let call = format!("--root /the/root/ns --log {} --log-format json delete --force {}\n", log.display(), bundle.id);
    assert_eq!(fs::read_to_string(bundle.path().join("calls")).unwrap(), call.repeat(2));
}

#[test]
fn delete_goes_on_whatever_fails() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let set = |script: &str| {
        let path = runtime(&bundle, script);
        bundle.write("options.json", &format!(r#"{{"binary_name":"{}"}}"#, path.display()));
    };
    set("echo no idea >&2; exit 1");
    assert!(deleted(&bundle).1.contains("no idea"));
    set("exec sleep 600");
    let warnings = deleted(&bundle).1;
    // The rest takes no time; the daemon gives five seconds to all.
    assert!(warnings.contains("was killed, it did not end within 3000 ms"), "{warnings}");
    bundle.write("options.json", r#"{"binary_name":"/no/such/runtime"}"#);
    assert!(deleted(&bundle).1.contains("/no/such/runtime"));
    bundle.write("options.json", "{");
    bundle.write("runtime", "/no/other/runtime");
    bundle.write("init.pid", "soon");
    let (response, warnings) = deleted(&bundle);
    assert_eq!(response.pid, 0);
    assert!(warnings.contains("options.json") && warnings.contains("init.pid"), "{warnings}");
    // A bundle with nothing in it, and none.
    for entry in fs::read_dir(bundle.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut command = bundle.shim("delete");
    deleted(&bundle);
    fs::remove_dir(bundle.path()).unwrap();
    command.current_dir("/");
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut command = Command::new(SHIM);
    command.arg("-bundle").arg(bundle.path()).args(words).current_dir("/");
    assert!(command.output().unwrap().status.success());
}

#[test]
fn delete_kills_what_the_runtime_left() {
    if !root() {
        return;
    }
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file())
    else {
        return skip("needs busybox");
    };
    let bundle = Bundle::new();
    bundle.write("runtime", "/no/such/runtime");
    let rootfs = bundle.path().join("rootfs");
    fs::create_dir(&rootfs).unwrap();
    fs::copy(busybox, rootfs.join("busybox")).unwrap();
    let sleeper = |command: &mut Command| command.args(["sleep", "600"]).stdout(Stdio::null()).spawn().unwrap();
    // It is no container's first process: its number was used again.
    let mut stranger = sleeper(&mut Command::new(busybox));
    bundle.write("init.pid", &stranger.id().to_string());
    deleted(&bundle);
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let mut chroot = Command::new("chroot");
    let mut init = sleeper(chroot.arg(&rootfs).arg("/busybox"));
    let root = PathBuf::from(format!("/proc/{}/root", init.id()));
    let deadline = Instant::now() + PATIENCE;
    while fs::read_link(&root).unwrap() != rootfs.canonicalize().unwrap() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    bundle.write("init.pid", &init.id().to_string());
    let (response, warnings) = deleted(&bundle);
    assert_eq!(response.pid, init.id());
    assert!(warnings.contains("it is killed"), "{warnings}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&init.wait().unwrap()), Some(9));
}

#[test]
fn delete_unmounts() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("runtime", "/bin/true");
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let script = "mount -t tmpfs one rootfs && mkdir rootfs/sub && mount -t tmpfs two rootfs/sub || exit 9
                  \"$0\" \"$@\" && ! grep \" $PWD/rootfs\" /proc/self/mounts";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, SHIM]).args(bundle.shim("delete").get_args()).current_dir(bundle.path());
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn delete_removes_the_socket_of_a_dead_shim_only() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("runtime", "/bin/true");
    let socket = bundle.start(&bundle.params());
    deleted(&bundle);
    assert!(socket.try_exists().unwrap(), "a living shim lost its socket");
    let server = bundle.server();
    server.signal(Signal::SIGKILL);
    server.ends();
    deleted(&bundle);
    assert!(!socket.try_exists().unwrap(), "the socket is left");
    // A link that leads to nowhere.
    fs::remove_file(bundle.path().join("s")).unwrap();
    symlink("/no/where", bundle.path().join("s")).unwrap();
    deleted(&bundle);
}
