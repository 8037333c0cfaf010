//! What a user reads when something is wrong: for each wrong configuration and call, the exact sentence, the exit code and
//! the log line. A sentence that gets worse is a failure like any other.
//!
//! In the expected sentences `{bundle}` `{rootfs}` `{root}` `{id}` stand for this run's own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use integration::{Bundle, Output, Runtime};
use serde_json::{Value, json};

/// Collects what differs, so that one run shows everything.
#[derive(Default)]
struct Verdict(String);

impl Verdict {
    /// Compares what a failed call said and how it ended with what it should have.
    fn check(&mut self, case: &str, output: &Output, code: i32, expected: &str) {
        let line = output.log.last().cloned().unwrap_or_default();
        let message = line["msg"].as_str().unwrap_or_default();
        let mut wrong = Vec::new();
        if message != expected {
            wrong.push(format!("  says:   {message}\n  should: {expected}"));
        }
        if output.code() != code {
            wrong.push(format!("  exit code {} instead of {code}", output.code()));
        }
        if line["level"] != "error" || line["time"].as_str().is_none() || line.as_object().map_or(0, |o| o.len()) != 3 {
            wrong.push(format!("  log line: {line}"));
        }
        if output.stderr != format!("{message}\n") {
            wrong.push(format!("  stderr: {:?}", output.stderr));
        }
        if !wrong.is_empty() {
            self.0.push_str(&format!("{case}\n{}\n", wrong.join("\n")));
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "\n{}", self.0);
        }
    }
}

/// Sets what JSON pointers name, then creates the container, which must fail and leave no state.
fn create_fails(verdict: &mut Verdict, rt: &Runtime, changes: &[(&str, Value)], expected: &str) {
    let mut bundle = rt.bundle(&["/bin/true"]);
    for (pointer, value) in changes {
        bundle = match value {
            Value::Null => bundle.remove(pointer),
            value if pointer.ends_with("/-") => bundle.push(pointer.trim_end_matches("/-"), value.clone()),
            value => bundle.set(pointer, value.clone()),
        };
    }
    let case = format!("{changes:?}");
    bundle_fails(verdict, rt, &case, &bundle, expected);
}

fn bundle_fails(verdict: &mut Verdict, rt: &Runtime, case: &str, bundle: &Bundle, expected: &str) {
    match rt.create(bundle, &[]) {
        Ok(container) => {
            verdict.0.push_str(&format!("{case}\n  was created\n"));
            container.call::<&str>("delete", &["--force"], &[]).ok();
        }
        Err(output) => {
            let id = output.command.rsplit('"').nth(1).unwrap_or_default().to_owned();
            let rootfs = bundle.rootfs();
            let expected = expected
                .replace("{bundle}", bundle.path_str())
                .replace("{rootfs}", rootfs.to_str().unwrap())
                .replace("{root}", rt.root().to_str().unwrap())
                .replace("{id}", &id);
            verdict.check(case, &output, 1, &expected);
        }
    }
    let left = fs::read_dir(rt.root()).map_or(0, |entries| entries.count());
    if left != 0 {
        verdict.0.push_str(&format!("{case}\n  state is left\n"));
    }
    fs::remove_dir_all(bundle.path()).unwrap();
}

macro_rules! wrong {
    ($name:ident: $($([$pointer:literal = $($value:tt)+])+ => $expected:literal;)+) => {
        #[test]
        fn $name() {
            let rt = Runtime::from_env();
            let mut verdict = Verdict::default();
            $(create_fails(&mut verdict, &rt, &[$(($pointer, json!($($value)+))),+], $expected);)+
        }
    };
}

wrong! { wrong_versions_and_roots:
    ["/ociVersion" = ""] => "{bundle}/config.json: ociVersion is missing";
    ["/ociVersion" = "0.9.0"] => "{bundle}/config.json: ociVersion \"0.9.0\" is not supported: only versions 1.x are";
    ["/ociVersion" = "one"] => "{bundle}/config.json: ociVersion \"one\" is not a version such as 1.3.0";
    ["/ociVersion" = 1] => "?";
    ["/root" = null] => "?";
    ["/root/path" = ""] => "?";
    ["/root/path" = "missing"] => "?";
    ["/root/path" = "config.json"] => "?";
    ["/linux/rootfsPropagation" = "everywhere"] => "?";
}

wrong! { wrong_processes:
    ["/process" = null] => "?";
    ["/process/args" = null] => "?";
    ["/process/args" = []] => "?";
    ["/process/args" = [""]] => "?";
    ["/process/cwd" = ""] => "?";
    ["/process/cwd" = "tmp"] => "?";
    ["/process/env" = ["PATH"]] => "?";
    ["/process/env" = ["=x"]] => "?";
    ["/process/args" = ["a\u{0}b"]] => "?";
    ["/process/user/uid" = -1] => "?";
    ["/process/user/uid" = 4_294_967_296_u64] => "?";
    ["/process/user/uid" = "root"] => "?";
    ["/process/user/additionalGids" = [-1]] => "?";
    ["/process/user/umask" = 4096] => "?";
    ["/process/rlimits" = [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]] => "?";
    ["/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]] => "?";
    ["/process/rlimits/-" = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}] => "?";
    ["/process/oomScoreAdj" = 1001] => "?";
    ["/process/terminal" = true] => "?";
    ["/process/scheduler" = {"policy": "SCHED_BOGUS"}] => "?";
    ["/process/scheduler" = {"policy": "SCHED_OTHER", "nice": 20}] => "?";
    ["/process/scheduler" = {"policy": "SCHED_FIFO", "priority": 100}] => "?";
    ["/process/ioPriority" = {"class": "IOPRIO_CLASS_BE", "priority": 8}] => "?";
    ["/process/execCPUAffinity" = {"initial": "x"}] => "?";
    ["/process/apparmorProfile" = "profile"] => "?";
    ["/linux/personality" = {"domain": "BSD"}] => "?";
    ["/linux/memoryPolicy" = {"mode": "MPOL_BOGUS"}] => "?";
    ["/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": ""}] => "?";
}

wrong! { wrong_namespaces:
    ["/linux/namespaces/-" = {"type": "bogus"}] => "?";
    ["/linux/namespaces/-" = {"type": "pid"}] => "?";
    ["/linux/namespaces/1" = {"type": "network", "path": "/nowhere"}] => "?";
    ["/linux/namespaces/1" = {"type": "network", "path": "net"}] => "?";
    ["/linux/namespaces/1" = {"type": "network", "path": "/proc/self/ns/ipc"}] => "?";
    ["/linux/namespaces/-" = {"type": "user"}] => "?";
    ["/linux/uidMappings" = [{"containerID": 0, "hostID": 1, "size": 1}]] => "?";
    ["/linux/namespaces/-" = {"type": "user"}]
        ["/linux/uidMappings" = [{"containerID": 0, "hostID": 1, "size": 0}]]
        ["/linux/gidMappings" = [{"containerID": 0, "hostID": 1, "size": 1}]] => "?";
    ["/linux/timeOffsets" = {"monotonic": {"secs": 1}}] => "?";
    ["/linux/namespaces/-" = {"type": "time"}] ["/linux/timeOffsets" = {"bogus": {"secs": 1}}] => "?";
    ["/linux/namespaces" = [{"type": "pid"}, {"type": "mount"}]] => "?";
    ["/hostname" = "a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes"] => "?";
    ["/domainname" = "a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes"] => "?";
}

wrong! { wrong_mounts:
    ["/mounts/-" = {"destination": "", "type": "tmpfs", "source": "tmpfs"}] => "?";
    ["/mounts/-" = {"destination": "/mnt", "type": "nofs", "source": "nofs"}] => "?";
    ["/mounts/-" = {"destination": "/mnt", "type": "bind", "source": "/nowhere", "options": ["bind"]}] => "?";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["bogus"]}] => "?";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=x"]}] => "?";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}] => "?";
    ["/mounts/-" = {"destination": "/bin/true/x", "type": "tmpfs", "source": "tmpfs"}] => "?";
    ["/mounts/-" = {"source": "tmpfs"}] => "?";
    ["/linux/maskedPaths/-" = "proc/kcore"] => "?";
    ["/linux/readonlyPaths/-" = "proc/sys"] => "?";
    ["/linux/devices" = [{"path": "/dev/x", "type": "x"}]] => "?";
    ["/linux/devices" = [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}]] => "?";
    ["/linux/devices" = [{"path": "/dev/x", "type": "c"}]] => "?";
    ["/linux/sysctl" = {"kernel.panic": "1"}] => "?";
    ["/linux/sysctl" = {"net.ipv4.ip_forward": "1"}] ["/linux/namespaces" = [{"type": "pid"}, {"type": "mount"}]] ["/hostname" = null] => "?";
    ["/linux/sysctl" = {"kernel.shm_rmid_forced": "x"}] => "?";
    ["/linux/sysctl" = {"net/../kernel/panic": "1"}] => "?";
}

wrong! { wrong_resources:
    ["/linux/resources/memory" = {"limit": -2}] => "?";
    ["/linux/resources/cpu" = {"cpus": "x"}] => "?";
    ["/linux/resources/cpu" = {"quota": 1000, "period": 100_000, "burst": 2000}] => "?";
    ["/linux/resources/devices" = [{"allow": true, "access": "x"}]] => "?";
    ["/linux/resources/devices" = [{"allow": true, "type": "x", "access": "r"}]] => "?";
    ["/linux/resources/hugepageLimits" = [{"pageSize": "3KB", "limit": 1}]] => "?";
    ["/linux/resources/unified" = {"../x": "1"}] => "?";
    ["/linux/resources/blockIO" = {"weight": 5}] => "?";
    ["/linux/cgroupsPath" = "../../x"] => "?";
    ["/linux/intelRdt" = {"closID": "a/b"}] => "linux.intelRdt.closID \"a/b\" is not the name of a class of service";
    ["/linux/intelRdt" = {"memBwSchema": "L3:0=f"}] => "linux.intelRdt.memBwSchema \"L3:0=f\" does not start with MB:";
    ["/linux/intelRdt" = {}] => "linux.intelRdt: the resctrl file system is not mounted on this host";
    ["/linux/netDevices" = {"a b": {}}] => "linux.netDevices[\"a b\"] is not the name of a network device: it contains white space or a null character";
    ["/linux/netDevices" = {"z9": {}}] => "move network device z9 into the container: find it on the host: no such device";
}

wrong! { wrong_seccomp:
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_BOGUS"}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_NOTIFY"}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_BOGUS"]}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_BOGUS"]}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}] => "?";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}] => "?";
}

wrong! { wrong_hooks:
    ["/hooks" = {"prestart": [{"path": "hook"}]}] => "hooks.prestart[0].path \"hook\" is not absolute";
    ["/hooks" = {"poststop": [{"path": "/hook", "timeout": 0}]}]
        => "hooks.poststop[0].timeout 0 is not a number of seconds from 1 to 4294967295";
    ["/hooks" = {"createRuntime": [{"path": "/nowhere/hook"}]}]
        => "error running createRuntime hook #0: /nowhere/hook: execute it: no such file or directory";
    ["/hooks" = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 4"]}]}]
        => "error running createContainer hook #0: /bin/sh: exit status 4: why";
    ["/hooks" = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}]}]
        => "error running createRuntime hook #0: /bin/sh: killed by signal 9";
}

#[test]
fn wrong_bundles() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    let mut case = |name: &str, make: &dyn Fn(&std::path::Path), expected: &str| {
        let dir = rt.fresh_path("bundle");
        fs::create_dir(&dir).unwrap();
        make(&dir.join("config.json"));
        let output = rt.call(&["create", "--bundle", dir.to_str().unwrap(), &rt.fresh_id()]);
        verdict.check(name, &output, 1, &expected.replace("{bundle}", dir.to_str().unwrap()));
    };
    case("no configuration", &|_| {}, "open {bundle}/config.json: no such file or directory");
    case("a directory", &|path| fs::create_dir(path).unwrap(), "{bundle}/config.json is not a regular file");
    case(
        "a fifo",
        &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "{bundle}/config.json is not a regular file",
    );
    case(
        "no JSON",
        &|path| fs::write(path, "hello").unwrap(),
        "{bundle}/config.json: the JSON is not valid: expected value at line 1 column 1",
    );
    case(
        "cut off",
        &|path| fs::write(path, "{\"ociVersion\": \"1.0.0\", \"process\": {").unwrap(),
        "{bundle}/config.json: the JSON is not valid: EOF while parsing an object at line 1 column 36",
    );
    case(
        "too large",
        &|path| {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
            file.set_len((16 << 20) + 1).unwrap();
        },
        "{bundle}/config.json is larger than 16 MiB",
    );
    let output = rt.call(&["create", "--bundle", "/nowhere", &rt.fresh_id()]);
    verdict.check("no bundle", &output, 1, "open /nowhere/config.json: no such file or directory");
}

#[test]
fn wrong_names() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    let bundle = rt.bundle(&["/bin/true"]);
    bundle.write();
    let remedy = "use letters, digits and _ + . - (no dot first, 255 characters at most)";
    for id in ["..", ".", ".a", "a/b", "../a", "a b", "a\u{e4}", "a\n"] {
        let output = rt.call(&["create", "--bundle", bundle.path_str(), id]);
        verdict.check(id, &output, 1, &format!("invalid container id {id:?}: {remedy}"));
    }
    let output = rt.call(&["create", "--bundle", bundle.path_str(), ""]);
    verdict.check("empty", &output, 1, "the container id is empty");
    let long = "a".repeat(256);
    let output = rt.call(&["create", "--bundle", bundle.path_str(), &long]);
    verdict.check("long", &output, 1, &format!("invalid container id {:?}: {remedy}", &long[..64]));
}

#[test]
fn calls_for_a_container_that_is_not_there() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    for (words, code) in [
        (&["state", "nobody"][..], 1),
        (&["start", "nobody"], 1),
        (&["kill", "nobody", "KILL"], 1),
        (&["delete", "nobody"], 1),
        (&["pause", "nobody"], 1),
        (&["resume", "nobody"], 1),
        (&["ps", "nobody"], 1),
        (&["events", "--stats", "nobody"], 1),
        (&["update", "--memory", "64m", "nobody"], 1),
        (&["checkpoint", "nobody"], 1),
        (&["exec", "nobody", "true"], 255),
    ] {
        verdict.check(words[0], &rt.call(words), code, "container \"nobody\" does not exist");
    }
    let output = rt.call(&["delete", "--force", "nobody"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn calls_in_the_wrong_state() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let container = rt.create(&bundle, &[]).unwrap();
    let id = container.id();
    let none: &[&str] = &[];
    let mut check = |words: &[&str], code, expected: &str| {
        let case = format!("{words:?}");
        verdict.check(&case, &rt.call(words), code, &expected.replace("{id}", id));
    };
    check(
        &["create", "--bundle", bundle.path_str(), id],
        1,
        "container with id \"{id}\" already exists; delete it first",
    );
    check(&["resume", id], 1, "?");
    container.start().ok();
    container.wait_stdout(|text| text.contains("ready"));
    check(&["start", id], 1, "cannot start container \"{id}\": it is running, not created");
    check(&["delete", id], 1, "cannot delete container \"{id}\" that is not stopped: it is running");
    check(&["resume", id], 1, "?");
    check(&["exec", id], 255, "exec needs a command, or --process FILE");
    check(&["exec", id, "/no/such"], 255, "?");
    check(&["exec", "--cwd", "tmp", id, "true"], 255, "?");
    check(&["exec", "--env", "A", id, "true"], 255, "?");
    check(&["exec", "--cap", "CAP_BOGUS", id, "true"], 255, "--cap CAP_BOGUS: there is no capability CAP_BOGUS");
    check(&["exec", "--process", "/nowhere", id], 255, "open /nowhere: no such file or directory");
    check(
        &["exec", "--tty", "--detach", id, "true"],
        255,
        "a terminal is asked for with --detach, but there is no --console-socket to send it to",
    );
    check(
        &["exec", "--console-socket", "/nowhere", id, "true"],
        255,
        "--console-socket is given, but no terminal is asked for",
    );
    check(&["exec", "--cgroup", "nowhere", id, "true"], 255, "?");
    check(&["update", "--resources", "/nowhere", id], 1, "open /nowhere: no such file or directory");
    check(&["update", "--cpu-idle", "7", id], 1, "?");
    check(&["kill", id, "BOGUS"], 1, "tare kill: [signal]: \"BOGUS\": no such signal");
    container.call("pause", &[], none).ok();
    check(&["pause", id], 1, "?");
    check(
        &["exec", id, "true"],
        255,
        "cannot exec in container \"{id}\": it is paused; resume it, or use --ignore-paused",
    );
    container.call("resume", &[], none).ok();
    container.kill("KILL").ok();
    container.wait_exit();
    check(&["start", id], 1, "cannot start container \"{id}\": it has stopped");
    check(&["kill", id], 1, "container not running: \"{id}\" is stopped");
    check(&["exec", id, "true"], 255, "cannot exec in container \"{id}\": it has stopped");
    check(&["pause", id], 1, "?");
    check(&["resume", id], 1, "?");
    check(&["ps", id], 1, "?");
    check(&["events", "--stats", id], 1, "?");
    check(&["update", "--memory", "64m", id], 1, "?");
    check(&["checkpoint", id], 1, "?");
}

#[test]
fn programs_that_cannot_run() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    for (args, expected) in [
        (&["/no/such"][..], "?"),
        (&["nosuch"], "?"),
        (&["/etc/passwd"], "?"),
        (&["/tmp"], "?"),
        (&["/tmp/script"], "?"),
    ] {
        let bundle = rt.bundle(args);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(bundle.rootfs().join("tmp/script"))
            .unwrap();
        file.write_all(b"#!/no/interpreter\n").unwrap();
        drop(file);
        let output = rt.run(&bundle);
        verdict.check(args[0], &output, 1, expected);
    }
}

#[test]
fn an_error_is_one_line_on_standard_error_without_a_log() {
    let rt = Runtime::from_env();
    for args in [&["state"][..], &["bogus"], &["state", "--bogus", "x"], &["--bogus"], &["list", "--format", "xml"]] {
        let output = Command::new(rt.binary()).args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains("level=error msg=\""), "{text}");
    }
}
