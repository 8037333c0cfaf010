//! What is told a runtime, compared with what Debian's dockerd tells it for the same flags.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tarectl::record::{Config, Container, Device, Mount, Ulimit};
use tarectl::spec::{self, Files, Inputs, Joins};
use tarectl::volumes::Held;

/// A name, docker's flags, and the same in a record.
type Row = (&'static str, &'static str, fn(&mut Container));

fn all(list: &[&str]) -> Vec<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

fn bind(destination: &str, writable: bool) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: "/run/host".to_owned(),
        destination: destination.to_owned(),
        writable,
        propagation: "rprivate".to_owned(),
        ..Mount::default()
    }
}

const ROWS: &[Row] = &[
    ("plain", "image", |_| {}),
    ("arguments", "image x y", |it| it.config.cmd = Some(all(&["x", "y"]))),
    ("entrypoint", "--entrypoint /other image z", |it| {
        it.config.entrypoint = Some(all(&["/other"]));
        it.config.cmd = Some(all(&["z"]));
    }),
    ("terminal", "-t image", |it| it.config.tty = true),
    ("user", "-u web image", |it| it.config.user = "web".to_owned()),
    ("user-number", "-u 33 image", |it| it.config.user = "33".to_owned()),
    ("user-unknown", "-u 333:44 image", |it| it.config.user = "333:44".to_owned()),
    ("user-group", "-u web:video image", |it| it.config.user = "web:video".to_owned()),
    // One each, here and below: dockerd mixes several groups, its command line several variables.
    ("group", "--group-add audio image", |it| it.host_config.group_add = all(&["audio"])),
    ("group-number", "--group-add 999 image", |it| it.host_config.group_add = all(&["999"])),
    ("variable", "-e K=V image", |it| it.config.env = all(&["K=V"])),
    ("variable-of-the-image", "-e A=cli image", |it| it.config.env = all(&["A=cli"])),
    ("variable-that-goes-without-saying", "-e HOSTNAME=other image", |it| it.config.env = all(&["HOSTNAME=other"])),
    ("directory", "-w /a/b/c image", |it| it.config.working_dir = "/a/b/c".to_owned()),
    ("capabilities", "--cap-add NET_ADMIN --cap-add sys_time --cap-drop CHOWN image", |it| {
        it.host_config.cap_add = all(&["NET_ADMIN", "sys_time"]);
        it.host_config.cap_drop = all(&["CHOWN"]);
    }),
    ("no-capability", "--cap-drop ALL image", |it| it.host_config.cap_drop = all(&["ALL"])),
    ("privileged", "--privileged image", |it| it.host_config.privileged = true),
    ("read-only", "--read-only image", |it| it.host_config.readonly_rootfs = true),
    ("tmpfs", "--tmpfs /t1 --tmpfs /t2:size=5m,mode=1700,exec,rw image", |it| {
        it.host_config.tmpfs =
            [("/t1", ""), ("/t2", "size=5m,mode=1700,exec,rw")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    }),
    ("binds", "-v /run/host:/a/b -v /run/host:/a:ro image", |it| {
        it.mounts = vec![bind("/a/b", true), bind("/a", false)]
    }),
    (
        "limits",
        "--memory 64m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 100 --memory-reservation 32m --memory-swappiness 10 --oom-score-adj 100 --oom-kill-disable image",
        |it| {
            let host = &mut it.host_config;
            (host.memory, host.memory_reservation, host.memory_swappiness) = (64 << 20, 32 << 20, Some(10));
            (host.nano_cpus, host.cpu_shares, host.pids_limit) = (1_500_000_000, 512, 100);
            (host.cpuset_cpus, host.cpuset_mems) = ("0".to_owned(), "0".to_owned());
            (host.oom_score_adj, host.oom_kill_disable) = (100, true);
        },
    ),
    (
        "no-swap-limit",
        "--memory 64m --memory-swap -1 --cpu-period 50000 --cpu-quota 20000 --pids-limit -1 image",
        |it| {
            let host = &mut it.host_config;
            (host.memory, host.memory_swap, host.pids_limit) = (64 << 20, -1, -1);
            (host.cpu_period, host.cpu_quota) = (50_000, 20_000);
        },
    ),
    ("ulimits", "--ulimit nofile=1024:2048 --ulimit core=5 image", |it| {
        it.host_config.ulimits = [("core", 5, 5), ("nofile", 1024, 2048)]
            .map(|(name, soft, hard)| Ulimit { name: name.to_owned(), soft, hard })
            .to_vec();
    }),
    ("sysctls", "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=65536 image", |it| {
        it.host_config.sysctls = [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "65536")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
    }),
    ("devices", "--device /dev/null:/dev/mine:r --device-cgroup-rule 'a 7:3 r' image", |it| {
        it.host_config.devices = vec![Device {
            path_on_host: "/dev/null".to_owned(),
            path_in_container: "/dev/mine".to_owned(),
            cgroup_permissions: "r".to_owned(),
        }];
        it.host_config.device_cgroup_rules = all(&["a 7:3 r"]);
    }),
    ("unconfined", "--security-opt seccomp=unconfined --security-opt no-new-privileges image", |it| {
        it.host_config.security_opt = all(&["seccomp=unconfined", "no-new-privileges"]);
    }),
    ("system-paths", "--security-opt systempaths=unconfined image", |it| {
        it.host_config.security_opt = all(&["systempaths=unconfined"]);
    }),
    ("host-pids", "--pid host image", |it| it.host_config.pid_mode = "host".to_owned()),
    ("host-ipc", "--ipc host image", |it| it.host_config.ipc_mode = "host".to_owned()),
    ("no-ipc", "--ipc none image", |it| it.host_config.ipc_mode = "none".to_owned()),
    ("shm", "--shm-size 1m image", |it| it.host_config.shm_size = 1 << 20),
    ("host-name", "--uts host image", |it| it.host_config.uts_mode = "host".to_owned()),
    ("cgroup-namespace", "--cgroupns private image", |it| it.host_config.cgroupns_mode = "private".to_owned()),
    ("name", "-h my.host.name --domainname example.org image", |it| {
        (it.config.hostname, it.config.domainname) = ("my.host.name".to_owned(), "example.org".to_owned());
    }),
];

#[test]
fn a_runtime_is_told_what_dockerd_tells_it() {
    let captured = match capture() {
        Ok(captured) => captured,
        Err(why) => return skip(&why),
    };
    let mut failures = String::new();
    for (name, flags, change) in ROWS {
        let Some(theirs) = captured.get(*name) else {
            failures.push_str(&format!("{name}: dockerd refused {flags}\n"));
            continue;
        };
        let (ours, theirs) = (comparable(ours(*change)), comparable(theirs.clone()));
        for (path, ours, theirs) in differences("", &ours, &theirs) {
            failures.push_str(&format!("{name} ({flags}): {path}\n   ours {ours}\n theirs {theirs}\n"));
        }
    }
    seccomp(&captured["plain"]["linux"]["seccomp"]);
    assert!(failures.is_empty(), "{failures}");
}

/// What the default profile allows more and less; see its module.
fn seccomp(theirs: &Value) {
    let plain: Vec<String> =
        ours(|_| {})["process"]["capabilities"]["bounding"].as_array().unwrap().iter().map(text).collect();
    let (ours, theirs) = (calls(&spec::seccomp::default(&plain)), calls(theirs));
    let only = |one: &BTreeMap<String, BTreeSet<String>>, other: &BTreeMap<String, BTreeSet<String>>| {
        one.iter().filter(|(name, how)| other.get(*name) != Some(how)).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(only(&theirs, &ours), ["io_uring_enter", "io_uring_register", "io_uring_setup", "socket", "socketcall"]);
    let newer: BTreeSet<String> = only(&ours, &theirs).into_iter().collect();
    for name in &newer {
        assert!(NEWER.contains(&name.as_str()), "{name} is allowed here and not by dockerd");
    }
}

/// Calls of kernels that are newer than Debian's dockerd; `socket` is allowed for fewer families here.
const NEWER: [&str; 24] = [
    "cachestat",
    "fchmodat2",
    "file_getattr",
    "file_setattr",
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "listmount",
    "listxattrat",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "map_shadow_stack",
    "mseal",
    "name_to_handle_at",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "removexattrat",
    "setxattrat",
    "socket",
    "statmount",
    "uretprobe",
];

/// By name: with what conditions and how a call ends.
fn calls(profile: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        let mut how = rule.clone();
        how.as_object_mut().unwrap().remove("names");
        // A zero goes without saying.
        for condition in how["args"].as_array_mut().into_iter().flatten() {
            condition.as_object_mut().unwrap().retain(|name, value| name != "valueTwo" || *value != 0);
        }
        if how["args"].is_null() {
            how.as_object_mut().unwrap().remove("args");
        }
        for name in rule["names"].as_array().unwrap() {
            all.entry(text(name)).or_default().insert(how.to_string());
        }
    }
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ours(change: fn(&mut Container)) -> Value {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
    std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\nwww:x:34:\naudio:x:29:web\nvideo:x:44:root,web\n";
    std::fs::write(dir.path().join("etc/group"), group).unwrap();
    let image = Config {
        env: all(&["A=image", "PATH=/x:/bin"]),
        working_dir: "/app".to_owned(),
        entrypoint: Some(all(&["/ep"])),
        cmd: Some(all(&["c1"])),
        ..Config::default()
    };
    let mut record = Container { id: "ab".repeat(32), ..Container::default() };
    "none".clone_into(&mut record.host_config.network_mode);
    change(&mut record);
    spec::complete(&mut record, &image).unwrap();
    let files = Files {
        hosts: PathBuf::from("/containers/hosts"),
        hostname: PathBuf::from("/containers/hostname"),
        resolv_conf: PathBuf::from("/containers/resolv.conf"),
    };
    let root = std::fs::File::open(dir.path()).unwrap();
    spec::build(&Inputs {
        apparmor: tarectl::apparmor::of(&record.host_config).as_deref(),
        record: &record,
        files: &files,
        netns: None,
        root: root.as_fd(),
        joins: &Joins::default(),
        links: &[],
        held: &Held::default(),
    })
    .unwrap()
}

/// Without what differs by its nature: ids and places on the host, orders that mean nothing, zeros that say nothing, dockerd's hook for
/// networks, its seccomp profile (compared by itself), and what newer versions of it hide as well.
fn comparable(mut spec: Value) -> Value {
    for key in ["hooks", "ociVersion"] {
        spec.as_object_mut().unwrap().remove(key);
    }
    spec["root"]["path"] = json!("rootfs");
    let id = spec["linux"]["cgroupsPath"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    if let Some(name) = spec["hostname"].as_str() {
        spec["hostname"] = name.replace(&id[..12], "ID").into();
    }
    let process = &mut spec["process"];
    process.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    // Each has one of its own by default.
    if process["apparmorProfile"] == "docker-default" {
        process["apparmorProfile"] = tarectl::apparmor::DEFAULT.into();
    }
    for variable in process["env"].as_array_mut().unwrap() {
        let plain = variable.as_str().unwrap().replace(&id[..12], "ID");
        *variable = plain.into();
    }
    if let Some(sets) = process["capabilities"].as_object_mut() {
        for set in sets.values_mut() {
            sort(set);
            // dockerd of this age does not know them.
            let newer = ["CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_PERFMON"];
            set.as_array_mut().unwrap().retain(|it| !newer.contains(&it.as_str().unwrap_or_default()));
        }
    }
    sort(&mut process["rlimits"]);
    for mount in spec["mounts"].as_array_mut().unwrap() {
        let file = Path::new(mount["source"].as_str().unwrap()).file_name().map(PathBuf::from);
        if mount["destination"].as_str().unwrap().starts_with("/etc/") {
            mount["source"] = json!(file);
        }
    }
    sort(&mut spec["mounts"]);
    let linux = spec["linux"].as_object_mut().unwrap();
    for key in ["seccomp", "cgroupsPath"] {
        linux.remove(key);
    }
    sort(linux.get_mut("namespaces").unwrap());
    for list in ["maskedPaths", "readonlyPaths"] {
        let paths = linux.entry(list).or_insert_with(|| json!([]));
        if paths.is_null() {
            *paths = json!([]);
        }
        paths.as_array_mut().unwrap().retain(|it| *it != "/proc/interrupts" && *it != "/sys/devices/virtual/powercap");
    }
    let resources = &mut spec["linux"]["resources"];
    // Nobody has the device; the last rule of dockerd's that says so changes nothing.
    resources["devices"].as_array_mut().unwrap().retain(|it| !(it["allow"] == false && it["minor"] == 229));
    for key in ["memory", "cpu", "blockIO"] {
        if let Some(object) = resources[key].as_object_mut() {
            object.retain(|_, value| *value != 0 && *value != false);
        }
        if resources[key].as_object().is_none_or(serde_json::Map::is_empty) {
            resources.as_object_mut().unwrap().remove(key);
        }
    }
    spec
}

fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(ToString::to_string);
    }
}

fn differences(path: &str, ours: &Value, theirs: &Value) -> Vec<(String, String, String)> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            let get =
                |object: &serde_json::Map<String, Value>, name: &str| object.get(name).cloned().unwrap_or_default();
            names
                .into_iter()
                .flat_map(|name| differences(&format!("{path}/{name}"), &get(ours, name), &get(theirs, name)))
                .collect()
        }
        _ if ours == theirs => Vec::new(),
        _ => vec![(path.to_owned(), ours.to_string(), theirs.to_string())],
    }
}

/// What dockerd writes, by the rows' names; or why it cannot be had.
fn capture() -> Result<BTreeMap<String, Value>, String> {
    let is_missing = |program: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    if let Some(missing) = ["dockerd", "docker", "containerd", "jq"].iter().find(is_missing) {
        return Err(format!("{missing} is not installed"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err("dockerd needs root".to_owned());
    }
    let mut child = Command::new("timeout")
        .args(["-s", "KILL", "300", "unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
        .arg(include_str!("docker/capture.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("timeout or unshare: {error}"))?;
    let rows: String = ROWS.iter().map(|(name, flags, _)| format!("{name} {flags}\n")).collect();
    child.stdin.take().expect("a pipe").write_all(rows.as_bytes()).expect("rows are taken");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("JSON");
    Ok(lines
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            (text(&value["name"]), value["spec"].clone())
        })
        .collect())
}

/// Prints why the test cannot run here, and appends it to the file `TARE_SKIPS` names, where `integration/test` counts it.
fn skip(why: &str) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
}
