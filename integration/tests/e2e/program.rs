//! The program and what it finds: how it is looked for, its working directory, its descriptors, its keyring.

use std::fs;
use std::os::unix::fs::symlink;

use integration::Runtime;
use serde_json::{Value, json};

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
fn exec_hands_over_what_is_asked_for_too() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let script = format!(
        "exec 3</etc/group 4</etc/passwd; {} --root {} exec --preserve-fds 1 {} /bin/probe",
        rt.binary().display(),
        rt.root().display(),
        container.id()
    );
    let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((&report["fds"]["3"], &report["fds"]["4"]), (&json!("/etc/group"), &Value::Null), "{report}");
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
