//! From create to rm: exit codes, streams, signals, logs, names, health.

use std::io::Write;

use integration::wait;
use nix::sys::signal::{Signal, kill};

use crate::harness::{BUSYBOX, World, finish};

/// A process that ends well at SIGTERM, and says when it listens.
const POLITE: &str = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_command_runs_with_its_streams_and_its_exit_code() {
    let world = World::new();
    let ran = world.code(&["run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7"], 7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    let echoed = world.fed(&["run", "--rm", "-i", BUSYBOX, "cat"], "line\nno end");
    assert_eq!((echoed.code, echoed.stdout.as_str()), (Some(0), "line\nno end"));
    // More than pipes hold, in both directions.
    let much = "0123456789abcde\n".repeat(200_000);
    let copied = world.fed(&["run", "--rm", "-i", BUSYBOX, "cat"], &much);
    assert!(copied.stdout == much, "{} of {} bytes", copied.stdout.len(), much.len());
    // Input that is not wanted is an end.
    assert_eq!(world.ok(&["run", "--rm", BUSYBOX, "cat"]), "");
}

#[test]
fn exit_codes_are_dockers() {
    let world = World::new();
    for (words, code, sign) in [
        (&["run", "--rm", BUSYBOX, "no-such-command"][..], 127, "executable file not found"),
        (&["run", "--rm", BUSYBOX, "/no/such/file"], 127, "no such file"),
        (&["run", "--rm", BUSYBOX, "/etc"], 126, ""),
        (&["run", "--rm", BUSYBOX, "/etc/passwd"], 126, "permission denied"),
        (&["run", "--rm", BUSYBOX, "sh", "-c", "exit 255"], 255, ""),
    ] {
        let ran = world.code(words, code);
        assert!(ran.stderr.contains(sign), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 1, "{words:?}: {}", ran.stderr);
        world.assert_idle();
    }
    // What could not be started stays, with its reason, unless it was to be removed.
    world.code(&["run", "--name", "stays", BUSYBOX, "no-such-command"], 127);
    assert_eq!(world.field("stays", ".State.Status"), "created");
    assert_eq!(world.field("stays", ".State.ExitCode"), "127");
    assert!(world.field("stays", ".State.Error").contains("no-such-command"));
    assert!(
        world.refused(&["run", "--name", "stays", BUSYBOX, "true"]).contains("the name \"stays\" is that of container")
    );
    assert!(world.refused(&["start", "nobody"]).contains("nobody"));
    world.ok(&["rm", "stays"]);
    world.assert_empty();
}

#[test]
fn a_container_goes_through_its_states() {
    let world = World::new();
    let id = world.ok(&["create", "--name", "web", BUSYBOX, "sh", "-c", POLITE]);
    assert_eq!(id.len(), 64);
    assert_eq!(world.field("web", ".State.Status"), "created");
    world.assert_idle();
    assert_eq!(world.ok(&["start", "web"]), "web");
    // Started twice is as well.
    world.ok(&["start", &id[..12]]);
    assert_eq!(world.field("web", ".State.Running"), "true");
    wait::until("it listens", || world.ok(&["logs", "web"]) == "ready");
    world.ok(&["pause", "web"]);
    assert_eq!(world.field("web", ".State.Status"), "paused");
    assert!(world.refused(&["pause", "web"]).contains("paused already"));
    assert!(world.refused(&["exec", "web", "true"]).contains("unpause it first"));
    assert!(world.refused(&["start", "web"]).contains("unpause"));
    world.ok(&["unpause", "web"]);
    assert!(world.refused(&["unpause", "web"]).contains("not paused"));
    assert!(world.refused(&["rm", "web"]).contains("stop it first"));
    world.ok(&["stop", "web"]);
    assert_eq!(world.field("web", ".State.ExitCode"), "3");
    assert_eq!(world.ok(&["logs", "web"]), "ready\nbye");
    world.assert_idle();
    assert!(world.refused(&["kill", "web"]).contains("not running"));
    // A paused one can be stopped, too.
    world.ok(&["start", "web"]);
    wait::until("it listens again", || world.ok(&["logs", "web"]).ends_with("ready"));
    world.ok(&["pause", "web"]);
    world.ok(&["stop", "web"]);
    assert_eq!(world.field("web", ".State.ExitCode"), "3");
    world.ok(&["restart", "web"]);
    assert_eq!(world.field("web", ".State.Running"), "true");
    world.ok(&["kill", "web"]);
    assert_eq!(world.field("web", ".State.ExitCode"), "137");
    world.ok(&["start", "web"]);
    world.ok(&["rm", "-f", "web"]);
    world.assert_empty();
}

#[test]
fn stop_asks_before_it_kills() {
    let world = World::new();
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    world.ok(&["run", "-d", "--name", "deaf", "--stop-timeout", "1", BUSYBOX, "sh", "-c", deaf]);
    wait::until("it listens", || world.ok(&["logs", "deaf"]) == "ready");
    world.ok(&["stop", "deaf"]);
    assert_eq!(world.field("deaf", ".State.ExitCode"), "137");
    let by_quit = "trap 'exit 5' QUIT; echo ready; while :; do sleep 0.05; done";
    world.ok(&["run", "-d", "--name", "quits", "--stop-signal", "SIGQUIT", BUSYBOX, "sh", "-c", by_quit]);
    wait::until("it listens", || world.ok(&["logs", "quits"]) == "ready");
    world.ok(&["stop", "quits"]);
    assert_eq!(world.field("quits", ".State.ExitCode"), "5");
    // One that does not run is left alone.
    world.ok(&["stop", "quits"]);
    world.assert_idle();
}

#[test]
fn signals_go_to_the_process() {
    let world = World::new();
    let traps = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    world.ok(&["run", "-d", "--name", "traps", BUSYBOX, "sh", "-c", traps]);
    wait::until("it listens", || world.ok(&["logs", "traps"]) == "ready");
    world.ok(&["kill", "-s", "USR1", "traps"]);
    wait::until("it heard", || world.ok(&["logs", "traps"]) == "ready\nusr1");
    assert!(world.refused(&["kill", "-s", "NONE", "traps"]).contains("no signal"));
    world.ok(&["rm", "-f", "traps"]);
    // To the client, and on to the process.
    let child = world.spawn(&["run", "--rm", "--name", "polite", BUSYBOX, "sh", "-c", POLITE]);
    wait::until("it listens", || world.run(&["logs", "polite"]).stdout == "ready\n");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(finish(child), (3, "ready\nbye\n".to_owned(), String::new()));
    world.assert_empty();
}

#[test]
fn exec_runs_beside_the_process() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "web", "-e", "A=1", "-e", "B=2", BUSYBOX, "sleep", "1000"]);
    assert_eq!(world.ok(&["exec", "web", "echo", "hello"]), "hello");
    let both = world.code(&["exec", "web", "sh", "-c", "echo out; echo err >&2; exit 9"], 9);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let much = "0123456789abcde\n".repeat(100_000);
    let copied = world.fed(&["exec", "-i", "web", "cat"], &much);
    assert!(copied.stdout == much, "{} of {} bytes", copied.stdout.len(), much.len());
    world.code(&["exec", "web", "no-such-command"], 127);
    world.code(&["exec", "web", "/etc/passwd/below"], 127);
    world.code(&["exec", "web", "/etc/passwd"], 126);
    assert_eq!(world.ok(&["exec", "-e", "B=3", "-e", "C=4", "web", "sh", "-c", "echo $A$B$C"]), "134");
    assert_eq!(world.ok(&["exec", "-w", "/etc", "web", "pwd"]), "/etc");
    assert_eq!(world.ok(&["exec", "-u", "1234:5678", "web", "sh", "-c", "id -u; id -g"]), "1234\n5678");
    world.ok(&["exec", "-d", "web", "sh", "-c", "echo done >/done"]);
    wait::until("the detached one is done", || world.run(&["exec", "web", "cat", "/done"]).stdout == "done\n");
    world.ok(&["stop", "-t", "0", "web"]);
    assert!(world.refused(&["exec", "web", "true"]).contains("not running"));
}

#[test]
fn wait_tells_the_exit_code() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "one", BUSYBOX, "sh", "-c", "exit 4"]);
    assert_eq!(world.ok(&["wait", "one"]), "4");
    // Of one that has ended, at once.
    assert_eq!(world.ok(&["wait", "one"]), "4");
    world.ok(&["run", "-d", "--name", "two", BUSYBOX, "sleep", "1000"]);
    let waits = world.spawn(&["wait", "two"]);
    world.ok(&["stop", "-t", "0", "two"]);
    assert_eq!(finish(waits).1, "137\n");
    // Of one that is gone by then.
    world.ok(&["run", "-d", "--rm", "--name", "three", BUSYBOX, "sh", "-c", "read x </dev/zero & wait"]);
    let waits = world.spawn(&["wait", "three"]);
    world.ok(&["rm", "-f", "three"]);
    let (code, out, _) = finish(waits);
    assert!(code == 0 && out == "137\n" || code == 125, "{code} {out}");
}

#[test]
fn logs_are_kept_and_followed() {
    let world = World::new();
    let counts = "for i in 1 2 3; do echo $i; done; echo e >&2; read x; echo last";
    world.ok(&["run", "-d", "-i", "--name", "log", BUSYBOX, "sh", "-c", counts]);
    wait::until("all is written", || {
        let ran = world.run(&["logs", "log"]);
        (ran.stdout.as_str(), ran.stderr.as_str()) == ("1\n2\n3\n", "e\n")
    });
    assert_eq!(world.ok(&["logs", "--tail", "2", "log"]), "3");
    assert_eq!(world.ok(&["logs", "-n", "0", "log"]), "");
    let stamped = world.ok(&["logs", "-t", "--tail", "4", "log"]);
    assert!(stamped.lines().all(|line| line.len() > 31 && line.as_bytes()[29] == b'Z'), "{stamped}");
    assert_eq!(world.ok(&["logs", "--until", "1m", "log"]), "");
    assert_eq!(world.ok(&["logs", "--since", "1m", "--tail", "all", "log"]), "1\n2\n3");
    let follows = world.spawn(&["logs", "-f", "log"]);
    let mut attached = world.spawn(&["attach", "log"]);
    attached.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    assert_eq!(finish(follows).1, "1\n2\n3\nlast\n");
    assert_eq!(finish(attached).0, 0);
    // Rotated: the oldest are gone, and what is there comes in order.
    let much = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    let size = ["--log-opt", "max-size=20k", "--log-opt", "max-file=2"];
    let words = [&["run", "--name", "big"][..], &size, &[BUSYBOX, "sh", "-c", much]].concat();
    world.ok(&words);
    let kept = world.ok(&["logs", "big"]);
    let first: usize = kept.lines().next().unwrap().trim_start_matches("line ").parse().unwrap();
    let expected: Vec<String> = (first..2000).map(|number| format!("line {number}")).collect();
    assert!(first > 0 && kept.lines().eq(expected.iter().map(String::as_str)), "{kept}");
    world.ok(&["run", "--name", "none", "--log-driver", "none", BUSYBOX, "echo", "shown"]);
    assert!(world.refused(&["logs", "none"]).contains("has no log"));
}

#[test]
fn names_are_made_up_taken_and_changed() {
    let world = World::new();
    world.ok(&["create", BUSYBOX, "true"]);
    let name = world.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(name.contains('_'), "{name}");
    world.ok(&["rename", &name, "mine"]);
    assert!(world.refused(&["inspect", &name]).contains(&name));
    world.ok(&["create", "--name", &name, BUSYBOX, "true"]);
    assert!(world.refused(&["rename", "mine", &name]).contains("choose another name"));
    assert!(world.refused(&["rename", "mine", "a/b"]).contains("cannot name a container"));
    assert!(world.refused(&["rename", "mine", "mine"]).contains("called so already"));
    world.ok(&["start", "mine"]);
    world.ok(&["rm", "-f", "mine", &name]);
    world.assert_empty();
}

#[test]
fn a_lack_of_memory_is_told() {
    let world = World::new();
    let eats = "x=$(yes | head -c 200000000)";
    let ran = world.run(&["run", "--name", "eats", "-m", "20m", BUSYBOX, "sh", "-c", eats]);
    assert_ne!(ran.code, Some(0));
    assert_eq!(world.field("eats", ".State.OOMKilled"), "true");
    world.ok(&["run", "--name", "small", "-m", "20m", BUSYBOX, "true"]);
    assert_eq!(world.field("small", ".State.OOMKilled"), "false");
}

#[test]
fn health_is_checked_as_long_as_it_runs() {
    let world = World::new();
    let check = ["--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-retries", "2"];
    let words = [&["run", "-d", "--name", "ill"][..], &check, &[BUSYBOX, "sleep", "1000"]].concat();
    world.ok(&words);
    world.until("ill", ".State.Health.Status", "unhealthy");
    world.ok(&["exec", "ill", "touch", "/well"]);
    world.until("ill", ".State.Health.Status", "healthy");
    assert_eq!(world.field("ill", ".State.Health.FailingStreak"), "0");
    world.ok(&["stop", "-t", "0", "ill"]);
    world.assert_idle();
    // Started again, it is looked at again.
    world.ok(&["start", "ill"]);
    world.until("ill", ".State.Health.Status", "healthy");
    let slow = ["--health-cmd", "echo slow; sleep 100", "--health-interval", "50ms", "--health-timeout", "200ms"];
    let words = [&["run", "-d", "--name", "slow"][..], &slow, &[BUSYBOX, "sleep", "1000"]].concat();
    world.ok(&words);
    world.until("slow", ".State.Health.Status", "unhealthy");
    let log = world.inspect("slow")["State"]["Health"]["Log"].clone();
    assert_eq!(log[0]["ExitCode"], -1, "{log}");
}

#[test]
fn rm_at_the_end_leaves_nothing_with_nobody_at_it() {
    let world = World::new();
    world.ok(&["run", "-d", "--rm", BUSYBOX, "true"]);
    wait::until("it is removed", || world.ok(&["ps", "-aq"]).is_empty());
    world.assert_empty();
    let id = world.ok(&["run", "-d", "--rm", BUSYBOX, "sleep", "1000"]);
    // Restarted it is not at its end.
    world.ok(&["restart", "-t", "0", &id]);
    assert_eq!(world.field(&id, ".State.Running"), "true");
    world.ok(&["stop", "-t", "0", &id]);
    world.assert_empty();
}

#[test]
fn a_health_check_that_cannot_be_run_leaves_nothing() {
    let world = World::new();
    let check = ["--health-cmd", "true", "--health-interval", "100ms"];
    let command = [BUSYBOX, "sh", "-c", "rm /bin/sh; exec sleep 1000"];
    let id = world.ok(&[&["run", "-d", "--name", "ill"][..], &check, &command].concat());
    world.until("ill", ".State.Health.Status", "unhealthy");
    // The shim logs what it holds. The second time is begun when the first one is whole.
    let log = world.run.join("containers").join(&id).join("bundle/log");
    for times in 1..=2 {
        kill(world.shim(&id), Signal::SIGUSR1).unwrap();
        wait::file(&log, |text| text.matches("events queued").count() == times);
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let first = text.split("events queued").nth(1).unwrap();
    // One may just be at it.
    assert!(first.contains("process ") && first.matches("process x").count() <= 1, "{text}");
}
