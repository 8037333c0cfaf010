//! `--restart` policies, and `boot`.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration::world::systemd;
use integration::{skip, wait};
use nix::sys::signal::{Signal, kill};

use crate::harness::{BUSYBOX, World, until_gone};

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
    for name in ["no", "always", "unless"] {
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
