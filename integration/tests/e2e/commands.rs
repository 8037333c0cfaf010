//! What each command prints, and what it accepts on its command line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use integration::{Output, Runtime};
use serde_json::{Value, json};

/// A call without the harness's own `--root`, `--log` and `--log-format`: as a person makes it.
fn bare(rt: &Runtime, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(rt.binary()).args(args).current_dir(rt.work()).output().expect("call the runtime");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// A point in time as Go's RFC 3339 with nanoseconds.
fn is_time(text: &str) -> bool {
    let (seconds, rest) = text.split_at(19);
    let shape: String = seconds.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    shape == "0000-00-00T00:00:00" && rest.ends_with('Z') && (rest == "Z" || rest.starts_with('.'))
}

#[test]
fn state_prints_the_states_of_a_life() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]).set("/annotations", json!({"b": "2", "a": "1"}));
    let container = rt.create(&bundle, &[]).unwrap();
    let state = container.state();
    let keys: BTreeSet<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        ["annotations", "bundle", "created", "id", "ociVersion", "owner", "pid", "rootfs", "status"].map(|key| key);
    assert_eq!(keys, BTreeSet::from(expected));
    assert_eq!(state["id"], container.id());
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.path_str());
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    assert_eq!(state["owner"], "");
    assert_eq!(state["annotations"], json!({"a": "1", "b": "2"}));
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert!(is_time(state["created"].as_str().unwrap()), "{state}");
    container.start().ok();
    assert_eq!(container.state()["created"], state["created"]);
    assert_eq!(container.status(), "running");
    container.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(container.status(), "paused");
    container.call::<&str>("resume", &[], &[]).ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    container.wait_exit();
    let state = container.state();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    container.delete().ok();
    assert_eq!(container.call::<&str>("state", &[], &[]).fails().code(), 1);
}

#[test]
fn list_prints_a_table_names_or_json() {
    let rt = Runtime::from_env();
    let containers: Vec<_> = (0..2).map(|_| rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap()).collect();
    let mut ids: Vec<_> = containers.iter().map(|container| container.id()).collect();
    ids.sort_unstable();

    let names = rt.call(&["list", "--quiet"]).ok().stdout;
    assert_eq!(names.lines().collect::<Vec<_>>(), ids);

    let table = rt.call(&["list"]).ok().stdout;
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(lines.len(), 3);
    for (line, container) in lines[1..].iter().zip(&containers) {
        assert_eq!(line[..3], [container.id(), &container.pid().to_string(), "created"]);
        assert!(is_time(line[4]), "{table}");
        assert_eq!(line[5], "root");
    }
    let column = table.lines().next().unwrap().find("STATUS").unwrap();
    assert!(table.lines().skip(1).all(|line| line[column..].starts_with("created")), "{table}");

    for flag in [&["-f", "json"][..], &["--format", "json"], &["--format=json"]] {
        let list = rt.call(&[&["list"], flag].concat()).ok().json();
        let list = list.as_array().unwrap();
        let listed: Vec<_> = list.iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!(listed, ids);
        for (item, container) in list.iter().zip(&containers) {
            let mut state = container.state();
            state["owner"] = json!("root");
            assert_eq!(*item, state);
        }
    }
    drop(containers);
    assert_eq!(rt.call(&["list", "--format", "json"]).ok().stdout, "null\n");
    assert_eq!(rt.call(&["list", "-q"]).ok().stdout, "");
    assert_eq!(rt.call(&["list"]).ok().stdout, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
}

#[test]
fn list_leaves_out_what_it_cannot_read() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    fs::create_dir(rt.root().join("half")).unwrap();
    fs::create_dir(rt.root().join("broken")).unwrap();
    fs::write(rt.root().join("broken/state.json"), "{").unwrap();
    fs::write(rt.root().join("file"), "").unwrap();
    let output = rt.call(&["list", "--quiet"]).ok();
    assert_eq!(output.stdout.trim(), container.id());
    fs::remove_dir_all(rt.root().join("half")).unwrap();
    fs::remove_dir_all(rt.root().join("broken")).unwrap();
    fs::remove_file(rt.root().join("file")).unwrap();
}

#[test]
fn list_of_a_missing_root_fails_and_makes_nothing() {
    let rt = Runtime::from_env();
    let error = rt.call(&["list"]).fails().error();
    assert!(error.contains("no such file or directory"), "{error}");
    assert!(!rt.root().exists());
}

#[test]
fn spec_writes_a_bundle_that_runs() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&[]);
    let path = bundle.path().join("config.json");
    rt.call(&["spec", "--bundle", bundle.path_str()]).ok();
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.starts_with("{\n\t\"ociVersion\""), "{first}");
    let mut config: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], json!(["sh"]));

    let error = rt.call(&["spec", "-b", bundle.path_str()]).fails().error();
    assert!(error.contains("exists. Remove it first"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), first);

    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "spec"]);
    let mut bundle = bundle;
    bundle.config = config;
    assert_eq!(rt.run(&bundle).ok().stdout, "spec\n");

    let dir = rt.fresh_path("here");
    fs::create_dir(&dir).unwrap();
    rt.spawn(&["spec", "--rootless"], |command| {
        command.current_dir(&dir);
    })
    .wait()
    .ok();
    let config: Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 0, "size": 1}]));
}

#[test]
fn features_are_complete() {
    let rt = Runtime::from_env();
    let features = rt.call(&["features"]).ok().json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["ociVersionMax"], "1.3.0");
    let linux = &features["linux"];
    for pointer in [
        "/cgroup/v1",
        "/cgroup/v2",
        "/cgroup/systemd",
        "/cgroup/systemdUser",
        "/cgroup/rdma",
        "/seccomp/enabled",
        "/apparmor/enabled",
        "/selinux/enabled",
        "/intelRdt/enabled",
        "/intelRdt/schemata",
        "/intelRdt/monitoring",
        "/mountExtensions/idmap/enabled",
        "/netDevices/enabled",
    ] {
        assert_eq!(linux.pointer(pointer), Some(&json!(true)), "{pointer}");
    }
    for (list, members) in [
        (
            &features["hooks"],
            &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"][..],
        ),
        (
            &features["mountOptions"],
            &["ro", "rw", "bind", "rbind", "rro", "idmap", "ridmap", "tmpcopyup", "nosymfollow"],
        ),
        (&features["potentiallyUnsafeConfigAnnotations"], &["org.criu.config", "org.systemd.property."]),
        (&linux["namespaces"], &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
        (&linux["capabilities"], &["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]),
        (&linux["seccomp"]["actions"], &["SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS"]),
        (&linux["seccomp"]["operators"], &["SCMP_CMP_MASKED_EQ"]),
        (&linux["seccomp"]["archs"], &["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]),
        (&linux["seccomp"]["knownFlags"], &["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        (&linux["seccomp"]["supportedFlags"], &["SECCOMP_FILTER_FLAG_LOG"]),
        (&linux["memoryPolicy"]["modes"], &["MPOL_BIND", "MPOL_WEIGHTED_INTERLEAVE"]),
        (&linux["memoryPolicy"]["flags"], &["MPOL_F_STATIC_NODES"]),
    ] {
        let list = list.as_array().unwrap_or_else(|| panic!("a list with {members:?}: {features}"));
        for member in members {
            assert!(list.contains(&json!(member)), "{member}: {list:?}");
        }
    }
}

#[test]
fn every_mount_option_of_features_is_accepted() {
    let rt = Runtime::from_env();
    let features = rt.call(&["features"]).ok().json();
    // An unknown option would be handed to the file system, which refuses it.
    for option in features["mountOptions"].as_array().unwrap() {
        let option = option.as_str().unwrap();
        if ["remount", "mand", "idmap", "ridmap", "copy-symlink", "src-nofollow"].contains(&option) {
            continue;
        }
        let bind = ["bind", "rbind"].contains(&option);
        let mount = match bind {
            true => json!({"destination": "/mnt", "type": "none", "source": "/tmp", "options": [option]}),
            false => json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]}),
        };
        let bundle = rt.bundle(&["/bin/true"]).push("/mounts", mount).set("/root/readonly", json!(false));
        let output = rt.run(&bundle);
        assert!(output.status.success(), "{option}: {output:?}");
    }
}

#[test]
fn the_version_is_what_callers_parse() {
    let rt = Runtime::from_env();
    for flag in ["--version", "-v"] {
        let (code, out, err) = bare(&rt, &[flag]);
        assert_eq!((code, err.as_str()), (0, ""));
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].split(' ').nth(1) == Some("version"), "{out}");
        assert!(
            lines.iter().any(|line| line.starts_with("commit: "))
                && lines.iter().any(|line| line.starts_with("spec: 1."))
        );
    }
}

#[test]
fn help_names_every_command_and_flag() {
    let rt = Runtime::from_env();
    let (code, help, _) = bare(&rt, &["--help"]);
    assert_eq!(code, 0);
    let commands = [
        "checkpoint",
        "create",
        "delete",
        "events",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
    ];
    for command in commands {
        assert!(help.contains(command), "{help}");
        let (code, text, _) = bare(&rt, &[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        assert!(text.contains(command), "{text}");
    }
    for flag in ["--root", "--log", "--log-format", "--debug", "--systemd-cgroup", "--rootless"] {
        assert!(help.contains(flag), "{help}");
    }
    let (_, exec, _) = bare(&rt, &["exec", "--help"]);
    for flag in
        ["--process", "--env", "--tty", "--user", "--additional-gids", "--cap", "--preserve-fds", "--ignore-paused"]
    {
        assert!(exec.contains(flag), "{exec}");
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_definition() {
    let rt = Runtime::from_env();
    // Built beside the tests (`cargo test` builds examples), and no command of the runtime.
    let deps = std::env::current_exe().expect("the path of this program");
    let extras = deps.parent().and_then(Path::parent).expect("its profile's directory").join("examples/extras");
    let call = |args: &[&str]| {
        let output = Command::new(&extras).args(args).output().unwrap_or_else(|e| panic!("{}: {e}", extras.display()));
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let programs = [("tare", "checkpoint"), ("tare-store", "snapshot"), ("tarectl", "network")];
    for (program, command) in programs {
        for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
            let script = call(&[program, "completion", shell]);
            assert!(script.contains(&format!("{mark} ")) && script.contains(command), "{program} {shell}");
        }
    }
    let script = rt.fresh_path("tare.bash");
    fs::write(&script, call(&["tare", "completion", "bash"])).unwrap();
    match Command::new("bash").args(["-n", script.to_str().unwrap()]).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => integration::report_skip(&format!("bash reads its completions: bash cannot be run: {error}")),
    }
    let dir = rt.fresh_path("man");
    for (program, _) in programs {
        call(&[program, "man", dir.to_str().unwrap()]);
    }
    let pages: BTreeSet<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["tare.8", "tare-create.8", "tare-store-snapshot-prepare.8", "tarectl.8", "tarectl-network-create.8"] {
        assert!(pages.contains(page), "{page} is not among {pages:?}");
    }
}

#[test]
fn the_log_is_text_or_json_in_a_file_or_on_standard_error() {
    let rt = Runtime::from_env();
    let root = rt.root();
    let root = root.to_str().unwrap();
    let log = rt.fresh_path("log");
    let log_path = log.to_str().unwrap();

    let (code, out, err) = bare(&rt, &["--root", root, "state", "nobody"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("time=\"") && err.contains("\" level=error msg=\"") && err.ends_with("\"\n"), "{err}");
    assert_eq!(err.lines().count(), 1);

    let (_, _, err) = bare(&rt, &["--root", root, "--log-format", "json", "state", "nobody"]);
    let line: Value = serde_json::from_str(&err).unwrap();
    let message = line["msg"].as_str().unwrap().to_owned();
    assert_eq!(line["level"], "error");
    assert!(message.contains("does not exist"), "{message}");
    assert!(is_time(line["time"].as_str().unwrap()), "{line}");

    // With a file the sentence is on standard error too, bare.
    for format in ["json", "text"] {
        let (_, _, err) = bare(&rt, &["--root", root, "--log", log_path, "--log-format", format, "state", "nobody"]);
        assert_eq!(err, format!("{message}\n"));
    }
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "appended: {text}");
    assert!(serde_json::from_str::<Value>(lines[0]).is_ok() && lines[1].starts_with("time=\""), "{text}");

    // An argument error reaches the file as well.
    let (code, _, _) = bare(&rt, &["--log", log_path, "--log-format", "json", "state", "--bogus", "x"]);
    assert_eq!(code, 1);
    assert!(fs::read_to_string(&log).unwrap().lines().last().unwrap().contains("bogus"));

    let (code, _, err) = bare(&rt, &["--log", "/nowhere/log", "state", "nobody"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/log: no such file or directory"), "{err}");
}

#[test]
fn debug_and_unknown_capabilities_are_logged() {
    let rt = Runtime::from_env().global_flags(&["--debug"]);
    let output = rt.call(&["state", "nobody"]).fails();
    assert!(output.log.iter().any(|line| line["level"] == "debug"), "{output:?}");
    let bundle = rt.bundle(&["/bin/true"]).push("/process/capabilities/bounding", json!("CAP_TO_COME"));
    let output = rt.run(&bundle).ok();
    assert!(output.warnings().iter().any(|text| text.contains("CAP_TO_COME")), "{output:?}");
}

#[test]
fn signals_are_sent_by_name_and_number() {
    let rt = Runtime::from_env();
    for (signal, number) in [("KILL", 9), ("SIGKILL", 9), ("kill", 9), ("9", 9), ("TERM", 0), ("15", 0), ("", 0)] {
        let container = rt.create(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
        container.start().ok();
        container.wait_stdout(|text| text.contains("ready"));
        let rest: &[&str] = if signal.is_empty() { &[] } else { &[signal] };
        container.call("kill", &[], rest).ok();
        let status = format!("{:?}", container.wait_exit());
        let expected = if number == 9 { "SIGKILL" } else { "Exited" };
        assert!(status.contains(expected), "{signal}: {status}");
    }
}

#[test]
fn flags_of_go_style_and_after_the_name_are_taken() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "exit", "3"]);
    bundle.write();
    let call = |args: &[&str]| -> Output { rt.call(args) };
    let id = rt.fresh_id();
    let output = call(&["run", "--detach=false", "--keep=true", &id, "--bundle", bundle.path_str()]);
    assert_eq!(output.code(), 3, "{output:?}");
    call(&["delete", &id, "--force"]).ok();
    // Without --force what is gone is an error, with it it is not.
    call(&["delete", &id]).fails();
    call(&["delete", "--force", &id]).ok();
}

#[test]
fn flags_that_are_kept_for_runc_s_sake_change_nothing() {
    let rt = Runtime::from_env().global_flags(&["--criu", "/nowhere"]);
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    for flag in ["--kernel-memory", "--kernel-memory-tcp"] {
        let output = container.call("update", &[flag, "1m"], &[] as &[&str]).ok();
        assert_eq!(output.warnings(), ["limits of kernel memory are ignored: kernels have none any more"], "{flag}");
    }
}

#[test]
fn exec_takes_the_command_verbatim() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.start().ok();
    let output = container.exec(&["/bin/echo", "-n", "--tty", "-e", "a", "--", "b"]).ok();
    assert_eq!(output.stdout, "--tty -e a -- b", "{output:?}");
    let output =
        container.exec_with(&["-e", "A=1", "--env", "B=2", "--cwd", "/tmp"], &["/bin/sh", "-c", "echo $A$B $PWD"]).ok();
    assert_eq!(output.stdout, "12 /tmp\n");
    let output = container.exec_with(&["-u", "1000:5"], &["/bin/sh", "-c", "id -u; id -g"]).ok();
    assert_eq!(output.stdout, "1000\n5\n");
    assert_eq!(container.exec(&["/bin/probe", "exit", "7"]).code(), 7);
    assert_eq!(container.exec(&["/no/such"]).code(), 255);
}
