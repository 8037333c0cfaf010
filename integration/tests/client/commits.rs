//! Commits of a container that runs: it stands still meanwhile, and goes on whatever becomes of the commit.

use std::fs;
use std::process::Stdio;

use integration::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World, finish, tarectl};

#[test]
fn a_commit_that_is_ended_lets_the_container_go_on() {
    let world = World::new();
    // It takes minutes to read all of this.
    let id = world.ok(&["run", "-d", "--name", "big", BUSYBOX, "sh", "-c", "truncate -s 64G /file; exec sleep 1000"]);
    wait::until("the file is there", || world.run(&["exec", "big", "test", "-s", "/file"]).code == Some(0));
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT] {
        let commit = world.spawn(&["commit", "big", "image"]);
        world.until("big", ".State.Status", "paused");
        kill(Pid::from_raw(commit.id().cast_signed()), signal).unwrap();
        let ended = commit.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(said, format!("tarectl: commit big: interrupted by {signal}\n"));
        assert_eq!(ended.status.code(), Some(125));
        assert_eq!(world.field("big", ".State.Status"), "running", "{signal}");
        // What the store has begun is no use to anybody, and not in the way of the next.
        let ingests = world.dir.join("store/content/ingests");
        wait::until("the store has let it be", || fs::read_dir(&ingests).unwrap().count() == 0);
    }
    // What nohup has it ignore is none of them.
    let mut commit = world.program("sh".as_ref());
    commit.args(["-c", "trap '' HUP; exec \"$0\" commit big image"]).arg(tarectl());
    let commit = commit.stderr(Stdio::piped()).spawn().unwrap();
    world.until("big", ".State.Status", "paused");
    let status = fs::read_to_string(format!("/proc/{}/status", commit.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 1, 1, "{status}");
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        kill(Pid::from_raw(commit.id().cast_signed()), signal).unwrap();
    }
    let said = String::from_utf8_lossy(&commit.wait_with_output().unwrap().stderr).into_owned();
    assert_eq!(said, "tarectl: commit big: interrupted by SIGTERM\n");
    // One that cannot do anything about it leaves it to the next command; what the user paused stays so.
    let mut commit = world.spawn(&["commit", "big", "image"]);
    world.until("big", ".State.Status", "paused");
    commit.kill().unwrap();
    commit.wait().unwrap();
    assert_eq!(world.field("big", ".State.Status"), "running");
    fs::write(world.run.join("containers").join(&id).join("commit.lock"), "").unwrap();
    world.ok(&["pause", "big"]);
    assert_eq!(world.field("big", ".State.Status"), "paused");
    world.ok(&["rm", "-f", "big"]);
    world.assert_empty();
}

/// Somebody else lets the container go on, or ends it, while it is read: the image is made all the same, and has its name.
#[test]
fn a_commit_does_not_need_the_container_to_stand_still() {
    let world = World::new();
    for words in [&["unpause", "large"][..], &["kill", "large"]] {
        world.ok(&["run", "-d", "--name", "large", BUSYBOX, "sh", "-c", "truncate -s 512M /file; exec sleep 1000"]);
        wait::until("the file is there", || world.run(&["exec", "large", "test", "-s", "/file"]).code == Some(0));
        let commit = world.spawn(&["commit", "large", words[0]]);
        world.until("large", ".State.Status", "paused");
        world.ok(words);
        let (code, out, errors) = finish(commit);
        assert_eq!((code, errors.as_str()), (0, ""), "{words:?}: {out}");
        assert_eq!(world.ok(&["images", "--format", "{{.Repository}}", words[0]]), words[0]);
        world.ok(&["rm", "-f", "large"]);
    }
    world.assert_empty();
}
