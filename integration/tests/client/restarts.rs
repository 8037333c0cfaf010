//! `--restart` policies, and `boot`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use integration::world::systemd;
use integration::{skip, wait};
use nix::sys::signal::{Signal, kill};

use crate::harness::{BUSYBOX, World, finish, until_gone};
use crate::killed::Holding;

#[test]
fn a_failure_is_tried_again_so_often() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "fails", "--restart", "on-failure:2", BUSYBOX, "sh", "-c", "echo try; exit 4"]);
    assert_eq!(world.ok(&["wait", "fails"]), "4");
    assert_eq!(world.field("fails", ".RestartCount"), "2");
    assert_eq!(world.ok(&["logs", "fails"]), "try\ntry\ntry");
    assert_eq!(world.field("fails", ".State.Status"), "exited");
    world.assert_idle();
    // What ends well is done.
    world.ok(&["run", "-d", "--name", "well", "--restart", "on-failure", BUSYBOX, "true"]);
    assert_eq!(world.ok(&["wait", "well"]), "0");
    assert_eq!(world.field("well", ".RestartCount"), "0");
    assert!(world.refused(&["run", "--restart", "sometimes", BUSYBOX]).contains("sometimes"));
    assert!(world.refused(&["run", "--rm", "--restart", "always", BUSYBOX]).contains("--rm"));
}

/// One may end before whoever started it again has: somebody waits to start it all the same.
#[test]
fn what_fails_at_once_is_tried_again_all_the_same() {
    let world = World::new();
    let names: Vec<String> = (0..8).map(|number| format!("fails-{number}")).collect();
    for name in &names {
        world.ok(&["run", "-d", "--name", name, "--network", "none", "--restart", "on-failure:3", BUSYBOX, "false"]);
    }
    for name in &names {
        assert_eq!(world.ok(&["wait", name]), "1");
        assert_eq!(world.field(name, ".RestartCount"), "3");
    }
    world.assert_idle();
}

#[test]
fn always_is_until_the_user_says_otherwise() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "always", "--restart", "always", BUSYBOX, "sh", "-c", "echo up; sleep 0.1"]);
    wait::until("it ran three times", || world.run(&["logs", "always"]).stdout.lines().count() >= 3);
    // Each time it waits longer.
    assert!(world.field("always", ".RestartCount").parse::<u32>().unwrap() >= 2);
    world.ok(&["stop", "-t", "0", "always"]);
    assert_eq!(world.field("always", ".State.Status"), "exited");
    world.assert_idle();
    // The user's start is a new beginning.
    world.ok(&["start", "always"]);
    wait::until("it runs again and again", || world.field("always", ".RestartCount") == "1");
    // One that just waits is stopped, removed, or killed at once.
    world.ok(&["rm", "-f", "always"]);
    world.assert_empty();
}

#[test]
fn what_waits_to_be_restarted_is_shown_and_can_be_ended() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "waits", "--restart", "always", BUSYBOX, "false"]);
    // The delay has grown to seconds by then.
    wait::until("it was restarted some times", || {
        world.field("waits", ".RestartCount").parse::<u32>().unwrap() >= 4
            && world.field("waits", ".State.Status") == "restarting"
    });
    assert!(world.refused(&["exec", "waits", "true"]).contains("not running"));
    // Whoever waits to restart it is killed: the next command sets another to it.
    for pid in world.processes_with(&["revive", world.ok(&["inspect", "-f", "{{.Id}}", "waits"]).as_str()]) {
        kill(pid, Signal::SIGKILL).unwrap();
        until_gone(pid);
    }
    let before: u32 = world.field("waits", ".RestartCount").parse().unwrap();
    wait::until("it is restarted all the same", || {
        world.field("waits", ".RestartCount").parse::<u32>().unwrap() > before
    });
    wait::until("it waits again", || world.field("waits", ".State.Status") == "restarting");
    world.ok(&["stop", "waits"]);
    assert_eq!(world.field("waits", ".State.Status"), "exited");
    world.assert_idle();
}

/// `restart` of one with --rm, whose client is killed before the end, or between the end and the start.
#[test]
fn a_restart_that_is_killed_leaves_what_is_removed_at_its_end() {
    let world = World::new();
    let kill_it = |child: std::process::Child| {
        let mut child = child;
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let stubborn = [BUSYBOX, "sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
    world.ok(&[&["run", "-d", "--rm", "--name", "victim"][..], &stubborn].concat());
    let restarts = world.spawn(&["restart", "-t", "-1", "victim"]);
    let events = world.dir.join("root/events.log");
    wait::file(&events, |text| text.contains("\"Action\":\"kill\""));
    assert_eq!(world.field("victim", ".HostConfig.AutoRemove"), "true");
    kill_it(restarts);
    world.ok(&["kill", "victim"]);
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    world.assert_empty();

    let mut runtime = Holding::new(&world, "restart");
    let run = ["run", "-d", "--rm", "--name", "victim", "--runtime", &runtime.program];
    world.ok(&[&run[..], &[BUSYBOX, "sleep", "1000"]].concat());
    runtime.hold("create");
    let restarts = world.spawn(&["restart", "-t", "0", "victim"]);
    runtime.reached();
    // It is kept as long as somebody is to start it.
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "victim exited");
    kill_it(restarts);
    runtime.go();
    wait::until("it is removed", || world.ok(&["ps", "-aq"]).is_empty());
    world.assert_empty();

    // Two at once take turns, and it is removed at the end after them.
    world.ok(&["run", "-d", "--rm", "--name", "victim", BUSYBOX, "sleep", "1000"]);
    let both = [0, 0].map(|_| world.spawn(&["restart", "-t", "0", "victim"]));
    for restart in both {
        assert_eq!(finish(restart).0, 0);
    }
    world.ok(&["stop", "-t", "0", "victim"]);
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    world.assert_empty();
}

/// Only what the user has really ended is not started again.
#[test]
fn a_signal_that_was_not_sent_is_no_word_of_the_users() {
    let world = World::new();
    let (program, fails) = (world.dir.join("runtime"), world.dir.join("fails"));
    let text = format!(
        "#!/bin/sh\nfor word; do [ $word = kill ] && [ -e {} ] && exit 1; done\nexec {} \"$@\"\n",
        fails.display(),
        integration::under_test().display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["run", "-d", "--name", "web", "--restart", "always", "--runtime", program.to_str().unwrap()];
    world.ok(&[&words[..], &[BUSYBOX, "sleep", "1000"]].concat());
    fs::write(&fails, "").unwrap();
    for (count, words) in [("1", &["stop", "web"][..]), ("2", &["kill", "web"]), ("3", &["kill", "-s", "TERM", "web"])]
    {
        world.refused(words);
        let pid = nix::unistd::Pid::from_raw(world.field("web", ".State.Pid").parse().unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        world.until("web", ".RestartCount", count);
        world.until("web", ".State.Status", "running");
    }
    fs::remove_file(&fails).unwrap();
    world.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(world.field("web", ".State.Status"), "exited");
    world.ok(&["rm", "web"]);
    world.assert_empty();
}

#[test]
fn a_boot_brings_back_what_should_run() {
    let world = World::new();
    for (name, policy) in
        [("no", "no"), ("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped")]
    {
        world.ok(&["run", "-d", "--name", name, "--restart", policy, BUSYBOX, "sleep", "1000"]);
    }
    world.ok(&["create", "--name", "never", "--restart", "always", BUSYBOX, "sleep", "1000"]);
    world.ok(&["stop", "-t", "0", "stopped"]);
    // The boot is its end, and nothing that could not be started.
    world.ok(&["run", "-d", "--rm", "--name", "short", BUSYBOX, "sleep", "1000"]);
    for name in ["no", "always", "unless", "short"] {
        end(&world, name);
    }
    sweep(&world);
    // Before `boot`, commands tell what is so, and start nothing.
    assert_eq!(world.field("always", ".State.Status"), "exited");
    assert_eq!(world.field("no", ".State.ExitCode"), "255");
    world.ok(&["boot"]);
    let running = world.ok(&["ps", "--format", "{{.Names}}"]);
    let mut running: Vec<&str> = running.lines().collect();
    running.sort_unstable();
    assert_eq!(running, ["always", "unless"]);
    assert_eq!(world.ok(&["exec", "always", "echo", "up"]), "up");
    // A second time there is nothing to do.
    world.ok(&["boot"]);
}

/// The unit that `integration/install` puts in place, under the systemd of the host, which has no network of the test's own.
#[test]
fn systemd_brings_back_what_should_run() {
    if !systemd::runs_the_host() {
        skip!("this host is not run by systemd (integration/vm has one that is)");
    }
    let world = World::new();
    for (name, policy) in [("no", "no"), ("always", "always"), ("unless", "unless-stopped")] {
        world.ok(&["run", "-d", "--name", name, "--network", "none", "--restart", policy, BUSYBOX, "sleep", "1000"]);
    }
    for name in ["no", "always", "unless"] {
        end(&world, name);
    }
    sweep(&world);
    let unit = Unit::installed(&world);
    systemctl(&["start", &unit.name]);
    assert_eq!(unit.property("ActiveState"), "active");
    let running = || {
        let mut running: Vec<String> = world.ok(&["ps", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
        running.sort_unstable();
        running
    };
    assert_eq!(running(), ["always", "unless"]);
    let pid = world.field("always", ".State.Pid");
    assert_eq!(world.ok(&["exec", "always", "echo", "up"]), "up");
    // What it started outlives it, and it may be started again.
    systemctl(&["stop", &unit.name]);
    systemctl(&["restart", &unit.name]);
    assert_eq!(unit.property("Result"), "success");
    assert_eq!(running(), ["always", "unless"]);
    assert_eq!(world.field("always", ".State.Pid"), pid);
    assert_eq!(world.ok(&["exec", "always", "echo", "still up"]), "still up");
    // As an administrator has it done at each boot.
    systemctl(&["enable", "--runtime", &unit.name]);
    let wanted = systemctl(&["show", "-p", "Wants", "--value", "multi-user.target"]);
    assert!(wanted.split_whitespace().any(|it| it == unit.name), "{wanted}");
}

/// The client's unit, until the test ends.
struct Unit {
    name: String,
}

impl Unit {
    fn installed(world: &World) -> Self {
        let name = format!("tarectl-{}.service", world.tag);
        let text = include_str!("../../../client/systemd/tarectl.service");
        let command = world.command(&[]);
        let tarectl = command.get_args().last().map(Path::new).expect("the program");
        let text = text.replace("@bindir@", tarectl.parent().unwrap().to_str().unwrap());
        let unit = Self { name };
        fs::write(unit.path(), text).unwrap();
        let environment: String = world
            .environment()
            .iter()
            .map(|(name, value)| format!("Environment=\"{name}={}\"\n", value.display()))
            .collect();
        let more = format!("{}.d", unit.path());
        fs::create_dir(&more).unwrap();
        fs::write(format!("{more}/world.conf"), format!("[Service]\n{environment}")).unwrap();
        systemctl(&["daemon-reload"]);
        unit
    }

    fn path(&self) -> String {
        format!("/run/systemd/system/{}", self.name)
    }

    fn property(&self, name: &str) -> String {
        systemctl(&["show", "-p", name, "--value", &self.name]).trim_end().to_owned()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["disable", "--runtime", &self.name]).output();
        let _ = Command::new("systemctl").args(["stop", &self.name]).output();
        let _ = fs::remove_file(self.path());
        let _ = fs::remove_dir_all(format!("{}.d", self.path()));
        let _ = Command::new("systemctl").arg("daemon-reload").output();
    }
}

#[track_caller]
fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().expect("systemctl runs");
    assert!(out.status.success(), "systemctl {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Ends a container and its shim, and takes its root and its network away, as a boot does.
fn end(world: &World, name: &str) {
    let id = world.ok(&["inspect", "-f", "{{.Id}}", name]);
    let pid = nix::unistd::Pid::from_raw(world.field(name, ".State.Pid").parse().unwrap());
    let shim = world.shim(&id);
    kill(shim, Signal::SIGKILL).unwrap();
    until_gone(shim);
    kill(pid, Signal::SIGKILL).unwrap();
    until_gone(pid);
    nix::mount::umount(&world.run.join("containers").join(&id).join("bundle/rootfs")).unwrap();
    nix::mount::umount(&world.run.join("netns").join(&id)).unwrap();
}

/// The rest of what a boot does: no store, nothing below /run, no cgroup.
fn sweep(world: &World) {
    world.kill_store();
    world.until_no_veth();
    fs::remove_dir_all(&world.run).unwrap();
    world.sweep_cgroups();
}
