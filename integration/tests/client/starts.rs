//! A start whose shim gives up waiting before it is asked for anything, because the network or the disk took so long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use integration::wait;
use nix::sys::signal::{Signal, kill};

use crate::harness::{BUSYBOX, World, finish};

/// How long an idle shim stays, in seconds.
const PATIENCE: u64 = 3;

/// A shim's program that does something after each `start`.
fn program(world: &World, after_start: &str) -> PathBuf {
    let (_, shim) = world.environment().into_iter().find(|(name, _)| *name == "TARECTL_SHIM_PROGRAM").unwrap();
    let text = format!(
        "#!/bin/sh\n{} \"$@\" || exit\nfor action; do :; done\n[ \"$action\" = start ] || exit 0\n{after_start}\nexit 0\n",
        shim.display()
    );
    let path = world.dir.join("shim");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// It stands still while its time passes; the client has come to it by then, and waits for its answer.
#[test]
fn a_shim_that_ends_while_it_is_asked_is_replaced() {
    let world = World::new();
    let (starts, go) = (world.dir.join("starts"), world.dir.join("go"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // The first start returns when it is told to.
    let hold = format!("echo \"$*\" >>{0}\n[ $(wc -l <{0}) = 1 ] && read _ <{1}", starts.display(), go.display());
    let mut client = world.command(&["run", "--name", "late", BUSYBOX, "echo", "well"]);
    client.env("TARECTL_SHIM_PROGRAM", program(&world, &hold)).env("TARE_SHIM_IDLE", PATIENCE.to_string());
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = client.spawn().unwrap();
    let words = wait::file(&starts, |text| text.ends_with('\n'));
    let shim = world.shim(words.split(' ').skip_while(|word| *word != "-id").nth(1).unwrap());
    // Its title says that it serves. Before that it has its starter's standard output, for whose end the client waits.
    let title = || fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
    wait::until("the shim serves", || !title().trim_end_matches('\0').ends_with("start"));
    kill(shim, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    fs::write(go, "\n").unwrap();
    // The socket that listens, and one that waits to be accepted.
    let sockets = world.run.join("shims");
    let connected = || {
        let table = world.in_network(&["cat", "/proc/net/unix"]);
        table.lines().filter(|line| line.contains(sockets.to_str().unwrap())).count() == 2
    };
    wait::until("the client has connected", connected);
    wait::until("the shim's time is over", || stopped.elapsed() > Duration::from_secs(PATIENCE));
    kill(shim, Signal::SIGCONT).unwrap();
    let (code, out, err) = finish(client);
    assert_eq!((code, out.trim_end()), (0, "well"), "{err}");
    let started = fs::read_to_string(starts).unwrap().lines().count();
    assert_eq!(started, 2, "one that gave up, and one that took its place");
    world.ok(&["rm", "late"]);
    world.assert_empty();
}

#[test]
fn shims_that_have_all_ended_are_told_in_a_sentence() {
    let world = World::new();
    let mut client = world.command(&["run", "--name", "never", BUSYBOX, "true"]);
    let until_it_ended = format!("while grep -q {} /proc/net/unix; do :; done", world.run.join("shims").display());
    client.env("TARECTL_SHIM_PROGRAM", program(&world, &until_it_ended)).env("TARE_SHIM_IDLE", "0");
    let ran = integration::store::run(client, None);
    assert_eq!(ran.code, Some(125), "{}", ran.stderr);
    let said = "tarectl: start container never: 3 shims have ended before they were asked: the host has too much to do, try it again\n";
    assert_eq!(ran.stderr, said);
    world.assert_empty();
}
