//! Everything between the mounts and the program: that each field of `process` reaches the payload, of `run` and of `exec`
//! alike, and what a wrong one is told.

use std::fs;
use std::os::unix::fs::symlink;

use integration::{Bundle, Runtime, skip};
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
fn check(what: &str, report: &Value, expected: &[(&str, Value)]) {
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
fn personality_and_memory_policy_are_for_exec_too() {
    let rt = Runtime::from_env();
    let bundle = rt
        .bundle(&["/bin/probe", "wait"])
        .set("/linux/personality", json!({"domain": "LINUX32"}))
        .set("/process/capabilities", json!({}));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let personality = fs::read_to_string(format!("/proc/{}/personality", container.pid())).unwrap();
    assert_eq!(personality.trim(), "00000008");
    assert_eq!(container.exec(&["/bin/uname", "-m"]).ok().stdout, "i686\n");

    for (policy, expected) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), json!({"mode": 2, "nodes": [0]})),
        (json!({"mode": "MPOL_PREFERRED", "nodes": ""}), json!({"mode": 4, "nodes": []})),
        (json!({"mode": "MPOL_LOCAL"}), json!({"mode": 4, "nodes": []})),
        (json!({"mode": "MPOL_DEFAULT"}), json!({"mode": 0, "nodes": []})),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0-0", "flags": ["MPOL_F_STATIC_NODES"]}),
            json!({"mode": 0x8003, "nodes": [0]}),
        ),
    ] {
        let output = rt.run(&rt.bundle(&["/bin/probe"]).set("/linux/memoryPolicy", policy.clone()));
        if output.error().contains("this kernel has no NUMA support") {
            skip!("this kernel has no NUMA support");
        }
        assert_eq!(output.ok().json()["mempolicy"], expected, "{policy}");
    }
    let output =
        rt.run(&rt.bundle(&["/bin/true"]).set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1000"})));
    assert!(output.fails().error().contains("set the memory policy MPOL_BIND on nodes 1000"));
}

#[test]
fn every_scheduler_reaches_the_process() {
    let rt = Runtime::from_env();
    let ms = 1_000_000;
    let mut refused = Vec::new();
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 3}), vec![("/sched/policy", json!(0)), ("/sched/nice", json!(3))]),
        (
            json!({"policy": "SCHED_FIFO", "priority": 7}),
            vec![("/sched/policy", json!(1)), ("/sched/priority", json!(7))],
        ),
        (
            json!({"policy": "SCHED_RR", "priority": 8}),
            vec![("/sched/policy", json!(2)), ("/sched/priority", json!(8))],
        ),
        (json!({"policy": "SCHED_BATCH"}), vec![("/sched/policy", json!(3))]),
        (json!({"policy": "SCHED_IDLE"}), vec![("/sched/policy", json!(5))]),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 10 * ms, "deadline": 30 * ms, "period": 40 * ms}),
            vec![
                ("/sched/policy", json!(6)),
                ("/sched/runtime", json!(10 * ms)),
                ("/sched/deadline", json!(30 * ms)),
                ("/sched/period", json!(40 * ms)),
            ],
        ),
    ] {
        let policy = scheduler["policy"].as_str().unwrap().to_owned();
        let output = rt.run(&rt.bundle(&["/bin/probe"]).set("/process/scheduler", scheduler));
        if output.status.success() {
            check(&policy, &output.json(), &expected);
        } else {
            // Real-time groups of cgroup v1, and exclusive cpusets, have no time to give.
            assert!(output.error().starts_with(&format!("set the scheduler to {policy} ")), "{output:?}");
            refused.push(policy);
        }
    }
    assert!(!refused.iter().any(|policy| ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"].contains(&policy.as_str())));
    if !refused.is_empty() {
        skip!("this host has no time for {}", refused.join(", "));
    }
}

#[test]
fn the_affinity_of_the_caller_is_not_the_container_s() {
    let rt = Runtime::from_env();
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned();
    if !all.contains(['-', ',']) {
        skip!("this host has one CPU");
    }
    let bundle =
        rt.bundle(&["/bin/probe", "wait"]).set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    // This thread is what the runtime inherits its CPUs from.
    let mut one = nix::sched::CpuSet::new();
    one.set(1).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).unwrap();
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let cpus = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
    };
    assert_eq!(cpus(container.pid()), all);
    assert_eq!(container.exec(&["/bin/probe"]).ok().json()["cpus"], "0");
}

#[test]
fn a_capability_that_cannot_be_granted_is_a_warning() {
    let rt = Runtime::from_env();
    let names = json!(["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_OF_THE_FUTURE"]);
    let sets = json!({"bounding": names, "effective": names, "permitted": names});
    let output = rt.run(&rt.bundle(&["/bin/probe"]).set("/process/capabilities", sets)).ok();
    let report = output.json();
    let warnings = output.warnings();
    assert!(
        warnings.iter().any(|text| text == "ignoring unknown or unavailable capabilities: [CAP_OF_THE_FUTURE]"),
        "{warnings:?}"
    );
    // CAP_SYS_RESOURCE is what this kind of host commonly withholds.
    match report["caps"]["effective"].as_str().unwrap() {
        "0000000001000001" => {}
        "0000000000000001" => {
            assert!(warnings.iter().any(|text| text.contains("CAP_SYS_RESOURCE")), "{warnings:?}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_module_the_host_lacks_is_an_error_that_says_so() {
    let rt = Runtime::from_env();
    let has = |path: &str| fs::exists(path).unwrap_or(false);
    if !has("/sys/module/apparmor") {
        let bundle = rt.bundle(&["/bin/true"]).set("/process/apparmorProfile", json!("docker-default"));
        let error = rt.run(&bundle).fails().error();
        assert!(error.contains("asks for \"docker-default\", but AppArmor is not enabled on this host"), "{error}");
        rt.run(&rt.bundle(&["/bin/true"]).set("/process/apparmorProfile", json!("unconfined"))).ok();
        rt.run(&rt.bundle(&["/bin/true"]).set("/process/apparmorProfile", json!(""))).ok();
    }
    if !has("/sys/fs/selinux/enforce") {
        for field in ["/process/selinuxLabel", "/linux/mountLabel"] {
            let label = "system_u:object_r:container_file_t:s0:c1,c2";
            let error = rt.run(&rt.bundle(&["/bin/true"]).set(field, json!(label))).fails().error();
            assert!(error.contains(&format!("asks for {label:?}, but SELinux is not enabled on this host")), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_executed_is_told_in_the_words_and_codes_that_callers_know() {
    let rt = Runtime::from_env();
    let script = rt.bundle(&["/bin/probe", "wait"]);
    fs::write(script.rootfs().join("bin/no-interpreter"), "#!/no/such\n").unwrap();
    fs::write(script.rootfs().join("bin/garbage"), "\0\0\0\0garbage").unwrap();
    fs::write(script.rootfs().join("bin/plain"), "").unwrap();
    for name in ["no-interpreter", "garbage"] {
        let path = script.rootfs().join("bin").join(name);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let container = rt.run_detached(&script, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let mut config = script;
    for (args, words) in [
        (json!(["no-such-program"]), "executable file not found in $PATH"),
        (json!([""]), "executable file not found in $PATH"),
        (json!(["/no/such"]), "no such file or directory"),
        (json!(["/bin/no-interpreter"]), "no such file or directory"),
        (json!(["/bin/plain"]), "permission denied"),
        (json!(["plain"]), "permission denied"),
        (json!(["/etc"]), "is a directory"),
        (json!(["/bin/garbage"]), "exec format error"),
    ] {
        config = config.set("/process/args", args.clone());
        let output = rt.run(&config).fails();
        assert!(output.error().contains(words), "{args}: {output:?}");
        assert_eq!(output.code(), 1, "{args}");
        let output = container.exec(&[args[0].as_str().unwrap()]).fails();
        assert!(output.error().contains(words), "{args}: {output:?}");
        assert_eq!(output.code(), 255, "{args}");
    }
    // Known before the program is to run: a create fails, and so a start need not.
    config = config.set("/process/args", json!(["no-such-program"]));
    let error = rt.create(&config, &[]).expect_err("a create that fails").error();
    assert!(error.contains("executable file not found in $PATH"), "{error}");
}

#[test]
fn the_program_is_found_as_the_user_and_in_the_container_s_path() {
    let rt = Runtime::from_env();
    let bundle =
        rt.bundle(&["tool"]).set("/process/env", json!(["PATH=/one::/two"])).set("/process/cwd", json!("/home"));
    let root = bundle.rootfs();
    let place = |dir: &str, mode: u32| {
        let path = root.join(dir);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("tool"), format!("#!/bin/sh\necho /{dir}\n")).unwrap();
        fs::set_permissions(path.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    place("one", 0o600);
    place("two", 0o755);
    let bundle = bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(rt.run(&bundle).ok().stdout, "/two\n");
    place("home", 0o755);
    // An empty part of PATH is the working directory.
    assert_eq!(rt.run(&bundle).ok().stdout, "/home\n");
}

/// The working directory: made if missing, with all its parents, and never outside.
#[test]
fn a_missing_working_directory_is_made() {
    let rt = Runtime::from_env();
    for (root, cwd) in [(true, "/new/deep/er"), (false, "/other"), (false, "/link/inside")] {
        let bundle = rt
            .bundle(&["/bin/sh", "-c", "pwd; stat -c %a:%u ."])
            .set("/process/cwd", json!(cwd))
            .set("/root/readonly", json!(root))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
        symlink("/tmp", bundle.rootfs().join("link")).unwrap();
        let shown = cwd.replace("/link", "/tmp");
        assert_eq!(rt.run(&bundle).ok().stdout.replace("/link", "/tmp"), format!("{shown}\n755:0\n"), "{cwd}");
    }
}

#[test]
fn descriptors_are_handed_over_only_if_they_are_asked_for() {
    let rt = Runtime::from_env();
    // Opened by the shell, and not asked for.
    let files = |rt: &Runtime, flags: &str, shell: &str| {
        let bundle = rt.bundle(&["/bin/probe"]);
        bundle.write();
        let out = rt.fresh_path("out");
        let script = format!(
            "{shell}; exec {} --root {} run --bundle {} {flags} {} >{}",
            rt.binary().display(),
            rt.root().display(),
            bundle.path_str(),
            rt.fresh_id(),
            out.display()
        );
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .env("TARE_TEST_TAG", rt.tag())
            .output()
            .unwrap();
        (status, fs::read_to_string(out).unwrap_or_default())
    };
    let open = "exec 3</etc/group 4</etc/passwd 7</";
    let fds = |text: &str| {
        let report: Value = serde_json::from_str(text).unwrap();
        let fds = report["fds"]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| key.parse().unwrap())
            .filter(|&fd| fd > 2)
            .collect::<Vec<u32>>();
        (fds, report)
    };
    assert_eq!(fds(&files(&rt, "", open).1).0, [0u32; 0]);
    assert_eq!(fds(&files(&rt, "--preserve-fds 2", open).1).0, [3, 4]);
    let (output, _) = files(&rt, "--preserve-fds 3", open);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("descriptor 5 is not open in the calling process"), "{said}");
    // Sockets of a service manager come first, and say so.
    let listen = format!("{open}; export LISTEN_FDS=1 LISTEN_PID=$$");
    let (numbers, report) = fds(&files(&rt, "--preserve-fds 1", &listen).1);
    assert_eq!(numbers, [3, 4]);
    let env = report["env"].as_array().unwrap();
    assert!(env.contains(&json!("LISTEN_FDS=1")) && env.contains(&json!("LISTEN_PID=1")), "{env:?}");
    let (numbers, _) = fds(&files(&rt, "", &format!("{open}; export LISTEN_FDS=1 LISTEN_PID=1")).1);
    assert_eq!(numbers, [0u32; 0]);
}

#[test]
fn the_user_can_open_its_own_standard_output_again() {
    let rt = Runtime::from_env();
    let script = "echo out >/dev/stdout; echo err >/dev/stderr";
    let bundle = rt.bundle(&["/bin/sh", "-c", script]).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.write();
    let mut running = rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |command| {
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    });
    let [out, err] = [
        std::io::read_to_string(running.child().stdout.take().unwrap()).unwrap(),
        std::io::read_to_string(running.child().stderr.take().unwrap()).unwrap(),
    ];
    running.wait().ok();
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
}

#[test]
fn processes_of_one_container_share_a_keyring_that_nobody_else_has() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]).set("/linux/maskedPaths", json!([]));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let keys = container.exec(&["/bin/cat", "/proc/keys"]).ok().stdout;
    let ours = keys.lines().filter(|line| line.contains(&format!("_ses.{}", container.id()))).count();
    assert_eq!(ours, 1, "{keys}");
    let other = rt.run_detached(&bundle, &["--no-new-keyring"]).unwrap();
    other.wait_stdout(|text| text.contains("ready"));
    let keys = other.exec(&["/bin/cat", "/proc/keys"]).ok().stdout;
    assert!(!keys.contains(&format!("_ses.{}", other.id())), "{keys}");
}

#[test]
fn wrong_processes_are_told_before_anything_is_done() {
    let rt = Runtime::from_env();
    for (field, value, sentence) in [
        ("/process/args", json!([]), "process.args is empty: it must name a program to run"),
        ("/process/cwd", json!("tmp"), "process.cwd \"tmp\" is not an absolute path"),
        (
            "/process/user/uid",
            json!(4294967295u32),
            "process.user.uid 4294967295 is not an id: the largest is 4294967294",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]),
            "process.rlimits: the soft limit 2 of RLIMIT_NOFILE is above its hard limit 1",
        ),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj 1001 is not within -1000 and 1000"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 100}),
            "process.scheduler.priority 100 is not within 1 and 99 (policy SCHED_FIFO)",
        ),
    ] {
        let output = rt.run(&rt.bundle(&["/bin/true"]).set(field, value)).fails();
        assert!(output.error().contains(sentence), "{field}: {output:?}");
        assert_eq!(output.code(), 1);
    }
    // A number below zero, or above 32 bits, is none (CVE-2024-40635).
    for uid in [json!(-1), json!(4294967296u64), json!("0"), json!(1.5)] {
        rt.run(&rt.bundle(&["/bin/true"]).set("/process/user/uid", uid)).fails();
    }
    assert!(!rt.root().exists() || fs::read_dir(rt.root()).unwrap().next().is_none());
}

#[test]
fn a_limit_above_what_the_runtime_may_set_is_told() {
    let rt = Runtime::from_env();
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 2_000_000_000, "hard": 2_000_000_000}]);
    let output = rt.run(&rt.bundle(&["/bin/true"]).set("/process/rlimits", limit)).fails();
    assert!(
        output.error().contains("set RLIMIT_NOFILE to soft 2000000000, hard 2000000000: operation not permitted"),
        "{output:?}"
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

#[test]
fn a_profile_without_faccessat2_hides_no_program() {
    // Profiles older than the call refuse it, and without noNewPrivileges they are in force when the program is looked for.
    let rt = Runtime::from_env();
    for errno in [1, 38] {
        let bundle = rt.bundle(&["true"]).set("/process/noNewPrivileges", json!(false)).set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["faccessat2"],
                    "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]}),
        );
        rt.run(&bundle).ok();
    }
}
