//! Hooks: which runs when, where, with what, and what its failure does.

use std::fs;
use std::path::Path;

use integration::{Bundle, Runtime};
use serde_json::{Value, json};

const STAGES: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a shell script with `$0` as its name.
fn script(name: &str, text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", text, name], "env": ["PATH=/bin:/usr/bin"]})
}

/// A bundle in which `/work` is the test's directory, so that hooks inside and outside write to the same file.
fn bundle(rt: &Runtime) -> Bundle {
    let work = rt.work().to_str().unwrap();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    // The same path inside as outside.
    fs::create_dir_all(bundle.rootfs().join(work.trim_start_matches('/'))).unwrap();
    bundle.push("/mounts", json!({"destination": work, "type": "bind", "source": work, "options": ["bind", "rw"]}))
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn namespace(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn each_hook_runs_at_its_moment_in_its_namespaces_with_the_state() {
    let rt = Runtime::from_env();
    let log = rt.fresh_path("hooks");
    let mut bundle = bundle(&rt).set("/annotations", json!({"org.example.key": "value"}));
    for stage in STAGES {
        for number in ["1", "2"] {
            // One line a hook: name, namespaces, working directory, state.
            let text = format!(
                "echo $0 $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $(cat) >>{}",
                log.display()
            );
            bundle = bundle.push(&format!("/hooks/{stage}"), script(&format!("{stage}{number}"), &text));
        }
    }
    let container = rt.create(&bundle, &[]).unwrap();
    let inside = [namespace(&container.pid().to_string(), "mnt"), namespace(&container.pid().to_string(), "net")];
    let outside = [namespace("self", "mnt"), namespace("self", "net")];
    assert_eq!(lines(&log).len(), 6, "before start: {:?}", lines(&log));
    container.start().ok();
    assert_eq!(lines(&log).len(), 10, "after start: {:?}", lines(&log));
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();

    let lines = lines(&log);
    let names: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let expected: Vec<_> = STAGES.iter().flat_map(|stage| [format!("{stage}1"), format!("{stage}2")]).collect();
    assert_eq!(names, expected);
    for line in &lines {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let contained = words[0].starts_with("createContainer") || words[0].starts_with("startContainer");
        assert_eq!([words[1], words[2]], if contained { &inside } else { &outside }[..], "{line}");
        let state: Value = serde_json::from_str(words[3]).unwrap_or_else(|e| panic!("{e}: {line}"));
        let status = match &words[0][..words[0].len() - 1] {
            "prestart" | "createRuntime" | "createContainer" => "creating",
            "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["id"], container.id(), "{line}");
        assert_eq!(state["bundle"], bundle.path_str(), "{line}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{line}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{line}");
        let outside_and_alive = !contained && status != "stopped";
        if outside_and_alive {
            assert_eq!(state["pid"], container.pid(), "{line}");
        }
    }
}

#[test]
fn a_failing_hook_of_create_undoes_it_and_says_why() {
    for (stage, index) in [("prestart", 0), ("createRuntime", 1), ("createContainer", 1)] {
        let rt = Runtime::from_env();
        let marker = rt.fresh_path("ran");
        let mut bundle = bundle(&rt);
        for _ in 0..index {
            bundle = bundle.push(&format!("/hooks/{stage}"), script("good", "exit 0"));
        }
        let after = script("after", &format!("touch {}", marker.display()));
        let bundle = bundle
            .push(&format!("/hooks/{stage}"), script("bad", "echo reason >&2; exit 3"))
            .push(&format!("/hooks/{stage}"), after);
        let error = rt.create(&bundle, &[]).unwrap_err().fails().error();
        assert!(error.contains(&format!("error running {stage} hook #{index}")), "{error}");
        assert!(error.contains("exit status 3") && error.contains("reason"), "{error}");
        assert!(!marker.exists(), "{stage}: a hook ran after one that failed");
        let left = fs::read_dir(rt.root()).map(|entries| entries.count()).unwrap_or(0);
        assert_eq!(left, 0, "{stage}: state is left");
    }
}

#[test]
fn a_failing_start_container_hook_fails_start() {
    let rt = Runtime::from_env();
    let marker = rt.fresh_path("ran");
    let bundle = bundle(&rt)
        .push("/hooks/startContainer", script("bad", "echo reason >&2; exit 3"))
        .push("/hooks/poststart", script("good", &format!("touch {}", marker.display())));
    let container = rt.create(&bundle, &[]).unwrap();
    let output = container.start().fails();
    assert!(output.error().contains("startContainer hook #0"), "{output:?}");
    assert!(output.error().contains("reason"), "{output:?}");
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
    assert!(!container.stdout().contains("ready"), "the program ran");
    assert!(marker.exists(), "the poststart hooks run all the same, as under runc and crun");
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let rt = Runtime::from_env();
    let bundle = bundle(&rt).push("/hooks/poststart", script("bad", "exit 3"));
    let container = rt.create(&bundle, &[]).unwrap();
    let output = container.start().fails();
    assert!(output.error().contains("poststart hook #0"), "{output:?}");
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
}

#[test]
fn a_failing_poststop_hook_is_a_warning_and_the_next_still_runs() {
    let rt = Runtime::from_env();
    let marker = rt.fresh_path("ran");
    let bundle = bundle(&rt)
        .push("/hooks/poststop", script("bad", "exit 3"))
        .push("/hooks/poststop", script("good", &format!("touch {}", marker.display())));
    let container = rt.create(&bundle, &[]).unwrap();
    container.start().ok();
    container.kill("KILL").ok();
    container.wait_exit();
    let output = container.delete().ok();
    assert!(output.warnings().iter().any(|text| text.contains("poststop hook #0")), "{output:?}");
    assert!(marker.exists());
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let rt = Runtime::from_env();
    let pid = rt.fresh_path("pid");
    let mut hook = script("slow", &format!("echo $$ >{}; exec sleep 1000", pid.display()));
    hook["timeout"] = json!(1);
    let output = rt.create(&bundle(&rt).push("/hooks/createRuntime", hook), &[]).unwrap_err().fails();
    assert!(output.error().contains("createRuntime hook #0"), "{output:?}");
    assert!(output.took.as_secs() < 30, "{output:?}");
    let pid = fs::read_to_string(pid).unwrap();
    let path = format!("/proc/{}/comm", pid.trim());
    assert!(fs::read_to_string(path).is_err(), "the hook still runs");
}

#[test]
fn a_hook_inherits_nothing() {
    let rt = Runtime::from_env();
    let found = rt.fresh_path("found");
    let hook = json!({
        "path": "/bin/sh",
        "args": ["sh", "-c", format!("cat /proc/self/environ | tr '\\0' ' ' >{0}; ls /proc/self/fd >>{0}; pwd >>{0}", found.display())],
        "env": ["PATH=/bin:/usr/bin", "A=1"],
    });
    let bundle = bundle(&rt).push("/hooks/createRuntime", hook);
    let container = rt.create(&bundle, &[]).unwrap();
    let text = fs::read_to_string(&found).unwrap();
    let (environment, rest) = text.split_once("0\n").unwrap();
    let mut variables: Vec<_> = environment.split_whitespace().collect();
    // What the shell itself exports.
    variables.retain(|variable| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| variable.starts_with(own)));
    variables.sort_unstable();
    assert_eq!(variables, ["A=1", "PATH=/bin:/usr/bin"]);
    // 3 is the directory that ls reads.
    assert_eq!(rest, format!("1\n2\n3\n{}\n", bundle.path_str()));
    drop(container);
}

/// In the foreground the runtime holds signals back; a hook may wait for its own.
#[test]
fn a_hook_has_no_signal_held_back() {
    let rt = Runtime::from_env();
    let found = rt.fresh_path("found");
    let text = format!("grep -h ^SigBlk /proc/self/status >>{}", found.display());
    let hooked = bundle(&rt)
        .push("/hooks/createRuntime", script("host", &text))
        .push("/hooks/poststop", script("host", &text))
        .set("/process/args", json!(["/bin/true"]));
    rt.run(&hooked).ok();
    assert_eq!(fs::read_to_string(&found).unwrap(), "SigBlk:\t0000000000000000\n".repeat(2));
}

#[test]
fn a_hook_may_ask_the_runtime_for_the_container() {
    let rt = Runtime::from_env();
    let found = rt.fresh_path("found");
    let text = format!(
        "{} --root {} state $(sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/') >{} 2>&1",
        rt.binary().display(),
        rt.root().display(),
        found.display()
    );
    let container = rt.create(&bundle(&rt).push("/hooks/createRuntime", script("ask", &text)), &[]);
    let container = container.unwrap_or_else(|output| panic!("{output:?} {:?}", lines(&found)));
    let state: Value = serde_json::from_str(&fs::read_to_string(found).unwrap()).unwrap();
    assert_eq!(state["status"], "creating");
    assert_eq!(state["pid"], container.pid());
}

#[test]
fn hooks_without_a_reader_or_with_much_output_do_not_hang() {
    let rt = Runtime::from_env();
    let bundle = bundle(&rt)
        .set("/annotations", json!({"large": "x".repeat(200_000)}))
        .push("/hooks/createRuntime", script("deaf", "exec <&-"))
        .push("/hooks/createRuntime", script("loud", "yes | head -c 1000000; yes | head -c 1000000 >&2"))
        .push("/hooks/createRuntime", script("parent", "sleep 1000 & echo $! >$0.pid"));
    let container = rt.create(&bundle, &[]).unwrap();
    // What a hook leaves behind is not the runtime's to end; it is this test's.
    let pid = fs::read_to_string(bundle.path().join("parent.pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let _ = nix::sys::wait::waitpid(pid, None);
    drop(container);
}
