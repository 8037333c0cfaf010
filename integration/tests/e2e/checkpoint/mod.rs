//! Checkpoint and restore, with a real criu found through PATH (`integration/criu-setup` provides one).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{Bundle, Container, Leaks, Output, Runtime, skip, wait};
use serde_json::json;

/// Returns (as skipped) from a test if there is no criu that works here.
macro_rules! need_criu {
    () => {
        match Command::new("criu").arg("check").output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => skip!("criu does not work on this kernel: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => skip!("criu cannot be run: {error}"),
        }
    };
}

mod failures;
mod memory;
mod outside;
mod surroundings;

/// Files of the host are not a container's to checkpoint, so its standard descriptors are no files here.
fn no_stdio(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
}

/// A container's data directory, on the host and bound to /data, and a bundle with it.
fn with_data(rt: &Runtime, args: &[&str]) -> (PathBuf, Bundle) {
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]});
    (data.clone(), rt.bundle(args).push("/mounts", mount))
}

/// Starts a container that counts into `count` of the directory given.
fn counting(rt: &Runtime) -> (PathBuf, Bundle) {
    let (data, bundle) = with_data(rt, &["/bin/probe", "count", "/data/count"]);
    (data.join("count"), bundle)
}

fn run<'r>(rt: &'r Runtime, bundle: &Bundle) -> Container<'r> {
    rt.bring_up("run", bundle, &["--detach"], no_stdio).unwrap()
}

fn restore<'r>(rt: &'r Runtime, bundle: &Bundle, image: &Path, flags: &[&str]) -> Result<Container<'r>, Output> {
    let mut all = vec!["--detach", "--image-path", text(image)];
    all.extend(flags);
    rt.bring_up("restore", bundle, &all, no_stdio)
}

fn checkpoint(container: &Container<'_>, image: &Path, flags: &[&str]) -> Output {
    let mut all = vec!["--image-path", text(image)];
    all.extend(flags);
    container.call::<&str>("checkpoint", &all, &[])
}

/// Runs a container that counts and checkpoints it, which ends it: the container, and the directory of its image.
fn saved<'r>(rt: &'r Runtime, bundle: &Bundle, count: &Path) -> (Container<'r>, PathBuf) {
    let container = run(rt, bundle);
    counts_on(count);
    let image = rt.fresh_path("image");
    checkpoint(&container, &image, &[]).ok();
    container.wait_exit();
    (container, image)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers counted so far.
fn numbers(content: &str) -> Vec<u64> {
    // The last line may be half written.
    let complete = content.rfind('\n').map_or("", |end| &content[..end]);
    complete.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("a number: {line:?}"))).collect()
}

/// Waits for ten numbers more than there are, and checks that none is missing or twice: the counter went on.
#[track_caller]
fn counts_on(file: &Path) {
    let had = numbers(&fs::read_to_string(file).unwrap_or_default()).len();
    let content = wait::file(file, |content| numbers(content).len() >= had + 10);
    let found = numbers(&content);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_process_goes_on_under_another_id() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    // Content of a tmpfs is part of a checkpoint; the masks and read-only paths are mounts like any.
    first.exec(&["sh", "-c", "echo kept > /dev/shm/file"]).ok();
    let image = rt.fresh_path("image");
    let before = numbers(&fs::read_to_string(&count).unwrap()).len();
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    assert!(image.join("inventory.img").exists() && image.join("dump.log").exists());

    // As with runc, a container that was checkpointed away is gone.
    let gone = first.call::<&str>("state", &[], &[]).fails();
    assert!(gone.error().contains("does not exist"), "{gone:?}");
    let nothing = Leaks::snapshot(&rt);
    assert!(nothing.processes.is_empty() && nothing.cgroups.is_empty() && nothing.mounts.is_empty(), "{nothing:?}");

    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    assert!(numbers(&fs::read_to_string(&count).unwrap()).len() > before);
    let state = second.state();
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(i64::from(second.pid()))));
    assert_eq!(second.exec(&["cat", "/dev/shm/file"]).ok().stdout, "kept\n");
    assert_eq!(second.exec(&["cat", "/proc/keys"]).ok().stdout, "");
    assert_eq!(second.exec(&["hostname"]).ok().stdout, "container\n");
    second.exec(&["sh", "-c", "echo 1 > /proc/sys/kernel/hostname"]).fails();
    // Nothing of the work is left in the host's mount table, nor criu itself in the container's cgroups.
    assert!(Leaks::snapshot(&rt).mounts.is_empty());
    let procs = fs::read_to_string(second.cgroup("pids").join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), second.pid().to_string());

    second.kill("KILL").ok();
    second.wait_exit();
    assert_eq!(second.status(), "stopped");
    second.delete().ok();
}

#[test]
fn a_tree_of_processes_goes_on_and_can_be_saved_again() {
    need_criu!();
    let rt = Runtime::from_env();
    let script = "sleep 1000 & i=0; while :; do i=$((i+1)); echo $i >> /data/count; sleep 0.02; done";
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", script]);
    let count = data.join("count");
    let mut container = run(&rt, &bundle);
    for _ in 0..3 {
        counts_on(&count);
        let image = rt.fresh_path("image");
        checkpoint(&container, &image, &[]).ok();
        container.wait_exit();
        container = restore(&rt, &bundle, &image, &[]).unwrap();
    }
    counts_on(&count);
    let listed = container.exec(&["ps", "-o", "args"]).ok().stdout;
    assert!(listed.contains("sleep 1000"), "{listed}");
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn a_container_left_running_runs_on() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    let work = rt.fresh_path("work");
    checkpoint(&first, &image, &["--leave-running", "--work-path", text(&work)]).ok();
    assert_eq!(first.status(), "running");
    assert!(work.join("dump.log").exists() && !image.join("dump.log").exists());
    counts_on(&count);
    first.exec(&["true"]).ok();

    // The copy sees its own directory in place of the first one's, by its own bundle.
    let (other_count, other) = counting(&rt);
    fs::copy(&count, &other_count).unwrap();
    let second = restore(&rt, &other, &image, &[]).unwrap();
    wait::file(&other_count, |content| {
        content.lines().count() > fs::read_to_string(&count).unwrap().lines().count() / 2
    });
    assert_eq!((first.status(), second.status()), ("running".into(), "running".into()));
    counts_on(&count);
}

#[test]
fn a_paused_container_can_be_saved() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    first.call::<&str>("pause", &[], &[]).ok();
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--leave-running"]).ok();
    assert_eq!(first.status(), "paused");
    first.call::<&str>("resume", &[], &[]).ok();
    counts_on(&count);

    // Saved for good while paused, it ends, and runs when it is restored.
    first.call::<&str>("pause", &[], &[]).ok();
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let _second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
}

#[test]
fn images_are_exchanged_with_runc() {
    need_criu!();
    let Some(runc) = ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(Path::new).find(|path| path.is_file()) else {
        skip!("there is no runc");
    };
    for (saves, restores) in [(None, Some(runc)), (Some(runc), None)] {
        let open = |binary: Option<&Path>| binary.map_or_else(Runtime::from_env, Runtime::of_binary);
        let (one, other) = (open(saves), open(restores));
        let (count, bundle) = counting(&one);
        // Of its own default on version 2, below its caller's cgroup, runc leaves what it restores.
        let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/{}", one.tag())));
        let first = run(&one, &bundle);
        counts_on(&count);
        let image = one.fresh_path("image");
        checkpoint(&first, &image, &[]).ok();
        first.wait_exit();
        let _second = restore(&other, &bundle, &image, &[]).unwrap();
        counts_on(&count);
    }
}

#[test]
fn a_seccomp_filter_stays() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
    let bundle = bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let (_first, image) = saved(&rt, &bundle, &count);
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    let status = fs::read_to_string(format!("/proc/{}/status", second.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let refused = second.exec(&["mkdir", "/dev/shm/x"]).fails();
    assert!(refused.stderr.contains("not supported"), "{refused:?}");
}

#[test]
fn a_restored_container_is_managed_like_any_other() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    second.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(second.status(), "paused");
    second.call::<&str>("resume", &[], &[]).ok();
    counts_on(&count);
    second.call::<&str>("update", &["--pids-limit", "33"], &[]).ok();
    assert_eq!(fs::read_to_string(second.cgroup("pids").join("pids.max")).unwrap(), "33\n");
    let listed = second.call::<&str>("ps", &["--format", "json"], &[]).ok().json();
    assert_eq!(listed, json!([second.pid()]));
    let twice = second.call::<&str>("start", &[], &[]).fails();
    assert!(twice.error().contains("running"), "{twice:?}");
    second.kill("KILL").ok();
    second.wait_exit();
    second.delete().ok();
}

#[test]
fn a_restore_in_the_foreground_tells_the_status() {
    need_criu!();
    let rt = Runtime::from_env();
    let script = "trap 'exit 7' TERM; echo $$ > /data/ready; while :; do sleep 0.02; done";
    let (data, bundle) = with_data(&rt, &["/bin/sh", "-c", script]);
    let first = run(&rt, &bundle);
    wait::file(&data.join("ready"), |text| text.contains('1'));
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let id = rt.fresh_id();
    let pid_file = rt.work().join("restored.pid");
    let args =
        ["restore", "--bundle", bundle.path_str(), "--image-path", text(&image), "--pid-file", text(&pid_file), &id];
    let running = rt.spawn(&args, no_stdio);
    wait::file(&pid_file, |text| !text.is_empty());
    // The runtime forwards the signal to the restored init.
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.wait().code(), 7);
    assert!(!rt.root().join(&id).exists());
}
