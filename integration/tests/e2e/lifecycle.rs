//! From create to delete and every refusal on the way, and the words that callers match.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Instant;

use integration::{Console, Runtime, sys, wait};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn each_state_allows_what_it_should() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.wait_stdout(|text| text.contains("ready"));
    assert_eq!(container.status(), "running");
    container.start().fails();
    let error = container.delete().fails().error();
    assert!(error.contains("is not stopped"), "{error:?}");

    container.kill("SIGTERM").ok();
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
    container.start().fails();
    let error = container.kill("KILL").fails().error();
    assert!(error.contains("container not running") || error.contains("process already finished"), "{error:?}");
    container.exec(&["true"]).fails();

    container.delete().ok();
    let error = container.delete().fails().error();
    assert!(error.contains("does not exist"), "{error:?}");
    let error = container.call::<&str>("state", &[], &[]).fails().error();
    assert!(error.contains("does not exist"), "{error:?}");
    // What is not there needs no force to be gone.
    container.call::<&str>("delete", &["--force"], &[]).ok();
}

#[test]
fn force_deletes_in_every_state() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let created = rt.create(&bundle, &[]).unwrap();
    let running = rt.run_detached(&bundle, &[]).unwrap();
    let paused = rt.run_detached(&bundle, &[]).unwrap();
    paused.call::<&str>("pause", &[], &[]).ok();
    for container in [created, running, paused] {
        container.call::<&str>("delete", &["--force"], &[]).ok();
        container.wait_exit();
        assert!(!rt.root().join(container.id()).exists());
    }
}

#[test]
fn a_created_container_can_be_deleted_without_force() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    container.delete().ok();
    container.wait_exit();
}

#[test]
fn a_created_container_can_be_killed_without_a_start() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    container.kill("KILL").ok();
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
}

#[test]
fn signals_have_names_and_numbers() {
    let rt = Runtime::from_env();
    for signal in ["TERM", "SIGTERM", "15"] {
        let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
        container.wait_stdout(|text| text.contains("ready"));
        container.kill(signal).ok();
        container.wait_exit();
    }
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for signal in ["NOSUCH", "SIGSIG", "-1", "9999", "TERM ", "0x9"] {
        container.kill(signal).fails();
        assert_eq!(container.status(), "running", "after kill {signal:?}");
    }
}

#[test]
fn without_a_pid_namespace_of_its_own_kill_all_ends_every_process() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh", "-c", "sleep 1000 & echo up; wait"]).without_namespace("pid");
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("up"));
    container.call("kill", &["--all"], &["KILL"]).ok();
    container.wait_exit();
    // The runtime's end-of-test check finds the sleep, if it lives.
    container.delete().ok();
}

#[test]
fn an_id_is_a_plain_name() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/true"]);
    bundle.write();
    let long = "x".repeat(256);
    for id in ["", ".", "..", "a/b", "../a", "a b", "a\nb", "ä", "a:b", "a*", long.as_str()] {
        let error = rt.call(&["create", "--bundle", bundle.path_str(), id]).fails().error();
        assert!(!error.is_empty(), "{id:?} is refused with a sentence");
        rt.call(&["state", id]).fails();
        assert!(!rt.root().exists() || fs::read_dir(rt.root()).unwrap().next().is_none(), "{id:?} left something");
    }
    let good = format!("{}_+-.X9", rt.tag());
    rt.call(&["run", "--bundle", bundle.path_str(), &good]).ok();
}

#[test]
fn an_id_is_used_once() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let container = rt.create(&bundle, &[]).unwrap();
    for verb in ["create", "run"] {
        let error = rt.call(&[verb, "--bundle", bundle.path_str(), container.id()]).fails().error();
        assert!(error.contains("exist"), "{error:?}");
        assert_eq!(container.status(), "created", "the first is untouched");
    }
    container.start().ok();
}

#[test]
fn state_tells_what_it_promises() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]).set("/annotations", json!({"org.example.a": "b"}));
    let container = rt.create(&bundle, &[]).unwrap();
    let state = container.state();
    assert_eq!(state["id"], container.id());
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["bundle"], bundle.path_str());
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.a": "b"}));
    assert_eq!(state["owner"], "");
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.ends_with('Z') && created.as_bytes()[10] == b'T', "{created:?} is RFC 3339");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));

    container.kill("KILL").ok();
    container.wait_exit();
    assert_eq!(container.state()["pid"], 0, "a stopped container has no process");
}

#[test]
fn run_returns_the_status_of_the_process() {
    let rt = Runtime::from_env();
    let run = |args: &[&str]| rt.run(&rt.bundle(args)).code();
    assert_eq!(run(&["/bin/true"]), 0);
    assert_eq!(run(&["/bin/false"]), 1);
    assert_eq!(run(&["/bin/probe", "exit", "255"]), 255);
    // Only from outside does a signal that init does not handle end it.
    assert_eq!(run(&["/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), 128 + 9, "of a child, as the shell tells");
}

#[test]
fn run_passes_signals_on() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    bundle.write();
    let running = rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |_| {});
    wait::file(running.stdout_file(), |text| text.contains("ready"));
    running.signal(Signal::SIGTERM);
    running.wait().ok();
}

#[test]
fn run_keeps_the_container_when_told_to() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/true"]);
    rt.run_with(&bundle, &["--keep"], |_| {}).ok();
    let ids: Vec<_> =
        fs::read_dir(rt.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(rt.call(&["state", &ids[0]]).ok().json()["status"], "stopped");
    rt.call(&["delete", &ids[0]]).ok();
}

#[test]
fn standard_input_reaches_the_container() {
    let rt = Runtime::from_env();
    let input = rt.fresh_path("input");
    fs::write(&input, "from outside\n").unwrap();
    let out = rt.run_with(&rt.bundle(&["/bin/cat"]), &[], |command| {
        command.stdin(Stdio::from(fs::File::open(&input).unwrap()));
    });
    assert_eq!(out.ok().stdout, "from outside\n");
}

#[test]
fn a_program_that_is_not_there_is_told_in_words_that_engines_know() {
    let rt = Runtime::from_env();
    let error = rt.run(&rt.bundle(&["no-such-program"])).fails().error();
    assert!(error.contains("executable file not found in"), "{error:?}");
    let error = rt.run(&rt.bundle(&["/no/such/program"])).fails().error();
    assert!(error.contains("no such file or directory"), "{error:?}");
    let error = rt.run(&rt.bundle(&["/etc/passwd"])).fails().error();
    assert!(error.contains("permission denied"), "{error:?}");

    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let out = container.exec(&["no-such-program"]).fails();
    assert_eq!(out.code(), 255);
    assert!(out.error().contains("executable file not found in"), "{out:?}");
}

#[test]
fn exec_runs_as_it_is_told() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    assert_eq!(container.exec(&["sh", "-c", "exit 5"]).fails().code(), 5);
    assert_eq!(container.exec_with(&["--cwd", "/tmp"], &["pwd"]).ok().stdout, "/tmp\n");
    assert_eq!(container.exec_with(&["--env", "A=b c"], &["sh", "-c", "echo $A"]).ok().stdout, "b c\n");
    let ids = container.exec_with(&["--user", "1000:5", "--additional-gids", "7"], &["id"]).ok().stdout;
    assert!(ids.contains("uid=1000") && ids.contains("gid=5") && ids.contains('7'), "{ids:?}");

    let report = container.exec(&["probe"]).ok().json();
    let init = container.exec(&["readlink", "/proc/1/ns/mnt"]).ok().stdout;
    assert_eq!(report["namespaces"]["mnt"].as_str(), Some(init.trim()), "exec is in init's namespaces");
    assert_eq!(report["no_new_privs"], "1");
}

#[test]
fn a_detached_exec_is_told_by_its_pid_file() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let orphan = container.exec_detached(&[], &["sleep", "1000"]).unwrap();
    let command = fs::read_to_string(format!("/proc/{}/cmdline", orphan.pid())).unwrap();
    assert_eq!(command, "sleep\u{0}1000\u{0}");
    container.call::<&str>("delete", &["--force"], &[]).ok();
    orphan.wait();
}

#[test]
fn a_paused_container_refuses_exec() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(container.status(), "paused");
    let error = container.exec(&["true"]).fails().error();
    assert!(error.contains("paused"), "{error:?}");
    container.call::<&str>("resume", &[], &[]).ok();
    assert_eq!(container.status(), "running");
    container.exec(&["true"]).ok();
}

/// The process is made, and stands still with the others until the container is resumed.
#[test]
fn an_exec_that_ignores_the_pause_waits_for_its_end() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    container.call::<&str>("pause", &[], &[]).ok();
    let procs = crate::cgroup::directory(&container, "freezer").join("cgroup.procs");
    let exec = rt.spawn(&["exec", "--ignore-paused", container.id(), "true"], |_| {});
    let pidfd = sys::pidfd_open(exec.pid()).unwrap();
    let has_ended = || wait::readable(pidfd.as_fd(), Instant::now());
    while fs::read_to_string(&procs).unwrap().lines().count() < 2 && !has_ended() {
        std::thread::yield_now();
    }
    assert!(!has_ended(), "{:?}", exec.wait());
    container.call::<&str>("resume", &[], &[]).ok();
    exec.wait().ok();
}

/// `--pidfd-socket` of create, run and exec.
#[test]
fn a_pidfd_is_sent_to_who_asks_for_it() {
    let rt = Runtime::from_env();
    let socket = Console::listen(&rt);
    let flags = ["--pidfd-socket", socket.path().to_str().unwrap()];
    let process = |pidfd: OwnedFd| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(|pid| pid.trim().parse::<i32>());
        pid.expect("a pidfd").unwrap()
    };
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let created = rt.create(&bundle, &flags).unwrap();
    assert_eq!(process(socket.accept().0), created.pid());
    let container = rt.run_detached(&bundle, &flags).unwrap();
    assert_eq!(process(socket.accept().0), container.pid());
    let exec = container.exec_detached(&flags, &["sleep", "1000"]).unwrap();
    assert_eq!(process(socket.accept().0), exec.pid());
    container.kill("KILL").ok();
    container.wait_exit();
}

#[test]
fn list_and_ps_tell_what_runs() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let running = rt.run_detached(&bundle, &[]).unwrap();
    let created = rt.create(&bundle, &[]).unwrap();

    let list = rt.call(&["list", "--format", "json"]).ok().json();
    let mut seen: Vec<_> =
        list.as_array().unwrap().iter().map(|one| (one["id"].clone(), one["status"].clone())).collect();
    seen.sort_by_key(|one| one.0.to_string());
    let mut wanted = vec![(json!(running.id()), json!("running")), (json!(created.id()), json!("created"))];
    wanted.sort_by_key(|one| one.0.to_string());
    assert_eq!(seen, wanted);

    let quiet = rt.call(&["list", "--quiet"]).ok().stdout;
    let mut ids: Vec<_> = quiet.lines().collect();
    ids.sort_unstable();
    let mut wanted = vec![running.id(), created.id()];
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    let text = rt.call(&["list"]).ok().stdout;
    assert!(text.starts_with("ID ") && text.contains("STATUS") && text.contains(running.id()), "{text}");

    let pids = running.call::<&str>("ps", &["--format", "json"], &[]).ok().json();
    assert_eq!(pids, json!([running.pid()]));
    let table = running.call::<&str>("ps", &[], &[]).ok().stdout;
    assert!(table.contains("PID") && table.contains(&running.pid().to_string()), "{table}");
}

#[test]
fn a_list_of_nothing_makes_nothing() {
    let rt = Runtime::from_env();
    rt.call(&["list"]).fails();
    assert!(!rt.root().exists());
}

#[test]
fn the_log_is_what_shims_read() {
    let rt = Runtime::from_env();
    let out = rt.run(&rt.bundle(&["/no/such/program"])).fails();
    let line = out.log.iter().rev().find(|line| line["level"] == "error").expect("an error line");
    assert!(line["msg"].as_str().is_some_and(|message| !message.contains('\n') && !message.is_empty()), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.as_bytes()[10] == b'T'), "{line}");
    assert!(!out.stderr.is_empty(), "a person without the log sees it too");

    let text = rt.fresh_path("log");
    let status = std::process::Command::new(rt.binary())
        .arg("--root")
        .arg(rt.root())
        .arg("--log")
        .arg(&text)
        .args(["state", "not-there"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let line = fs::read_to_string(&text).unwrap();
    assert!(line.contains("level=error") && line.contains("does not exist"), "{line:?}");
}

#[test]
fn a_container_sees_three_descriptors() {
    let rt = Runtime::from_env();
    let report = rt.run(&rt.bundle(&["/bin/probe"])).ok().json();
    let numbers: Vec<_> = report["fds"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{}", report["fds"]);

    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let report = container.exec(&["probe"]).ok().json();
    let numbers: Vec<_> = report["fds"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(numbers, ["0", "1", "2"], "exec: {}", report["fds"]);
}

#[test]
fn an_init_that_ends_at_once_hangs_nobody() {
    let rt = Runtime::from_env();
    for _ in 0..20 {
        let container = rt.run_detached(&rt.bundle(&["/bin/true"]), &[]).unwrap();
        // Either it is still there or it is not; what counts is that exec comes back.
        container.exec(&["true"]);
        container.wait_exit();
        container.delete().ok();
    }
}

#[test]
fn a_program_needs_no_terminal_it_did_not_ask_for() {
    let rt = Runtime::from_env();
    let report = rt.run(&rt.bundle(&["/bin/probe"])).ok().json();
    assert_eq!(report["tty"], json!([false, false, false]));
    let error = rt.create(&rt.bundle(&["/bin/true"]).set("/process/terminal", json!(true)), &[]).unwrap_err().error();
    assert!(error.contains("console"), "a terminal without a console socket is refused: {error:?}");
}
