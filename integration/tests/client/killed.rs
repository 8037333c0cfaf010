//! Anything may be killed at any moment: the next command tells the truth, cleans up, and nothing is left.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::{sys, wait};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
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
fn a_client_that_is_killed_while_it_imports() {
    let world = World::new();
    let mut child = world.command(&["import", "-", "half"]).stdin(Stdio::piped()).spawn().unwrap();
    fs::write(world.dir.join("file"), vec![b'x'; 4096]).unwrap();
    let archive = Command::new("tar").arg("-C").arg(&world.dir).args(["-cf", "-", "file"]).output().unwrap().stdout;
    child.stdin.as_mut().unwrap().write_all(&archive[..1024]).unwrap();
    let snapshots = || world.stored(&["snapshot", "ls"]);
    wait::until("it extracts", || snapshots().contains("import-"));
    // What runs is left alone.
    world.ok(&["ps"]);
    assert!(snapshots().contains("import-"));
    child.kill().unwrap();
    child.wait().unwrap();
    world.ok(&["ps"]);
    assert!(!snapshots().contains("import-"), "{}", snapshots());
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
            for pid in world.publishers() {
                let _ = kill(pid, Signal::SIGKILL);
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

/// A runtime that stops at a command for which there is a file `hold-<command>`.
pub(crate) struct Holding {
    directory: std::path::PathBuf,
    pub(crate) program: String,
    /// Open in both directions, so that neither side waits for the other to open it.
    go: fs::File,
}

impl Holding {
    pub(crate) fn new(world: &World, name: &str) -> Self {
        let directory = world.dir.join(format!("holding-{name}"));
        fs::create_dir(&directory).unwrap();
        let go = directory.join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let program = directory.join("runtime");
        let text = format!(
            "#!/bin/sh\nfor word; do\n    if rm {0}/hold-$word 2>/dev/null; then\n        : >{0}/reached\n        \
             read _ <{0}/go\n    fi\ndone\nexec {1} \"$@\"\n",
            directory.display(),
            integration::under_test().display()
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let go = fs::File::options().read(true).write(true).open(go).unwrap();
        Self { directory, program: program.to_str().unwrap().to_owned(), go }
    }

    /// Stops the next run of this command.
    pub(crate) fn hold(&self, command: &str) {
        fs::write(self.directory.join(format!("hold-{command}")), "").unwrap();
    }

    /// Waits until it is there.
    pub(crate) fn reached(&self) {
        let reached = self.directory.join("reached");
        wait::file(&reached, |_| true);
        fs::remove_file(reached).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.go.write_all(b"\n").unwrap();
    }
}

#[test]
fn who_starts_a_container_again_is_killed_over_it() {
    let world = World::new();
    let ran = world.dir.join("ran");
    let volume = format!("{}:/ran", ran.display());
    // The shim goes on with a create when nobody wants it any more, and gives up a start.
    for (step, goes_on) in [("create", true), ("start", false)] {
        let mut runtime = Holding::new(&world, step);
        fs::create_dir(&ran).unwrap();
        let words = ["run", "-d", "--name", step, "--restart", "always", "--runtime", &runtime.program, "-v", &volume];
        let command = [BUSYBOX, "sh", "-c", "echo run >>/ran/runs; exec sleep 1000"];
        let id = world.ok(&[&words[..], &command].concat());
        let runs_are = |count: usize| wait::file(&ran.join("runs"), |text| text.lines().count() == count);
        runs_are(1);
        runtime.hold(step);
        kill(Pid::from_raw(world.field(step, ".State.Pid").parse().unwrap()), Signal::SIGKILL).unwrap();
        runtime.reached();
        let reviver = world.processes_with(&["tarectl revive", &id])[0];
        kill(reviver, Signal::SIGKILL).unwrap();
        until_gone(reviver);
        if goes_on {
            runtime.go();
        }
        // The next command sets another to it.
        world.until(step, ".State.Status", "running");
        runs_are(2);
        assert_eq!(world.field(step, ".RestartCount"), "2", "{step}");
        assert_eq!(world.ok(&["exec", step, "echo", "up"]), "up");
        world.ok(&["rm", "-f", step]);
        fs::remove_dir_all(&ran).unwrap();
    }
    world.assert_empty();
}

#[test]
fn a_publish_that_is_killed_before_it_does_what_the_policy_says() {
    let world = World::new();
    for words in [&["--restart", "on-failure:1"][..], &["--rm"]] {
        let mut runtime = Holding::new(&world, words[0]);
        runtime.hold("delete");
        let run = ["run", "-d", "--name", "victim", "--runtime", &runtime.program];
        world.ok(&[&run[..], words, &[BUSYBOX, "sh", "-c", "echo run; exit 3"]].concat());
        runtime.reached();
        let publisher = world.publishers()[0];
        kill(publisher, Signal::SIGKILL).unwrap();
        until_gone(publisher);
        runtime.go();
        if words[0] == "--rm" {
            wait::until("it is removed", || world.ok(&["ps", "-aq"]).is_empty());
        } else {
            assert_eq!(world.ok(&["wait", "victim"]), "3");
            assert_eq!(world.field("victim", ".RestartCount"), "1");
            assert_eq!(world.ok(&["logs", "victim"]), "run\nrun");
            world.ok(&["rm", "victim"]);
        }
        world.assert_empty();
    }
}

#[test]
fn who_watches_a_containers_health_is_killed() {
    let world = World::new();
    let health = ["--health-cmd", "true", "--health-interval", "1s"];
    let id = world.ok(&[&["run", "-d", "--name", "victim"][..], &health, &[BUSYBOX, "sleep", "1000"]].concat());
    let watchers = || world.processes_with(&["tarectl watch-health", &id]);
    wait::until("somebody watches", || watchers().len() == 1);
    let watcher = watchers()[0];
    kill(watcher, Signal::SIGKILL).unwrap();
    until_gone(watcher);
    // Each command may set another to it, one of them stays.
    world.ok(&["ps"]);
    world.until("victim", ".State.Health.Status", "healthy");
    wait::until("one watches", || watchers().len() == 1);
    // The next run has one, too.
    world.ok(&["restart", "-t", "0", "victim"]);
    wait::until("another watches", || watchers().len() == 1 && watchers()[0] != watcher);
    world.until("victim", ".State.Health.Status", "healthy");
    world.ok(&["rm", "-f", "victim"]);
    world.assert_empty();
}

#[test]
fn what_was_killed_has_no_image_and_no_network() {
    for words in [&["image", "prune", "-af"][..], &["rmi", BUSYBOX], &["network", "ls", "-f", "dangling=true"]] {
        let world = World::new();
        world.ok(&["network", "create", "net"]);
        let id = world.ok(&["run", "-d", "--rm", "--network", "net", BUSYBOX, "sleep", "1000"]);
        let shim = world.shim(&id);
        kill(shim, Signal::SIGKILL).unwrap();
        until_gone(shim);
        let said = world.ok(words).to_ascii_lowercase();
        assert!(said.contains(if words[0] == "network" { " net " } else { "deleted: " }), "{words:?}: {said}");
        world.assert_empty();
    }
}

/// The first process of a pid namespace ends after all others have, and one that is traced has not before its tracer knows of it.
#[test]
fn what_does_not_die_is_not_waited_for_for_ever() {
    let world = World::new();
    let id = world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sh", "-c", "sleep 1000 & wait"]);
    let traced = || {
        let first = world.field("victim", ".State.Pid");
        let children = || fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        wait::until("it has a child", || !children().is_empty());
        let child = Pid::from_raw(children().trim().parse().unwrap());
        ptrace::seize(child, ptrace::Options::empty()).expect("trace a process of the container");
        child
    };
    let child = traced();
    let refused = |words: &[&str]| {
        let said = world.refused(words);
        assert!(said.contains("container victim was killed 10 s ago and has not ended"), "{words:?}: {said}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| refused(&["kill", "victim"]));
        scope.spawn(|| refused(&["stop", "-t", "0", "victim"]));
    });
    refused(&["rm", "-f", "-v", "victim"]);
    // It is what it was.
    assert_eq!(world.field("victim", ".State.Status"), "running");
    assert_eq!(world.field("victim", ".HostConfig.AutoRemove"), "false");
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
    world.until("victim", ".State.Status", "exited");
    // A removal that was killed over it is gone on with, and comes no further before it has ended.
    world.ok(&["start", "victim"]);
    let child = traced();
    let mut removes = world.spawn(&["rm", "-f", "victim"]);
    wait::file(&world.dir.join("root/containers").join(&id).join("container.json"), |it| it.contains("\"removing\""));
    removes.kill().unwrap();
    removes.wait().unwrap();
    refused(&["rm", "victim"]);
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
    wait::until("it is removed", || world.ok(&["ps", "-aq"]).is_empty());
    world.assert_empty();
}

#[test]
fn a_removal_that_is_cut_short() {
    let world = World::new();
    let id = world.ok(&["create", "--name", "victim", BUSYBOX, "true"]);
    let stuck = world.dir.join("root/containers").join(id).join("stuck");
    fs::create_dir(&stuck).unwrap();
    mount(Some("none"), &stuck, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    assert_ne!(world.run(&["rm", "victim"]).code, Some(0));
    // It is no container any more, and what is left goes as soon as it can.
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    umount(places.filter(|place| place.contains(&world.tag)).find(|place| place.ends_with("/stuck")).unwrap()).unwrap();
    world.ok(&["ps"]);
    world.assert_empty();
}
