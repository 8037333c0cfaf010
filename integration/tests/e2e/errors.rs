//! What a user reads when something is wrong: for each wrong configuration and call, the exact sentence, the exit code and
//! the log line. A sentence that gets worse is a failure like any other.
//!
//! In the expected sentences `{bundle}` `{rootfs}` `{root}` `{id}` stand for this run's own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use integration::{Bundle, Output, Runtime, report_skip};
use serde_json::{Value, json};

/// Collects what differs, so that one run shows everything.
#[derive(Default)]
struct Verdict(String);

impl Verdict {
    /// Compares what a failed call said and how it ended with what it should have.
    fn check(&mut self, case: &str, output: &Output, code: i32, expected: &str) {
        let line = output.log.last().cloned().unwrap_or_default();
        let message = line["msg"].as_str().unwrap_or_default();
        // Where in the file: true, but not the same after the next change of the harness's configuration.
        let place = message.find(" at line ").unwrap_or(message.len());
        let mut wrong = Vec::new();
        if &message[..place] != expected {
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
    ["/ociVersion" = 1] => "{bundle}/config.json: ociVersion: invalid type: integer `1`, expected a string";
    ["/root" = null] => "root is missing: it must name the root directory";
    ["/root/path" = ""] => "root.path is empty";
    ["/root/path" = "missing"] => "open the root directory {bundle}/missing: no such file or directory";
    ["/root/path" = "config.json"] => "open the root directory {bundle}/config.json: not a directory";
    ["/linux/rootfsPropagation" = "everywhere"] => "linux.rootfsPropagation is \"everywhere\": it must be shared, slave, private or unbindable, or one of them with an r in front";
}

wrong! { wrong_processes:
    ["/process" = null] => "process is missing in the configuration";
    ["/process/args" = null] => "process.args is empty: it must name a program to run";
    ["/process/args" = []] => "process.args is empty: it must name a program to run";
    ["/process/args" = [""]] => "run program \"\": executable file not found in $PATH";
    ["/process/cwd" = ""] => "process.cwd is empty: it must be an absolute path";
    ["/process/cwd" = "tmp"] => "process.cwd \"tmp\" is not an absolute path";
    ["/process/env" = ["PATH"]] => "process.env[0] \"PATH\" has no '=': an entry is name=value";
    ["/process/env" = ["=x"]] => "process.env[0] \"=x\" has an empty name";
    ["/process/args" = ["a\u{0}b"]] => "process.args[0] \"a\\0b\" contains a NUL byte";
    ["/process/user/uid" = -1] => "{bundle}/config.json: process.user.uid: invalid value: integer `-1`, expected u32";
    ["/process/user/uid" = 4_294_967_296_u64] => "{bundle}/config.json: process.user.uid: invalid value: integer `4294967296`, expected u32";
    ["/process/user/uid" = "root"] => "{bundle}/config.json: process.user.uid: invalid type: string \"root\", expected u32";
    ["/process/user/additionalGids" = [-1]] => "{bundle}/config.json: process.user.additionalGids[0]: invalid value: integer `-1`, expected u32";
    ["/process/user/umask" = 4096] => "process.user.umask 4096 (octal 10000) is larger than octal 777";
    ["/process/rlimits" = [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]] => "{bundle}/config.json: process.rlimits[0].type: unknown variant `RLIMIT_BOGUS`, expected one of `RLIMIT_CPU`, `RLIMIT_FSIZE`, `RLIMIT_DATA`, `RLIMIT_STACK`, `RLIMIT_CORE`, `RLIMIT_RSS`, `RLIMIT_NPROC`, `RLIMIT_NOFILE`, `RLIMIT_MEMLOCK`, `RLIMIT_AS`, `RLIMIT_LOCKS`, `RLIMIT_SIGPENDING`, `RLIMIT_MSGQUEUE`, `RLIMIT_NICE`, `RLIMIT_RTPRIO`, `RLIMIT_RTTIME`";
    ["/process/rlimits" = [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]] => "process.rlimits: the soft limit 2 of RLIMIT_CORE is above its hard limit 1";
    ["/process/rlimits/-" = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}] => "process.rlimits names RLIMIT_NOFILE twice";
    ["/process/oomScoreAdj" = 1001] => "process.oomScoreAdj 1001 is not within -1000 and 1000";
    ["/process/terminal" = true] => "process.terminal is true, but there is no --console-socket to send the terminal to";
    ["/process/scheduler" = {"policy": "SCHED_BOGUS"}] => "{bundle}/config.json: process.scheduler.policy: unknown variant `SCHED_BOGUS`, expected one of `SCHED_OTHER`, `SCHED_FIFO`, `SCHED_RR`, `SCHED_BATCH`, `SCHED_ISO`, `SCHED_IDLE`, `SCHED_DEADLINE`";
    ["/process/scheduler" = {"policy": "SCHED_OTHER", "nice": 20}] => "process.scheduler.nice 20 is not within -20 and 19";
    ["/process/scheduler" = {"policy": "SCHED_FIFO", "priority": 100}] => "process.scheduler.priority 100 is not within 1 and 99 (policy SCHED_FIFO)";
    ["/process/ioPriority" = {"class": "IOPRIO_CLASS_BE", "priority": 8}] => "process.ioPriority.priority 8 is not within 0 and 7";
    ["/process/execCPUAffinity" = {"initial": "x"}] => "{bundle}/config.json: process.execCPUAffinity: Invalid execCPUAffinity format: x";
    ["/linux/personality" = {"domain": "BSD"}] => "{bundle}/config.json: linux.personality.domain: unknown variant `BSD`, expected `LINUX` or `LINUX32`";
    ["/linux/memoryPolicy" = {"mode": "MPOL_BOGUS"}] => "{bundle}/config.json: linux.memoryPolicy.mode: unknown variant `MPOL_BOGUS`, expected one of `MPOL_DEFAULT`, `MPOL_BIND`, `MPOL_INTERLEAVE`, `MPOL_WEIGHTED_INTERLEAVE`, `MPOL_PREFERRED`, `MPOL_PREFERRED_MANY`, `MPOL_LOCAL`";
    ["/linux/memoryPolicy" = {"mode": "MPOL_BIND", "nodes": ""}] => "linux.memoryPolicy.nodes is empty: the mode MPOL_BIND needs nodes";
}

wrong! { wrong_namespaces:
    ["/linux/namespaces/-" = {"type": "bogus"}] => "{bundle}/config.json: linux.namespaces[5].type: unknown variant `bogus`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, `pid`, `network`, `time`";
    ["/linux/namespaces/-" = {"type": "pid"}] => "linux.namespaces names the type pid twice";
    ["/linux/namespaces/1" = {"type": "network", "path": "/nowhere"}] => "open the network namespace /nowhere: no such file or directory";
    ["/linux/namespaces/1" = {"type": "network", "path": "net"}] => "linux.namespaces: the path net of type network is not absolute";
    ["/linux/namespaces/1" = {"type": "network", "path": "/proc/self/ns/ipc"}] => "join the namespace /proc/self/ns/ipc: invalid argument; it is not of the type that linux.namespaces says";
    ["/linux/namespaces/-" = {"type": "user"}] => "linux.namespaces has a new user namespace, but linux.uidMappings is empty";
    ["/linux/uidMappings" = [{"containerID": 0, "hostID": 1, "size": 1}]] => "linux.uidMappings or linux.gidMappings is set, but linux.namespaces has no user namespace";
    ["/linux/namespaces/-" = {"type": "user"}]
        ["/linux/uidMappings" = [{"containerID": 0, "hostID": 1, "size": 0}]]
        ["/linux/gidMappings" = [{"containerID": 0, "hostID": 1, "size": 1}]] => "linux.uidMappings[0].size is 0: give the number of ids";
    ["/linux/timeOffsets" = {"monotonic": {"secs": 1}}] => "linux.timeOffsets is set, but linux.namespaces has no new time namespace";
    ["/linux/namespaces/-" = {"type": "time"}] ["/linux/timeOffsets" = {"bogus": {"secs": 1}}] => "linux.timeOffsets: \"bogus\" is no clock of a time namespace (those are monotonic and boottime)";
    ["/linux/namespaces" = [{"type": "pid"}, {"type": "mount"}]] => "hostname is set, but linux.namespaces has no uts namespace";
    ["/hostname" = "a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes"] => "hostname \"a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes\" is longer than 64 bytes or contains a NUL";
    ["/domainname" = "a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes"] => "domainname \"a-name-that-is-much-longer-than-the-sixty-four-bytes-that-the-kernel-takes\" is longer than 64 bytes or contains a NUL";
}

wrong! { wrong_mounts:
    ["/mounts/-" = {"destination": "", "type": "tmpfs", "source": "tmpfs"}] => "mounts[7] (): the destination is empty";
    ["/mounts/-" = {"destination": "/mnt", "type": "nofs", "source": "nofs"}] => "mount nofs on /mnt: the kernel has no filesystem of the type \"nofs\"";
    ["/mounts/-" = {"destination": "/mnt", "type": "bind", "source": "/nowhere", "options": ["bind"]}] => "mount /nowhere on /mnt: source does not exist";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["bogus"]}] => "mount tmpfs on /mnt: tmpfs refuses one of its options (bogus)";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=x"]}] => "mount tmpfs on /mnt: tmpfs refuses one of its options (size=x)";
    ["/mounts/-" = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}] => "mounts[7] (/mnt): only a bind mount can be id-mapped";
    ["/mounts/-" = {"destination": "/bin/true/x", "type": "tmpfs", "source": "tmpfs"}] => "mount tmpfs on /bin/true/x: a part of the destination's path is not a directory";
    ["/mounts/-" = {"source": "tmpfs"}] => "{bundle}/config.json: mounts[7]: missing field `destination`";
    ["/linux/maskedPaths/-" = "../proc/kcore"] => "linux.maskedPaths: \"../proc/kcore\" contains ..";
    ["/linux/readonlyPaths/-" = "/"] => "linux.readonlyPaths: \"/\" is the whole root: use root.readonly";
    ["/linux/devices" = [{"path": "/dev/x", "type": "x"}]] => "{bundle}/config.json: linux.devices[0].type: unknown variant `x`, expected one of `a`, `b`, `c`, `u`, `p`";
    ["/linux/devices" = [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}]] => "linux.devices[0]: the path \"dev/x\" is not the absolute path of a node";
    ["/linux/sysctl" = {"kernel.panic": "1"}] => "linux.sysctl: kernel.panic belongs to no namespace: setting it would change the host";
    ["/linux/sysctl" = {"net.ipv4.ip_forward": "1"}] ["/linux/namespaces" = [{"type": "pid"}, {"type": "mount"}]] ["/hostname" = null] => "linux.sysctl: net.ipv4.ip_forward belongs to the network namespace, and the container has none of its own";
    ["/linux/sysctl" = {"kernel.shm_rmid_forced": "x"}] => "set the sysctl kernel.shm_rmid_forced to \"x\": the kernel does not take this value";
    ["/linux/sysctl" = {"net/../kernel/panic": "1"}] => "linux.sysctl: \"net/../kernel/panic\" is not the name of a sysctl";
}

wrong! { wrong_resources:
    ["/linux/resources/memory" = {"limit": -2}] => "linux.resources.memory.limit is -2: give a number of bytes, or -1 for no limit";
    ["/linux/resources/cpu" = {"cpus": "x"}] => "linux.resources.cpu.cpus is \"x\": give a list of numbers and ranges, such as 0-3,7";
    ["/linux/resources/cpu" = {"quota": 1000, "period": 100_000, "burst": 2000}] => "linux.resources.cpu.burst 2000 is above linux.resources.cpu.quota 1000: give at most 1000";
    ["/linux/resources/devices" = [{"allow": true, "access": "x"}]] => "linux.resources.devices[0].access is \"x\": give one or more of r (read), w (write) and m (mknod)";
    ["/linux/resources/devices" = [{"allow": true, "type": "x", "access": "r"}]] => "{bundle}/config.json: linux.resources.devices[0].type: unknown variant `x`, expected one of `a`, `b`, `c`, `u`, `p`";
    ["/linux/resources/blockIO" = {"weight": 5}] => "linux.resources.blockIO.weight is 5: give 10 to 1000";
    ["/linux/intelRdt" = {"closID": "a/b"}] => "linux.intelRdt.closID \"a/b\" is not the name of a class of service";
    ["/linux/intelRdt" = {"memBwSchema": "L3:0=f"}] => "linux.intelRdt.memBwSchema \"L3:0=f\" does not start with MB:";
    ["/linux/netDevices" = {"a b": {}}] => "linux.netDevices[\"a b\"] is not the name of a network device: it contains white space or a null character";
    ["/linux/netDevices" = {"z9": {}}] => "move network device z9 into the container: find it on the host: no such device";
}

wrong! { wrong_seccomp:
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_BOGUS"}] => "{bundle}/config.json: linux.seccomp.defaultAction: unknown variant `SCMP_ACT_BOGUS`, expected one of `SCMP_ACT_KILL`, `SCMP_ACT_KILL_THREAD`, `SCMP_ACT_KILL_PROCESS`, `SCMP_ACT_TRAP`, `SCMP_ACT_ERRNO`, `SCMP_ACT_NOTIFY`, `SCMP_ACT_TRACE`, `SCMP_ACT_LOG`, `SCMP_ACT_ALLOW`";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_NOTIFY"}] => "linux.seccomp: SCMP_ACT_NOTIFY cannot be used as default action";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_BOGUS"]}] => "{bundle}/config.json: linux.seccomp.architectures[0]: unknown variant `SCMP_ARCH_BOGUS`, expected one of `SCMP_ARCH_NATIVE`, `SCMP_ARCH_X86`, `SCMP_ARCH_X86_64`, `SCMP_ARCH_X32`, `SCMP_ARCH_ARM`, `SCMP_ARCH_AARCH64`, `SCMP_ARCH_MIPS`, `SCMP_ARCH_MIPS64`, `SCMP_ARCH_MIPS64N32`, `SCMP_ARCH_MIPSEL`, `SCMP_ARCH_MIPSEL64`, `SCMP_ARCH_MIPSEL64N32`, `SCMP_ARCH_PPC`, `SCMP_ARCH_PPC64`, `SCMP_ARCH_PPC64LE`, `SCMP_ARCH_S390`, `SCMP_ARCH_S390X`, `SCMP_ARCH_PARISC`, `SCMP_ARCH_PARISC64`, `SCMP_ARCH_RISCV64`, `SCMP_ARCH_LOONGARCH64`, `SCMP_ARCH_M68K`, `SCMP_ARCH_SH`, `SCMP_ARCH_SHEB`";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_BOGUS"]}] => "{bundle}/config.json: linux.seccomp.flags[0]: unknown variant `SECCOMP_BOGUS`, expected one of `SECCOMP_FILTER_FLAG_LOG`, `SECCOMP_FILTER_FLAG_TSYNC`, `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}] => "linux.seccomp has a rule with SCMP_ACT_NOTIFY, but listenerPath is not set";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}] => "connect to the seccomp agent at /nowhere: no such file or directory";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}] => "linux.seccomp: the argument index 6 is not below 6, the number of arguments of a system call";
    ["/linux/seccomp" = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}] => "linux.seccomp: errnoRet 1 is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only";
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
fn what_a_host_lacks_is_said() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let v1 = |controller: &str| {
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.any(|line| line[2] == "cgroup" && line[3].split(',').any(|option| option == controller))
    };
    for (lacks, pointer, value, expected) in [
        (
            fs::metadata("/sys/module/apparmor").is_err(),
            "/process/apparmorProfile",
            json!("profile"),
            "process.apparmorProfile asks for \"profile\", but AppArmor is not enabled on this host",
        ),
        (
            !mounts.contains(" resctrl "),
            "/linux/intelRdt",
            json!({}),
            "linux.intelRdt: the resctrl file system is not mounted on this host",
        ),
        (
            v1("memory") && !v1("hugetlb"),
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 1}]),
            "linux.resources.hugepageLimits[0] cannot be applied: the cgroup controller hugetlb is in none of this host's version 1 hierarchies",
        ),
        (
            v1("memory"),
            "/linux/resources/unified",
            json!({"memory.high": "1"}),
            "linux.resources.unified is for cgroup version 2, and version 1 manages the containers of this host: use the other fields of linux.resources",
        ),
    ] {
        match lacks {
            true => create_fails(&mut verdict, &rt, &[(pointer, value)], expected),
            false => report_skip(&format!("this host has what {pointer} needs")),
        }
    }
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
        "{bundle}/config.json: the JSON is not valid: expected value",
    );
    case(
        "cut off",
        &|path| fs::write(path, "{\"ociVersion\": \"1.0.0\", \"process\": {").unwrap(),
        "{bundle}/config.json: the JSON is not valid: EOF while parsing an object",
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
fn wrong_command_lines() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    for (words, code, expected) in [
        (&["bogus"][..], 1, "no such command: bogus (tare --help lists them)"),
        (&["state"], 1, "tare state: <container-id> is missing"),
        (&["state", "--bogus", "x"], 1, "tare state: unknown flag --bogus"),
        (&["kill", "x", "TERM", "y"], 1, "tare kill: one argument too many: y"),
        (&["list", "--format", "xml"], 1, "tare list: --format <FORMAT>: \"xml\" is not one of table, json"),
        (
            &["create", "--preserve-fds", "x", "y"],
            1,
            "tare create: --preserve-fds <N>: \"x\": invalid digit found in string",
        ),
        (
            &["exec", "--user", "x:y", "z", "true"],
            1,
            "tare exec: --user <UID>: \"x:y\": the uid is not a number from 0 to 4294967295",
        ),
        (
            &["exec", "--user", "4294967296", "z", "true"],
            1,
            "tare exec: --user <UID>: \"4294967296\": the uid is not a number from 0 to 4294967295",
        ),
        (
            &["update", "--memory", "5x", "z"],
            1,
            "tare update: --memory <BYTES>: \"5x\": not a size such as 4096, 64m or 1.5g",
        ),
        (
            &["events", "--interval", "0s", "z"],
            1,
            "tare events: --interval <DURATION>: \"0s\": the interval must be greater than 0",
        ),
        (
            &["events", "--interval", "x", "z"],
            1,
            "tare events: --interval <DURATION>: \"x\": not a duration such as 5s, 500ms or 1m30s",
        ),
        (&["checkpoint", "--page-server", "x", "z"], 1, "--page-server \"x\" is not ADDRESS:PORT"),
        (
            &["checkpoint", "--manage-cgroups-mode", "x", "z"],
            1,
            "tare checkpoint: --manage-cgroups-mode <MODE>: \"x\" is not one of soft, full, strict, ignore",
        ),
        (&["restore", "--bundle", "/nowhere", "z"], 1, "open /nowhere/config.json: no such file or directory"),
        (&["run", "--bundle", "/nowhere", "z"], 1, "open /nowhere/config.json: no such file or directory"),
        (&["spec", "--bundle", "/nowhere"], 1, "make /nowhere/config.json: no such file or directory"),
    ] {
        verdict.check(&format!("{words:?}"), &rt.call(words), code, expected);
    }
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
    check(&["resume", id], 1, "container not paused: \"{id}\" is created");
    container.start().ok();
    container.wait_stdout(|text| text.contains("ready"));
    check(&["start", id], 1, "cannot start container \"{id}\": it is running, not created");
    check(&["delete", id], 1, "cannot delete container \"{id}\" that is not stopped: it is running");
    check(&["resume", id], 1, "container not paused: \"{id}\" is running");
    check(&["exec", id], 255, "exec needs a command, or --process FILE");
    check(&["exec", id, "/no/such"], 255, "run program \"/no/such\": no such file or directory");
    check(&["exec", "--cwd", "tmp", id, "true"], 255, "process.cwd \"tmp\" is not an absolute path");
    check(&["exec", "--env", "A", id, "true"], 255, "process.env[2] \"A\" has no '=': an entry is name=value");
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
    check(&["exec", "--cgroup", "nowhere", id, "true"], 255, "--cgroup nowhere: the container has no such sub-cgroup");
    check(&["update", "--resources", "/nowhere", id], 1, "open /nowhere: no such file or directory");
    check(
        &["update", "--cpu-idle", "7", id],
        1,
        "linux.resources.cpu.idle is 7: give 0 (normal) or 1 (run only when the CPU is idle)",
    );
    check(&["kill", id, "BOGUS"], 1, "tare kill: [signal]: \"BOGUS\": no such signal");
    container.call("pause", &[], none).ok();
    check(&["pause", id], 1, "container not running: \"{id}\" is paused");
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
    check(&["pause", id], 1, "container not running: \"{id}\" is stopped");
    check(&["resume", id], 1, "container not paused: \"{id}\" is stopped");
    check(&["events", "--stats", id], 1, "container not running: \"{id}\" is stopped");
    check(&["update", "--memory", "64m", id], 1, "container not running: \"{id}\" is stopped");
    check(&["checkpoint", id], 1, "cannot checkpoint container \"{id}\" in the state stopped");
}

#[test]
fn programs_that_cannot_run() {
    let rt = Runtime::from_env();
    let mut verdict = Verdict::default();
    for (args, expected) in [
        (&["/no/such"][..], "run program \"/no/such\": no such file or directory"),
        (&["nosuch"], "run program \"nosuch\": executable file not found in $PATH"),
        (&["/etc/passwd"], "run program \"/etc/passwd\": permission denied"),
        (&["/tmp"], "run program \"/tmp\": permission denied; it is a directory"),
        (
            &["/tmp/script"],
            "execute \"/tmp/script\": no such file or directory; the file is there, but the interpreter or dynamic loader it names is not",
        ),
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
