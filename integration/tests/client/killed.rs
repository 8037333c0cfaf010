//! Anything may be killed at any moment: the next command tells the truth, cleans up, and nothing is left.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use integration::{sys, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World, finish, until_gone};

/// Kills a command after so long, unless it has ended by then.
fn killed_after(mut child: Child, after: Duration) {
    let pidfd = sys::pidfd_open(child.id().cast_signed()).expect("watch tarectl");
    wait::readable(std::os::fd::AsFd::as_fd(&pidfd), Instant::now() + after);
    let _ = child.kill();
    let _ = child.wait();
}

/// How long a command takes, roughly: the moments at which it is killed are spread over that.
fn spread(world: &World, words: &[&str]) -> Duration {
    let began = Instant::now();
    world.run(words);
    began.elapsed()
}

#[test]
fn a_client_that_is_killed_while_it_runs_a_container() {
    let world = World::new();
    let long = spread(&world, &["run", "--rm", BUSYBOX, "true"]);
    for step in 0..24 {
        let child = world.spawn(&["run", "--rm", "--name", "victim", BUSYBOX, "true"]);
        killed_after(child, long * step / 20);
        // What it left runs to its end by itself, or is no more: either is told.
        wait::until("the victim is gone", || {
            !world.ok(&["ps", "-a", "--format", "{{.Names}}"]).contains("victim") || {
                world.run(&["rm", "-f", "victim"]).code == Some(0)
            }
        });
        world.assert_empty();
    }
}

#[test]
fn a_client_that_is_killed_while_it_starts_a_container() {
    let world = World::new();
    world.ok(&["create", "--name", "victim", BUSYBOX, "sleep", "1000"]);
    let long = spread(&world, &["start", "victim"]);
    world.ok(&["stop", "-t", "0", "victim"]);
    for step in 0..20 {
        killed_after(world.spawn(&["start", "victim"]), long * step / 16);
        let status = world.field("victim", ".State.Status");
        match status.as_str() {
            "running" => assert_eq!(world.ok(&["exec", "victim", "echo", "up"]), "up"),
            "exited" | "created" => world.assert_idle(),
            other => panic!("{other} after {step}"),
        }
        world.ok(&["start", "victim"]);
        assert_eq!(world.field("victim", ".State.Status"), "running");
        world.ok(&["kill", "victim"]);
        world.assert_idle();
    }
}

#[test]
fn a_client_that_is_killed_while_it_ends_a_container() {
    let world = World::new();
    for (words, rest) in
        [(&["stop", "-t", "0"][..], true), (&["kill"], true), (&["rm", "-f"], false), (&["restart", "-t", "0"], true)]
    {
        for step in 0..6_u32 {
            world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sleep", "1000"]);
            let words: Vec<&str> = words.iter().copied().chain(["victim"]).collect();
            killed_after(world.spawn(&words), Duration::from_millis(u64::from(step * step * 4)));
            let listed = world.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
            assert!(rest == listed.contains("victim") || !rest, "{words:?}: {listed}");
            if listed.contains("victim") {
                world.ok(&["rm", "-f", "victim"]);
            }
            world.assert_empty();
        }
    }
}

#[test]
fn a_shim_that_is_killed() {
    let world = World::new();
    let id = world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sleep", "1000"]);
    let init = Pid::from_raw(world.field("victim", ".State.Pid").parse().unwrap());
    let shim = world.shim(&id);
    kill(shim, Signal::SIGKILL).unwrap();
    until_gone(shim);
    let listed = world.ok(&["ps", "-a", "--format", "{{.Status}}"]);
    assert!(listed.starts_with("Exited (137)"), "{listed}");
    until_gone(init);
    world.assert_idle();
    // Each command is the next one.
    for words in [&["start", "victim"][..], &["logs", "victim"], &["wait", "victim"], &["rm", "victim"]] {
        world.ok(&["start", "victim"]);
        let shim = world.shim(&id);
        kill(shim, Signal::SIGKILL).unwrap();
        until_gone(shim);
        let ran = world.run(words);
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.stderr);
    }
    world.assert_empty();
    // With a policy it comes back.
    let id = world.ok(&["run", "-d", "--name", "back", "--restart", "always", BUSYBOX, "sleep", "1000"]);
    kill(world.shim(&id), Signal::SIGKILL).unwrap();
    wait::until("it runs again", || {
        world.field("back", ".State.Status") == "running" && world.field("back", ".RestartCount") == "1"
    });
}

#[test]
fn a_shim_that_is_killed_under_a_client() {
    let world = World::new();
    let child = world.spawn(&["run", "--name", "victim", BUSYBOX, "sleep", "1000"]);
    wait::until("it runs", || world.run(&["inspect", "-f", "{{.State.Status}}", "victim"]).stdout == "running\n");
    let id = world.ok(&["inspect", "-f", "{{.Id}}", "victim"]);
    kill(world.shim(&id), Signal::SIGKILL).unwrap();
    let (code, _, errors) = finish(child);
    assert_eq!(code, 137, "{errors}");
    assert_eq!(world.field("victim", ".State.ExitCode"), "137");
    world.assert_idle();
}

#[test]
fn a_store_that_is_killed() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "stays", BUSYBOX, "sleep", "1000"]);
    world.kill_store();
    // Nothing that runs needs it, and what needs it starts it.
    assert_eq!(world.field("stays", ".State.Status"), "running");
    assert_eq!(world.ok(&["exec", "stays", "echo", "up"]), "up");
    world.ok(&["stop", "-t", "0", "stays"]);
    assert!(world.processes_with(&["tare-store", "serve", &world.tag]).is_empty(), "nobody needed it");
    world.ok(&["start", "stays"]);
    assert_eq!(world.processes_with(&["tare-store", "serve", &world.tag]).len(), 1);
    // Killed while it is wanted by many: one is started.
    world.kill_store();
    let runs: Vec<_> = (0..5).map(|_| world.spawn(&["run", "--rm", BUSYBOX, "echo", "hello"])).collect();
    for run in runs {
        let (code, out, errors) = finish(run);
        assert_eq!((code, out.as_str()), (0, "hello\n"), "{errors}");
    }
    assert_eq!(world.processes_with(&["tare-store", "serve", &world.tag]).len(), 1);
    // And again and again while containers are made and removed.
    for _ in 0..6 {
        let child = world.spawn(&["run", "--rm", BUSYBOX, "true"]);
        world.kill_store();
        finish(child);
    }
    wait::until("all are removed", || {
        let left = world.ok(&["ps", "-aq"]);
        left.lines().count() <= 1 || left.lines().skip(1).all(|id| world.run(&["rm", "-f", id]).code.is_some())
    });
    world.ok(&["rm", "-f", "stays"]);
    world.assert_empty();
}

#[test]
fn a_publish_that_is_killed() {
    let world = World::new();
    for step in 0..12_u32 {
        world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sh", "-c", "read x </fifo || sleep 0.05"]);
        // Whatever its shim runs at its end is killed, now and then and again.
        let until = Instant::now() + Duration::from_millis(u64::from(150 + step * 20));
        while Instant::now() < until {
            for pid in world.processes_with(&["publish", "--namespace tarectl"]) {
                if std::fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|it| String::from_utf8_lossy(&it).contains(&world.tag))
                {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        }
        assert_eq!(world.ok(&["wait", "victim"]), "0");
        assert_eq!(world.field("victim", ".State.Status"), "exited");
        world.assert_idle();
        world.ok(&["rm", "victim"]);
    }
    world.assert_empty();
}

#[test]
fn a_container_that_is_killed_from_outside() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sleep", "1000"]);
    let init = Pid::from_raw(world.field("victim", ".State.Pid").parse().unwrap());
    kill(init, Signal::SIGKILL).unwrap();
    until_gone(init);
    world.until("victim", ".State.Status", "exited");
    assert_eq!(world.field("victim", ".State.ExitCode"), "137");
    world.assert_idle();
    assert!(!Path::new(&world.field("victim", ".LogPath")).as_os_str().is_empty());
}
