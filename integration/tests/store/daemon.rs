//! The daemon's life.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use integration::skip;
use integration::store::{self, Daemon, run, tempdir};

#[test]
fn without_a_daemon_one_sentence_says_what_to_do() {
    let dir = tempdir();
    let ran = run(store::client(&dir.join("run/ttrpc.sock"), &["images"]), None).fails();
    assert!(ran.stderr.contains("no store listens on") && ran.stderr.contains("tare-store serve"), "{}", ran.stderr);
    assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (1, ""));
    std::fs::remove_dir(&dir).unwrap();
}

#[test]
fn what_was_stored_is_there_after_a_restart_and_after_a_kill() {
    let dir = tempdir();
    let daemon = Daemon::start_in(&dir, &[]);
    let mode = |path: &str| dir.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("root"), mode("run"), mode("run/ttrpc.sock")), (0o700, 0o700, 0o600));
    let digest = daemon.fed(&["content", "put", "a"], b"hello").ok().stdout;
    let half = daemon.json(&["content", "ingests"]);
    assert_eq!(half, serde_json::json!([]));
    daemon.stop();

    let daemon = Daemon::start_in(&dir, &[]);
    assert_eq!(daemon.run(&["content", "get", digest.trim()]).ok().stdout, "hello");
    let other = daemon.fed(&["content", "put", "b"], b"other").ok().stdout;
    daemon.kill();
    let daemon = Daemon::start_in(&dir, &[]);
    assert_eq!(daemon.run(&["content", "get", other.trim()]).ok().stdout, "other");
    assert_eq!(daemon.run(&["fsck"]).ok().stdout, "0 problems, 0 repaired\n");
    daemon.stop();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_second_daemon_is_refused_on_the_same_root_and_on_the_same_socket() {
    let daemon = Daemon::start();
    let (root, elsewhere) = (daemon.dir.join("root"), daemon.dir.join("other"));
    let same_root = run(store::serve_on(&elsewhere.join("s"), &root, &[]), None).fails();
    assert!(same_root.stderr.contains("in use by process"), "{}", same_root.stderr);
    let same_socket = run(store::serve_on(&daemon.socket(), &elsewhere, &[]), None).fails();
    assert!(same_socket.stderr.contains("another daemon listens"), "{}", same_socket.stderr);
    daemon.run(&["info"]).ok();
    daemon.stop();
}

#[test]
fn wrong_flags_end_with_2_and_help_with_0() {
    let dir = tempdir();
    for (flags, word) in [
        (vec!["--parallel", "0"], "PARALLEL"),
        (vec!["--stall", "soon"], "STALL"),
        (vec!["--log-level", "loud"], "level"),
        (vec!["--no-such"], "--no-such"),
    ] {
        let ran = run(store::serve(&dir, &flags), None);
        assert_eq!(ran.code, Some(2), "{flags:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(word), "{flags:?}: {}", ran.stderr);
    }
    let ran = run(store::serve(&dir, &["--snapshotter", "zfs"]), None).fails();
    assert!(ran.stderr.contains("zfs"), "{}", ran.stderr);
    let help = run(store::client(&dir, &["--help"]), None).ok();
    assert!(help.stdout.contains("Exit status: 0 done, 1 failed, 2 wrong usage."), "{}", help.stdout);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn it_takes_its_socket_from_a_service_manager() {
    let dir = tempdir();
    let listener = UnixListener::bind(dir.join("passed")).unwrap();
    let daemon = Daemon::spawn(&dir, &[], |command| {
        // The shell puts the socket at 3 and becomes the daemon, whose process number it knows.
        let words: Vec<_> = std::iter::once(command.get_program().to_owned())
            .chain(command.get_args().map(ToOwned::to_owned))
            .collect();
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"").arg("sh").args(words);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let log = std::fs::OpenOptions::new().append(true).open(dir.join("log")).unwrap();
        shell.stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
        shell.stdout(log.try_clone().unwrap()).stderr(log);
        *command = shell;
    });
    assert!(!daemon.socket().exists(), "it made none of its own");
    run(store::client(&dir.join("passed"), &["info"]), None).ok();
    daemon.stop();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_nobody_refers_to_goes_by_itself() {
    let dir = tempdir();
    let daemon = Daemon::start_in(&dir, &["--gc-delay", "50ms"]);
    let digest = daemon.fed(&["content", "put", "a"], b"hello").ok().stdout;
    let hex = digest.trim().strip_prefix("sha256:").unwrap();
    let blob = dir.join("root/content/blobs/sha256").join(hex);
    assert!(blob.exists());
    // Ending a lease is a removal like any other.
    daemon.run(&["lease", "create", "l"]).ok();
    daemon.run(&["lease", "rm", "l"]).ok();
    integration::wait::file(&dir.join("log"), |log| log.contains("collected"));
    assert!(!blob.exists());
    daemon.stop();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// On a host that has just booted nobody has loaded overlayfs yet, where it is a module. The daemon that first wants it does.
#[test]
fn overlayfs_is_found_before_its_module_is_loaded() {
    let loaded = || std::fs::read_to_string("/proc/filesystems").unwrap().lines().any(|it| it == "nodev\toverlay");
    if loaded() {
        skip!("overlayfs is part of this kernel, or its module is loaded (integration/vm store overlayfs_is_found)");
    }
    let daemon = Daemon::start();
    assert!(loaded());
    assert_eq!(daemon.json(&["info"])["defaultSnapshotter"], "overlayfs");
    daemon.stop();
}
