use std::os::fd::AsFd;

use super::*;
use crate::record::{Config, MountSpec};

/// A container of `image` in a root with one user.
fn spec(change: impl FnOnce(&mut Container)) -> Result<Value> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:\n").unwrap();
    let mut record = Container { id: "ab".repeat(32), ..Container::default() };
    record.config.cmd = Some(vec!["true".to_owned()]);
    change(&mut record);
    complete(&mut record, &Config::default())?;
    let root = std::fs::File::open(dir.path()).unwrap();
    build(&Inputs {
        record: &record,
        files: &Files::default(),
        netns: None,
        root: root.as_fd(),
        joins: &Joins::default(),
        apparmor: crate::apparmor::of(&record.host_config).as_deref(),
        links: &[],
        held: &Held::default(),
    })
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn what_the_image_says_fills_what_the_user_did_not() {
    let image = Config {
        user: "web".to_owned(),
        env: owned(&["A=image", "B=image"]),
        cmd: Some(owned(&["c1"])),
        entrypoint: Some(owned(&["/ep"])),
        working_dir: "/app".to_owned(),
        labels: [("x".to_owned(), "image".to_owned()), ("y".to_owned(), "image".to_owned())].into(),
        ..Config::default()
    };
    let merged = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        merge(&mut config, &image);
        config
    };
    let plain = merged(&|_| {});
    assert_eq!((arguments(&plain), plain.user.as_str()), (owned(&["/ep", "c1"]), "web"));
    assert_eq!(arguments(&merged(&|it| it.cmd = Some(owned(&["x", "y"])))), ["/ep", "x", "y"]);
    // Another entry point does not get the image's arguments; an empty one takes the image's away.
    assert_eq!(arguments(&merged(&|it| it.entrypoint = Some(owned(&["/other"])))), ["/other"]);
    let without = merged(&|it| {
        it.entrypoint = Some(vec![String::new()]);
        it.cmd = Some(owned(&["sh"]));
    });
    assert_eq!(arguments(&without), ["sh"]);
    let changed = merged(&|it| {
        it.env = owned(&["B=user", "C=user"]);
        it.labels = [("x".to_owned(), "user".to_owned())].into();
    });
    assert_eq!(changed.env, ["B=user", "C=user", "A=image"]);
    assert_eq!((changed.labels["x"].as_str(), changed.labels["y"].as_str()), ("user", "image"));
}

/// CVE-2026-57231: an entry of an image's environment without `=` took the host's value.
#[test]
fn cve_2026_57231_a_variable_without_a_value_takes_none_from_the_host() {
    let config = Config { env: owned(&["PATH", "HOME", "X=1", "X", "=y", "K=v=w"]), ..Config::default() };
    assert_eq!(environment(&config, &owned(&["DB_PORT=1"])), ["HOSTNAME=", "DB_PORT=1", "=y", "K=v=w"]);
}

/// CVE-2022-24769: capabilities that are inheritable.
#[test]
fn cve_2022_24769_nothing_is_inheritable() {
    for user in ["", "web"] {
        let spec = spec(|it| user.clone_into(&mut it.config.user)).unwrap();
        let sets = spec["process"]["capabilities"].as_object().unwrap().clone();
        assert!(!sets.contains_key("inheritable") && !sets.contains_key("ambient"), "{sets:?}");
        assert_eq!(sets.contains_key("effective"), user.is_empty());
    }
}

/// Which families of sockets a profile lets through, as the kernel would decide.
fn allows_socket(profile: &Value, family: u64) -> bool {
    let number = |it: &Value| it.as_u64().unwrap();
    profile["syscalls"].as_array().unwrap().iter().any(|rule| {
        rule["names"].as_array().unwrap().contains(&json!("socket"))
            && rule["args"].as_array().is_none_or(|conditions| {
                conditions.iter().all(|it| family & number(&it["value"]) == number(&it["valueTwo"]))
            })
    })
}

/// CVE-2026-31431: AF_ALG; and io_uring.
#[test]
fn cve_2026_31431_no_sockets_of_af_alg_and_no_io_uring() {
    let profile = seccomp::default(&[]);
    for family in 0..64 {
        assert_eq!(allows_socket(&profile, family), family < 48 && family != 38 && family != 40, "{family}");
        // The kernel looks at 32 bits alone.
        assert_eq!(allows_socket(&profile, family), allows_socket(&profile, family | 1 << 32), "{family}");
    }
    let text = profile.to_string();
    for name in ["socketcall", "io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(!text.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn a_profile_of_the_users_is_read_as_docker_reads_it() {
    let given = r#"seccomp={"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64"}],
        "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null},{"name":"mount","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},{"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
        {"names":["later"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},{"names":["s390"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390"]}}]}"#;
    let names = |admin: bool| {
        let spec = spec(|it| {
            it.host_config.security_opt = owned(&[given]);
            if admin {
                it.host_config.cap_add = owned(&["SYS_ADMIN"]);
            }
        })
        .unwrap();
        let calls = spec["linux"]["seccomp"]["syscalls"].as_array().unwrap().clone();
        calls.iter().map(|it| it["names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["read", "clone", "ptrace"]);
    assert_eq!(names(true), ["read", "mount", "ptrace"]);
    for (wrong, why) in [
        ("seccomp={", "not JSON"),
        ("seccomp={}", "no defaultAction"),
        ("seccomp={\"defaultAction\":\"x\",\"syscalls\":[{}]}", "either name or names"),
        ("nonsense", "invalid --security-opt"),
        ("foo=bar", "invalid --security-opt"),
    ] {
        let error = spec(|it| it.host_config.security_opt = owned(&[wrong])).expect_err(wrong);
        assert!(error.message.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn wrong_values_are_told_before_anything_happens() {
    type Change = fn(&mut Container);
    let rows: &[(Change, &str)] = &[
        (|it| it.config.cmd = None, "no command specified"),
        (|it| it.config.working_dir = "rel".to_owned(), "needs to be an absolute path"),
        (|it| it.config.env = vec!["A=\0".to_owned()], "nul character"),
        (|it| it.config.user = "nobody-here".to_owned(), "unable to find user"),
        (|it| it.host_config.memory = 1 << 20, "6MB"),
        (|it| it.host_config.memory_swap = 1 << 30, "--memory too"),
        (|it| (it.host_config.memory, it.host_config.memory_swap) = (64 << 20, 32 << 20), "larger than --memory"),
        (|it| it.host_config.memory_swappiness = Some(101), "0 to 100"),
        (|it| it.host_config.nano_cpus = 1, "range of CPUs"),
        (|it| it.host_config.nano_cpus = i64::MAX, "range of CPUs"),
        (|it| (it.host_config.nano_cpus, it.host_config.cpu_quota) = (1_000_000_000, 5000), "--cpus cannot"),
        (|it| it.host_config.cpu_period = 1, "1000 to 1000000"),
        (|it| it.host_config.cpu_shares = 1, "2 to 262144"),
        (|it| it.host_config.blkio_weight = 5, "10 to 1000"),
        (|it| it.host_config.oom_score_adj = 1001, "-1000 to 1000"),
        (|it| it.host_config.cpuset_cpus = "3-1".to_owned(), "--cpuset-cpus"),
        (|it| it.host_config.cpuset_mems = "x".to_owned(), "--cpuset-mems"),
        (|it| it.host_config.cap_add = vec!["NOPE".to_owned()], "\"NOPE\""),
        (|it| it.host_config.ipc_mode = "container:".to_owned(), "IPC mode"),
        (|it| it.host_config.pid_mode = "other".to_owned(), "PID mode"),
        (|it| it.host_config.uts_mode = "container:x".to_owned(), "UTS mode"),
        (|it| it.host_config.cgroupns_mode = "x".to_owned(), "cgroup namespace mode"),
        (|it| drop(it.host_config.sysctls.insert("vm.swappiness".to_owned(), String::new())), "whole host"),
        (|it| drop(it.host_config.sysctls.insert("net/../kernel".to_owned(), String::new())), "with dots"),
        (
            |it| {
                it.host_config.network_mode = "host".to_owned();
                it.host_config.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
            },
            "--network host",
        ),
        (
            |it| {
                it.host_config.ulimits = vec![crate::record::Ulimit { name: "nofile".to_owned(), soft: 2, hard: 1 }];
            },
            "less than or equal to hard limit",
        ),
        (
            |it| it.host_config.ulimits = vec![crate::record::Ulimit { name: "x".to_owned(), soft: 1, hard: 1 }],
            "invalid ulimit type",
        ),
    ];
    for (change, why) in rows {
        let error = spec(change).expect_err(why);
        assert!(error.message.contains(why), "{why}: {error}");
    }
}

#[test]
fn mounts_stand_above_what_is_below_them_and_in_place_of_the_systems() {
    let mount = |kind: &str, destination: &str, writable: bool| crate::record::Mount {
        kind: kind.to_owned(),
        source: "/src".to_owned(),
        destination: destination.to_owned(),
        writable,
        ..crate::record::Mount::default()
    };
    let built = spec(|it| {
        it.mounts = vec![
            mount("bind", "/a/b", true),
            mount("volume", "/a", false),
            mount("bind", "/etc/hosts", true),
            mount("tmpfs", "/t", true),
        ];
        it.host_config.mounts = vec![MountSpec {
            kind: "tmpfs".to_owned(),
            target: "/t".to_owned(),
            size_bytes: 4096,
            mode: 0o700,
            ..MountSpec::default()
        }];
        it.host_config.tmpfs.insert("/a/b/c".to_owned(), "exec,size=5m".to_owned());
    })
    .unwrap();
    let mounts = built["mounts"].as_array().unwrap();
    let places: Vec<&str> = mounts.iter().map(|it| it["destination"].as_str().unwrap()).collect();
    assert_eq!(places[places.len() - 5..], ["/a", "/t", "/a/b", "/etc/hosts", "/a/b/c"]);
    assert_eq!(places.iter().filter(|it| **it == "/etc/hosts").count(), 1);
    let options = |place: &str| mounts.iter().find(|it| it["destination"] == place).unwrap()["options"].clone();
    assert_eq!(options("/a"), json!(["rbind", "ro"]));
    assert_eq!(options("/t"), json!(["noexec", "nosuid", "nodev", "rprivate", "mode=700", "size=4096"]));
    assert_eq!(options("/a/b/c"), json!(["nosuid", "nodev", "rprivate", "exec", "size=5m"]));
    let dev = spec(|it| it.mounts = vec![mount("bind", "/dev", true)]).unwrap();
    assert!(!dev["mounts"].as_array().unwrap().iter().any(|it| it["destination"] == "/dev/shm"));
}

/// CVE-2026-55686: a link in the image where the working directory lies made directories on the host. It is the runtime's to make, in the
/// root; here nothing is.
#[test]
fn cve_2026_55686_the_working_directory_is_not_made_on_the_host() {
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("app")).unwrap();
    let mut record = Container { id: "ab".repeat(32), ..Container::default() };
    let image = Config {
        working_dir: "/app/made".to_owned(),
        cmd: Some(owned(&["true"])),
        user: "1000".to_owned(),
        ..Config::default()
    };
    complete(&mut record, &image).unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let spec = build(&Inputs {
        record: &record,
        files: &Files::default(),
        netns: None,
        root: root.as_fd(),
        joins: &Joins::default(),
        apparmor: None,
        links: &[],
        held: &Held::default(),
    })
    .unwrap();
    assert_eq!(spec["process"]["cwd"], "/app/made");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
