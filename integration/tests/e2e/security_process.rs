//! Attacks by way of the process: its working directory, users, capabilities, environment, descriptors and terminal. Named
//! after the vulnerabilities of other runtimes. Each must end in a sentence, or change and leak nothing.

use std::fs;
use std::os::unix::fs::symlink;

use integration::{Bundle, Runtime};
use serde_json::{Value, json};

#[test]
fn cve_2022_29162_cve_2022_27650_cve_2022_24769_cve_2025_27612_no_inheritable_capabilities() {
    let rt = Runtime::from_env();
    let none = json!("0000000000000000");
    let config = rt.bundle(&["/bin/probe"]);
    let report = rt.run(&config).ok().json();
    assert_eq!((&report["caps"]["inheritable"], &report["caps"]["ambient"]), (&none, &none));

    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for flags in [&[][..], &["--cap", "CAP_NET_ADMIN", "--cap", "CAP_CHOWN"], &["--user", "1000"]] {
        let report = container.exec_with(flags, &["/bin/probe"]).ok().json();
        assert_eq!((&report["caps"]["inheritable"], &report["caps"]["ambient"]), (&none, &none), "{flags:?}");
    }
    // A process file that says nothing of capabilities has the container's, and no more.
    let file = rt.fresh_path("process.json");
    fs::write(&file, json!({"cwd": "/", "args": ["/bin/probe"], "env": ["PATH=/bin"]}).to_string()).unwrap();
    let report = container.exec_with(&["--process", file.to_str().unwrap()], &[]).ok().json();
    assert_eq!((&report["caps"]["inheritable"], &report["no_new_privs"]), (&none, &json!("1")));
    assert_eq!(report["caps"]["bounding"], "0000000020000420");
}

#[test]
fn cve_2023_25173_groups_are_those_that_are_asked_for() {
    let rt = Runtime::from_env();
    let groups = |bundle: &Bundle| rt.run(bundle).ok().json()["groups"].clone();
    let user = |groups: Value| json!({"uid": 1000, "gid": 1000, "additionalGids": groups});
    assert_eq!(groups(&rt.bundle(&["/bin/probe"]).set("/process/user", user(json!([50, 60])))), json!([50, 60]));
    assert_eq!(groups(&rt.bundle(&["/bin/probe"]).set("/process/user", user(json!([])))), json!([]));
    // Nor are those of whoever calls the runtime.
    let bundle = rt.bundle(&["/bin/probe"]);
    bundle.write();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--groups", "77,88"]).arg(rt.binary()).arg("--root").arg(rt.root());
    command.args(["run", "--bundle", bundle.path_str(), &rt.fresh_id()]).env("TARE_TEST_TAG", rt.tag());
    let output = command.output().expect("setpriv of util-linux");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(report["groups"], json!([]));
}

#[test]
fn cve_2024_40635_cve_2026_46680_cve_2026_30892_a_number_is_itself_or_an_error() {
    let rt = Runtime::from_env();
    // 4294967295 is "no change" to setresuid(2): the process would stay root.
    let wrong = [
        json!(4_294_967_295u32),
        json!(4_294_967_296u64),
        json!(-1),
        json!("0"),
        json!("1000"),
        json!(1.5),
        json!(1e300),
    ];
    for id in wrong {
        for field in ["uid", "gid"] {
            let bundle = rt.bundle(&["/bin/true"]).set(&format!("/process/user/{field}"), id.clone());
            rt.run(&bundle).fails();
        }
        rt.run(&rt.bundle(&["/bin/true"]).set("/process/user/additionalGids", json!([id]))).fails();
    }
    let largest = json!({"uid": 4_294_967_294u32, "gid": 4_294_967_294u32});
    let report = rt.run(&rt.bundle(&["/bin/probe"]).set("/process/user", largest)).ok().json();
    assert_eq!(report["uid"], json!([4_294_967_294u32, 4_294_967_294u32]));

    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    assert_eq!(container.exec_with(&["--user", "1"], &["/bin/id", "-u"]).ok().stdout, "1\n");
    for user in [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "1:4294967296",
        "user",
        "1:",
        ":1",
        "+1",
        " 1",
        "0x1",
        "",
    ] {
        container.exec_with(&["--user", user], &["/bin/id", "-u"]).fails();
    }
}

#[test]
fn cve_2024_21626_a_working_directory_by_a_descriptor_of_the_host() {
    let rt = Runtime::from_env();
    for number in 0..24 {
        for form in ["/proc/self/fd/{}", "/proc/self/fd/{}/../../..", "/proc/1/fd/{}", "/proc/self/fd/{}/new"] {
            if number % 8 != 0 && form.len() > 16 {
                continue;
            }
            let cwd = form.replace("{}", &number.to_string());
            let bundle = rt.bundle(&["/bin/pwd"]).set("/process/cwd", json!(cwd)).set("/root/readonly", json!(false));
            let output = rt.run(&bundle).fails();
            assert!(
                output.error().contains("working directory") || output.error().contains("process.cwd"),
                "{output:?}"
            );
        }
    }
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for number in 0..16 {
        let cwd = format!("/proc/self/fd/{number}");
        container.exec_with(&["--cwd", &cwd], &["/bin/pwd"]).fails();
    }
    let error = container.exec_with(&["--cwd", "/no/such"], &["/bin/pwd"]).fails().error();
    assert!(error.contains("chdir to process.cwd \"/no/such\": no such file or directory"), "{error}");
}

#[test]
fn cve_2026_55686_a_working_directory_by_a_link_of_the_image() {
    let rt = Runtime::from_env();
    let outside = rt.fresh_path("outside");
    // The image's link dangles to where a path of the host would be made, and owned.
    let bundle = rt.bundle(&["/bin/pwd"]).set("/process/cwd", json!("/app/dir")).set("/root/readonly", json!(false));
    symlink(&outside, bundle.rootfs().join("app")).unwrap();
    rt.run(&bundle).fails();
    assert!(!outside.exists());
    // Where the link stays inside, what is made is made inside.
    let bundle =
        rt.bundle(&["/bin/pwd", "-P"]).set("/process/cwd", json!("/app/dir")).set("/root/readonly", json!(false));
    let host = rt.fresh_path("host");
    fs::create_dir_all(bundle.rootfs().join(host.strip_prefix("/").unwrap())).unwrap();
    symlink(&host, bundle.rootfs().join("app")).unwrap();
    assert_eq!(rt.run(&bundle).ok().stdout, format!("{}/dir\n", host.display()));
    assert!(!host.exists());
}

/// The image's user file is a link to nowhere, a fifo, a device, endless, a directory.
#[test]
fn cve_2024_9676_cve_2023_25153_cve_2026_47262_a_hostile_user_file() {
    let rt = Runtime::from_env();
    type Make = fn(&std::path::Path);
    let makes: [(&str, Make, &str); 5] = [
        ("a fifo", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(), "/"),
        ("a directory", |path| fs::create_dir(path).unwrap(), "/"),
        ("a link to a file that never ends", |path| symlink("/dev/zero", path).unwrap(), "/"),
        ("a link to a link to itself", |path| symlink("passwd", path).unwrap(), "/"),
        (
            "a file with a line of 64 MiB before the user's",
            |path| {
                let text = [vec![b'x'; 64 << 20], b"\nuser:x:1000:1000::/found:/bin/sh\n".to_vec()].concat();
                fs::write(path, text).unwrap();
            },
            "/",
        ),
    ];
    for (what, make, home) in makes {
        let bundle = rt.bundle(&["/bin/sh", "-c", "echo $HOME"]).set("/process/user/uid", json!(1000));
        let path = bundle.rootfs().join("etc/passwd");
        fs::remove_file(&path).unwrap();
        make(&path);
        assert_eq!(rt.run(&bundle).ok().stdout, format!("{home}\n"), "{what}");
    }
}

#[test]
fn cve_2026_57231_a_variable_without_a_value() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe"]).push("/process/env", json!("TARE_TEST_TAG"));
    let error = rt.run(&bundle).fails().error();
    assert!(error.contains("process.env[2] \"TARE_TEST_TAG\" has no '=': an entry is name=value"), "{error}");
    let output = rt.run(&rt.bundle(&["/bin/probe"])).ok();
    let env = output.json()["env"].to_string();
    assert!(!env.contains(rt.tag()), "a variable of the host is in the container: {env}");
}

/// Nothing that the image has where a terminal should be is taken for one, or written to.
#[test]
fn cve_2025_52565_a_dev_that_has_something_else_for_a_terminal() {
    let rt = Runtime::from_env();
    let outside = rt.fresh_path("outside");
    fs::write(&outside, "untouched").unwrap();
    let without_mounts = |bundle: Bundle, targets: &[&str]| {
        bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !targets.iter().any(|target| mount["destination"] == *target));
        })
    };
    // No devpts at all; a file, a link and a foreign device in place of the multiplexer.
    type Make = fn(&std::path::Path, &std::path::Path);
    let makes: [Make; 4] = [
        |_, _| {},
        |ptmx, _| fs::write(ptmx, "").unwrap(),
        |ptmx, outside| std::os::unix::fs::symlink(outside, ptmx).unwrap(),
        |ptmx, _| {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            mknod(ptmx, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
        },
    ];
    for make in makes {
        let bundle = without_mounts(
            rt.bundle(&["/bin/true"]).set("/process/terminal", json!(true)),
            &["/dev/pts", "/dev", "/dev/shm", "/dev/mqueue"],
        );
        let pts = bundle.rootfs().join("dev/pts");
        fs::create_dir_all(&pts).unwrap();
        make(&pts.join("ptmx"), &outside);
        let error = rt.run(&bundle).fails().error();
        assert!(error.contains("/dev/pts/ptmx") && error.contains("devpts"), "{error}");
    }
    // A console that is a link: nothing is mounted over what it leads to.
    let bundle = without_mounts(
        rt.bundle(&["/bin/true"]).set("/process/terminal", json!(true)),
        &["/dev", "/dev/shm", "/dev/mqueue"],
    )
    .set("/root/readonly", json!(false));
    fs::create_dir_all(bundle.rootfs().join("dev/pts")).unwrap();
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("dev/console")).unwrap();
    rt.run(&bundle);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}

/// What the runtime itself holds is not to be seen from inside, at any moment: by a process that was there before.
#[test]
fn cve_2016_9962_an_exec_shows_nothing_of_the_host_to_the_container() {
    let rt = Runtime::from_env();
    // It looks at every process that comes, and at what that has open, as soon as it is there.
    let spy = "echo ready; while :; do for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; \
               for f in $p/fd/* $p/cwd $p/root $p/exe; do l=$(readlink $f 2>/dev/null) && echo \"$f $l\"; done; done; done";
    let bundle = rt.bundle(&["/bin/sh", "-c", spy]).edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
        }
    });
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for _ in 0..30 {
        container.exec(&["/bin/true"]).ok();
    }
    container.exec(&["/bin/sleep", "1"]).ok();
    container.kill("KILL").ok();
    container.wait_exit();
    let seen = container.stdout();
    assert!(seen.contains("/exe /bin/busybox"), "the spy sees what it may see: {seen}");
    // Its own output files are given to it, by the path on the host.
    let leaks =
        seen.lines().filter(|line| line.contains("exec.fifo") || line.contains("/state/") || line.contains("cgroup"));
    assert_eq!(leaks.collect::<Vec<_>>(), [""; 0]);
}
