//! Everything between the mounts and the program: that each field of `process` reaches the payload, of `run` and of `exec`
//! alike, and what a wrong one is told.

use std::fs;

use integration::{Bundle, Runtime};
use serde_json::{Value, json};

/// A pointer into the probe's report, and what must be there.
type Seen = (&'static str, Value);

/// What is asked for in `process`, and what the probe must then see (pointer into its report, value).
fn fields() -> Vec<(&'static str, Value, Vec<Seen>)> {
    let caps = |names: &[&str]| json!(names);
    let two = caps(&["CAP_CHOWN", "CAP_KILL"]);
    vec![
        (
            "ids, groups and umask",
            json!({"user": {"uid": 1000, "gid": 2000, "additionalGids": [5, 10], "umask": 0o077}}),
            vec![
                ("/uid", json!([1000, 1000])),
                ("/gid", json!([2000, 2000])),
                ("/groups", json!([5, 10])),
                ("/umask", json!("0077")),
            ],
        ),
        (
            "the default umask, and no group of the caller",
            json!({"user": {"uid": 1, "gid": 0}}),
            vec![("/uid", json!([1, 1])), ("/groups", json!([])), ("/umask", json!("0022"))],
        ),
        (
            "root's capabilities",
            json!({"capabilities": {"bounding": two, "effective": two, "permitted": two}}),
            vec![
                ("/caps/bounding", json!("0000000000000021")),
                ("/caps/effective", json!("0000000000000021")),
                ("/caps/permitted", json!("0000000000000021")),
                ("/caps/inheritable", json!("0000000000000000")),
                ("/caps/ambient", json!("0000000000000000")),
            ],
        ),
        (
            "a user's ambient capabilities",
            json!({
                "user": {"uid": 1000, "gid": 1000},
                "capabilities": {"bounding": two, "effective": two, "permitted": two, "inheritable": two, "ambient": ["CAP_KILL"]},
            }),
            vec![
                ("/caps/bounding", json!("0000000000000021")),
                ("/caps/effective", json!("0000000000000020")),
                ("/caps/permitted", json!("0000000000000020")),
                ("/caps/inheritable", json!("0000000000000021")),
                ("/caps/ambient", json!("0000000000000020")),
            ],
        ),
        (
            "resource limits",
            json!({"rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000},
            ]}),
            vec![
                ("/rlimits/NOFILE", json!([100, 200])),
                ("/rlimits/CORE", json!([0, 0])),
                ("/rlimits/FSIZE", json!([1_000_000, 2_000_000])),
            ],
        ),
        ("no_new_privs", json!({"noNewPrivileges": true}), vec![("/no_new_privs", json!("1"))]),
        ("privileges", json!({"noNewPrivileges": false}), vec![("/no_new_privs", json!("0"))]),
        ("the OOM score", json!({"oomScoreAdj": 321}), vec![("/oom_score_adj", json!("321"))]),
        ("the working directory", json!({"cwd": "/home"}), vec![("/cwd", json!("/home"))]),
        (
            "I/O priority",
            json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5}}),
            vec![("/ioprio", json!({"class": 2, "level": 5}))],
        ),
        (
            "idle I/O",
            json!({"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}}),
            vec![("/ioprio/class", json!(3))],
        ),
        (
            "a batch scheduler",
            json!({"scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}),
            vec![("/sched/policy", json!(3)), ("/sched/nice", json!(5)), ("/sched/flags", json!(1))],
        ),
        ("an idle scheduler", json!({"scheduler": {"policy": "SCHED_IDLE"}}), vec![("/sched/policy", json!(5))]),
        (
            "the environment, its last values, and HOME from the container's users",
            json!({"env": ["A=1", "PATH=/bin", "A=2", "EMPTY="], "user": {"uid": 1000, "gid": 1000}}),
            vec![("/env", json!(["PATH=/bin", "A=2", "EMPTY=", "HOME=/home"]))],
        ),
        (
            "signals that are free",
            json!({}),
            // The probe's own start-up ignores SIGPIPE.
            vec![("/signals/blocked", json!("0000000000000000")), ("/signals/ignored", json!("0000000000001000"))],
        ),
        (
            "no descriptor but the three",
            json!({}),
            vec![("/fds/3", Value::Null), ("/fds/4", Value::Null), ("/fds/5", Value::Null)],
        ),
        ("a session of its own", json!({}), vec![("/parent_death_signal", Value::Null)]),
    ]
}

fn with(bundle: Bundle, changes: &Value) -> Bundle {
    changes
        .as_object()
        .unwrap()
        .iter()
        .fold(bundle, |bundle, (field, value)| bundle.set(&format!("/process/{field}"), value.clone()))
}

#[track_caller]
pub(crate) fn check(what: &str, report: &Value, expected: &[(&str, Value)]) {
    for (pointer, value) in expected {
        assert_eq!(report.pointer(pointer).unwrap_or(&Value::Null), value, "{what}: {pointer}");
    }
}

#[test]
fn every_field_reaches_the_process_of_run() {
    let rt = Runtime::from_env();
    for (what, changes, expected) in fields() {
        let output = rt.run(&with(rt.bundle(&["/bin/probe"]), &changes)).ok();
        assert_eq!(output.warnings(), [""; 0], "{what}");
        let report = output.json();
        check(what, &report, &expected);
        assert_eq!((&report["sid"], &report["pgid"]), (&json!(1), &json!(1)), "{what}");
    }
}

#[test]
fn every_field_reaches_the_process_of_exec() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for (what, changes, expected) in fields() {
        let mut process = bundle.config["process"].clone();
        process["args"] = json!(["/bin/probe"]);
        for (field, value) in changes.as_object().unwrap() {
            process[field] = value.clone();
        }
        let file = rt.fresh_path("process.json");
        fs::write(&file, process.to_string()).unwrap();
        let report = container.exec_with(&["--process", file.to_str().unwrap()], &[]).ok().json();
        check(what, &report, &expected);
        assert_eq!(report["sid"], report["pid"], "{what}");
    }
}

#[test]
fn no_signal_is_ignored_whatever_the_caller_ignores() {
    let rt = Runtime::from_env();
    let grep = ["/bin/grep", "SigIgn", "/proc/self/status"];
    let bundle = rt.bundle(&grep);
    bundle.write();
    let script = format!(
        "trap '' HUP CHLD USR1; {0} --root {1} run --bundle {2} {3}; {0} --root {1} run --detach --bundle {2} {4}",
        rt.binary().display(),
        rt.root().display(),
        bundle.path_str(),
        rt.fresh_id(),
        rt.fresh_id(),
    );
    let output =
        std::process::Command::new("/bin/sh").args(["-c", &script]).env("TARE_TEST_TAG", rt.tag()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "SigIgn:\t0000000000000000\n".repeat(2), "{output:?}");
}

#[test]
fn flags_of_exec_change_what_the_container_s_process_has() {
    let rt = Runtime::from_env();
    let bundle = rt
        .bundle(&["/bin/probe", "wait"])
        .set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [9]}))
        .set("/process/noNewPrivileges", json!(false))
        .set("/process/oomScoreAdj", json!(100));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let caps = "0000000020000420";
    for (flags, expected) in [
        (
            &[][..],
            vec![
                ("/uid/0", json!(0)),
                ("/cwd", json!("/")),
                ("/caps/effective", json!(caps)),
                ("/oom_score_adj", json!("100")),
            ],
        ),
        // As a number, not as a wrong number's fallback.
        (
            &["--user", "1"],
            vec![("/uid/0", json!(1)), ("/gid/0", json!(0)), ("/caps/effective", json!("0000000000000000"))],
        ),
        (&["--user", "1000:2000"], vec![("/uid/0", json!(1000)), ("/gid/0", json!(2000))]),
        (&["--additional-gids", "7"], vec![("/groups", json!([7, 9]))]),
        (&["--cwd", "/tmp"], vec![("/cwd", json!("/tmp"))]),
        (&["--no-new-privs"], vec![("/no_new_privs", json!("1"))]),
        // CVE-2022-29162 and its kind: what is added is not inheritable.
        (
            &["--cap", "CAP_SYS_TIME"],
            vec![
                ("/caps/effective", json!("0000000022000420")),
                ("/caps/bounding", json!("0000000022000420")),
                ("/caps/inheritable", json!("0000000000000000")),
            ],
        ),
    ] {
        check(&format!("{flags:?}"), &container.exec_with(flags, &["/bin/probe"]).ok().json(), &expected);
    }
    let report = container.exec_with(&["--env", "A=1", "--env", "TERM=other"], &["/bin/probe"]).ok().json();
    let env = report["env"].as_array().unwrap();
    assert!(
        env.contains(&json!("A=1")) && env.contains(&json!("TERM=other")) && !env.contains(&json!("TERM=xterm")),
        "{env:?}"
    );
}

#[test]
fn every_field_reaches_a_process_in_a_user_namespace() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]).with_user_namespace(), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for (what, changes, expected) in fields() {
        let bundle = with(rt.bundle(&["/bin/probe"]).with_user_namespace(), &changes);
        check(what, &rt.run(&bundle).ok().json(), &expected);
        let file = rt.fresh_path("process.json");
        fs::write(&file, bundle.config["process"].to_string()).unwrap();
        check(what, &container.exec_with(&["--process", file.to_str().unwrap()], &[]).ok().json(), &expected);
    }
    for (user, sentence) in [
        (json!({"uid": 70_000, "gid": 0}), "become user 70000: the id is not mapped in the container's user namespace"),
        (
            json!({"uid": 0, "gid": 70_000}),
            "become group 70000: the id is not mapped in the container's user namespace",
        ),
        (
            json!({"uid": 0, "gid": 0, "additionalGids": [70_000]}),
            "set the supplementary groups [70000]: the id is not mapped in the container's user namespace",
        ),
    ] {
        let output = rt.run(&rt.bundle(&["/bin/true"]).with_user_namespace().set("/process/user", user)).fails();
        assert!(output.error().contains(sentence), "{output:?}");
    }
}
