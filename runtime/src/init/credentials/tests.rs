//! Played for real: the test program executes itself, the copy becomes the plan's user and executes a shell that tells what
//! it is.

use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use oci_spec::runtime::{Linux, Process};
use serde_json::{Value, json};

use super::*;
use crate::channel::{Channel, Incoming};
use crate::init::exec;
use crate::plan::process::{Call, Keyring, lower};
use crate::sys::shared::SharedLine;

/// The copy finds its task here: a JSON object with `process`, and `linux`, `role`, `listen_fds` where they matter.
const TASK: &str = "TARE_TEST_TASK";
/// What comes before the payload's own output: the harness of the copy talks too.
const MARK: &str = "--8<--";

/// Not a test: the copy's way to the payload.
#[test]
fn becomes_the_payload() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task: Value = serde_json::from_str(&task).unwrap();
    println!("{MARK}");
    let error = play(&task).unwrap_err();
    println!("failed: {error}");
}

fn play(task: &Value) -> Result<std::convert::Infallible> {
    let process: Process = serde_json::from_value(task["process"].clone()).unwrap();
    let linux: Option<Linux> = task.get("linux").map(|linux| serde_json::from_value(linux.clone()).unwrap());
    let listen_fds = task["listen_fds"].as_u64().unwrap_or(0) as u32;
    let preserve_fds = task["preserve_fds"].as_u64().unwrap_or(0) as u32;
    let call = Call { container: "c1", keyring: Keyring::Inherit, preserve_fds, listen_fds };
    let plan = lower(&process, linux.as_ref(), &call)?;
    let seccomp = linux.as_ref().and_then(|linux| linux.seccomp().as_ref());
    let seccomp = seccomp.map(crate::plan::seccomp::lower).transpose()?;
    let role = if task["role"] == "joined" { Role::Joined } else { Role::Init };

    let (ours, theirs) = Channel::pair()?;
    let link = Link::new(theirs.into(), SharedLine::new().unwrap().into());
    let prepared = exec::prepare(&plan, None)?;
    let ready = apply(prepared, role, seccomp.as_ref(), &link)?;
    drop(link);
    while let Incoming::Message(Request::Warning(text), _) = ours.receive()? {
        println!("warning: {text}");
    }
    exec::execute(ready)
}

/// Runs a task in a copy, started by `wrapper` if it is not empty; what the payload (or the failure) wrote.
fn run_by(wrapper: &[&str], task: &Value) -> String {
    let copy = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([copy.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", "init::credentials::tests::becomes_the_payload", "--nocapture"]);
    let output = command.env(TASK, task.to_string()).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    match text.split_once(MARK) {
        Some((_, said)) => format!("{}{error}", said.trim_start_matches('\n')),
        None => panic!("the copy did not come to its task: {text}{error}"),
    }
}

fn run(task: &Value) -> String {
    run_by(&[], task)
}

/// A process that tells with `script`, with `changes` put over its fields.
fn shell(script: &str, changes: &Value) -> Value {
    let mut process = json!({
        "user": {}, "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/usr/bin:/bin", "HOME=/"],
    });
    for (field, value) in changes.as_object().unwrap() {
        process[field] = value.clone();
    }
    json!({ "process": process })
}

fn lacks_root(test: &str) -> bool {
    if geteuid().is_root() {
        return false;
    }
    crate::testing::skip(format_args!("{test} needs root"));
    true
}

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status | tr '\\t' ' '";

fn status(name: &str, text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

#[test]
fn ids_groups_and_umask_are_those_of_the_plan_and_no_others() {
    if lacks_root("the change of ids") {
        return;
    }
    let user = json!({"user": {"uid": 1234, "gid": 2345, "additionalGids": [5, 7, 4000000000u32], "umask": 0o027}});
    // The caller's groups must not be left (CVE-2023-25173 and its kind): it has some.
    let said = run_by(&["setpriv", "--groups", "20,30"], &shell(&format!("{STATUS}; umask"), &user));
    assert_eq!(status("Uid", &said), "1234 1234 1234 1234");
    assert_eq!(status("Gid", &said), "2345 2345 2345 2345");
    assert_eq!(status("Groups", &said), "5 7 4000000000");
    assert!(said.contains("0027"), "{said}");
    let said = run_by(&["setpriv", "--groups", "20,30"], &shell(STATUS, &json!({"user": {"uid": 1}})));
    assert_eq!((status("Groups", &said).as_str(), status("Uid", &said).as_str()), ("", "1 1 1 1"));
}

#[test]
fn capabilities_are_those_of_the_plan_for_root_and_for_users() {
    if lacks_root("setting capabilities") {
        return;
    }
    let two = json!(["CAP_CHOWN", "CAP_KILL"]);
    let sets = json!({"bounding": two, "effective": two, "permitted": two});
    let said = run(&shell(STATUS, &json!({ "capabilities": sets })));
    for (set, mask) in [("CapBnd", 0x21), ("CapEff", 0x21), ("CapPrm", 0x21), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(status(set, &said), format!("{mask:016x}"), "{set} of root");
    }
    // A user keeps over execve only what is ambient.
    let user = json!({"uid": 1000});
    let said = run(&shell(STATUS, &json!({"capabilities": sets, "user": user})));
    for (set, mask) in [("CapBnd", 0x21), ("CapEff", 0), ("CapPrm", 0), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(status(set, &said), format!("{mask:016x}"), "{set} of a user");
    }
    let all = json!({"bounding": two, "effective": two, "permitted": two, "inheritable": two, "ambient": ["CAP_KILL"]});
    let said = run(&shell(STATUS, &json!({"capabilities": all, "user": user})));
    for (set, mask) in [("CapBnd", 0x21), ("CapEff", 0x20), ("CapPrm", 0x20), ("CapInh", 0x21), ("CapAmb", 0x20)] {
        assert_eq!(status(set, &said), format!("{mask:016x}"), "{set} of a user with an ambient set");
    }
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769, CVE-2025-27612, and what the caller itself was given.
#[test]
fn nothing_is_left_in_the_inheritable_and_ambient_sets_of_the_caller() {
    if lacks_root("setting capabilities") {
        return;
    }
    let caller = ["setpriv", "--inh-caps", "+chown,+kill", "--ambient-caps", "+chown,+kill"];
    let said = run_by(&caller, &shell(STATUS, &json!({})));
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(set, &said), "0000000000000000", "{set}");
    }
    let kept = json!({"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"]});
    let said = run_by(&caller, &shell(STATUS, &json!({ "capabilities": kept })));
    assert_eq!(
        (status("CapInh", &said).as_str(), status("CapAmb", &said).as_str()),
        ("0000000000000001", "0000000000000000")
    );
}

#[test]
fn a_capability_that_the_runtime_lacks_is_a_warning() {
    if lacks_root("setting capabilities") {
        return;
    }
    let names = json!(["CAP_CHOWN", "CAP_SYS_TIME"]);
    let sets = json!({"bounding": names, "effective": names, "permitted": names});
    let said = run_by(&["setpriv", "--bounding-set", "-sys_time"], &shell(STATUS, &json!({ "capabilities": sets })));
    assert_eq!(status("CapEff", &said), "0000000000000001");
    let warning =
        "warning: ignoring unknown or unavailable capabilities: [CAP_SYS_TIME]: the runtime itself does not have them";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn no_new_privileges_is_set_only_if_it_is_asked_for() {
    if lacks_root("setting capabilities") {
        return;
    }
    for (given, flag) in
        [(json!({"noNewPrivileges": true}), "1"), (json!({"noNewPrivileges": false}), "0"), (json!({}), "0")]
    {
        assert_eq!(status("NoNewPrivs", &run(&shell(STATUS, &given))), flag, "{given}");
    }
}

#[test]
fn a_filter_is_loaded_with_and_without_no_new_privileges_and_does_not_block_its_own_loading() {
    if lacks_root("a filter without no_new_privs") {
        return;
    }
    // All that execute needs after a filter that is loaded last is execve; before, what apply does after it.
    let deny =
        json!(["mkdir", "mkdirat", "setuid", "setgid", "setgroups", "setresuid", "setresgid", "personality", "umask"]);
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": deny, "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]});
    let script = "mkdir /tmp/denied 2>&1; grep -E '^(Seccomp|Uid)' /proc/self/status | tr '\\t' ' '";
    for nnp in [true, false] {
        for uid in [0, 1000] {
            let mut task = shell(script, &json!({"noNewPrivileges": nnp, "user": {"uid": uid}}));
            task["linux"] = json!({ "seccomp": seccomp });
            let said = run(&task);
            assert!(said.contains("Disk quota exceeded"), "no_new_privs {nnp}, user {uid}: {said}");
            assert_eq!(status("Seccomp", &said), "2", "no_new_privs {nnp}, user {uid}");
            assert_eq!(status("Uid", &said), format!("{uid} {uid} {uid} {uid}"), "no_new_privs {nnp}");
        }
    }
}

#[test]
fn with_no_new_privileges_only_execve_comes_after_the_filter() {
    if lacks_root("the change of ids") {
        return;
    }
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}],
    });
    let mut task =
        shell("", &json!({"noNewPrivileges": true, "user": {"uid": 7, "additionalGids": [9]}, "args": ["/bin/true"]}));
    task["linux"] = json!({ "seccomp": seccomp });
    // The payload dies of its first call; that it came to be shows in that nothing is said to have failed.
    assert_eq!(run(&task), "");
}

#[test]
fn a_user_namespace_that_denies_setgroups_is_lived_with_where_no_group_is_asked_for() {
    let namespace = ["unshare", "--user", "--map-root-user"];
    if !Command::new("unshare").args(["--user", "true"]).status().is_ok_and(|status| status.success()) {
        crate::testing::skip("this host makes no user namespaces");
        return;
    }
    let said = run_by(&namespace, &shell(STATUS, &json!({})));
    assert_eq!(status("Uid", &said), "0 0 0 0", "{said}");
    assert_eq!(
        run_by(&namespace, &shell("", &json!({"user": {"additionalGids": [5]}}))).lines().next(),
        Some(
            "failed: set the supplementary groups [5]: operation not permitted; the user namespace denies setgroups; it has to be mapped by newgidmap"
        ),
    );
    for (user, sentence) in [
        (json!({"uid": 5}), "failed: become user 5: the id is not mapped in the container's user namespace"),
        (json!({"gid": 5}), "failed: become group 5: the id is not mapped in the container's user namespace"),
    ] {
        assert_eq!(run_by(&namespace, &shell("", &json!({ "user": user }))).lines().next(), Some(sentence));
    }
}

#[test]
fn attributes_reach_the_payload() {
    if lacks_root("raising priorities") {
        return;
    }
    let mut task = shell(
        "ionice; chrt -p $$; uname -m; grep ^Cpus_allowed_list /proc/self/status",
        &json!({
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 7},
            "execCPUAffinity": {"initial": "0", "final": "0"},
        }),
    );
    task["linux"] = json!({"personality": {"domain": "LINUX32"}});
    let said = run(&task);
    assert!(said.contains("best-effort: prio 3"), "{said}");
    assert!(said.contains("SCHED_BATCH"), "{said}");
    assert!(cfg!(not(target_arch = "x86_64")) || said.contains("i686"), "{said}");
}

#[test]
fn inherited_affinity_is_reset_and_the_joined_process_s_is_set() {
    let cpus = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = status("Cpus_allowed_list", &cpus);
    if !all.contains(['-', ',']) {
        crate::testing::skip("this host has one CPU");
        return;
    }
    if lacks_root("an ordinary user's groups cannot be set, so that") {
        return;
    }
    let affinity = json!({"execCPUAffinity": {"initial": "0", "final": "0"}});
    let script = "grep ^Cpus_allowed_list /proc/self/status";
    for (role, plan, cpus) in
        [("init", &affinity, all.as_str()), ("joined", &affinity, "0"), ("joined", &json!({}), &all)]
    {
        let mut task = shell(script, plan);
        task["role"] = json!(role);
        let said = run_by(&["taskset", "--cpu-list", "1"], &task);
        assert_eq!(status("Cpus_allowed_list", &said), cpus, "{role} {plan}");
    }
    let mut task = shell(script, &json!({"execCPUAffinity": {"final": "5000"}}));
    task["role"] = json!("joined");
    assert_eq!(
        run(&task).lines().next(),
        Some(
            "failed: run on the CPUs of process.execCPUAffinity.final (5000): invalid argument; none of them is in the cpuset of the process"
        )
    );
}

#[test]
fn the_working_directory_is_entered_and_stays_inside() {
    if lacks_root("the change of ids") {
        return;
    }
    let folder = std::env::current_exe().unwrap().with_file_name(format!("cwd-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, folder.join("link")).unwrap();
    std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    let folder = folder.to_str().unwrap();
    let enter =
        |cwd: &str| run(&shell("pwd -P", &json!({"cwd": cwd, "user": {"uid": 1}}))).lines().next().map(str::to_owned);
    assert_eq!(enter(&format!("{folder}/link")).as_deref(), Some(folder));
    for (cwd, cause) in [
        (format!("{folder}/none"), "no such file or directory"),
        (format!("{folder}/file"), "not a directory"),
        (
            format!("{folder}/loop"),
            "too many symbolic links encountered; its links run in a circle, or one is a magic link of /proc, which could lead outside",
        ),
        // CVE-2024-21626: by a descriptor that is still open.
        (
            "/proc/self/fd/0".to_owned(),
            "too many symbolic links encountered; its links run in a circle, or one is a magic link of /proc, which could lead outside",
        ),
        (
            "/proc/self/cwd".to_owned(),
            "too many symbolic links encountered; its links run in a circle, or one is a magic link of /proc, which could lead outside",
        ),
    ] {
        assert_eq!(enter(&cwd), Some(format!("failed: chdir to process.cwd {cwd:?}: {cause}")));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_working_directory_that_only_root_or_only_the_user_may_enter_is_entered() {
    if lacks_root("the change of ids") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    // Below / and not below the build, which others may not be allowed to walk.
    let folder = std::path::PathBuf::from(format!("/var/tmp/tare-cwd-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    let cwd = folder.to_str().unwrap();
    let said = run(&shell("/bin/pwd", &json!({"cwd": cwd, "user": {"uid": 1}})));
    assert_eq!(said.lines().next(), Some(cwd), "{said}");
    // Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, as on a network file system that squashes root.
    nix::unistd::chown(&folder, Some(1.into()), None).unwrap();
    let squashed = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let said = run_by(&squashed, &shell("/bin/pwd", &json!({"cwd": cwd, "user": {"uid": 1}})));
    assert_eq!(said.lines().next(), Some(cwd), "{said}");
    let said = run_by(&squashed, &shell("/bin/pwd", &json!({"cwd": cwd, "user": {"uid": 2}})));
    assert_eq!(said.lines().next(), Some(format!("failed: chdir to process.cwd {cwd:?}: permission denied").as_str()));
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn the_environment_is_the_plan_s_with_home_and_the_sockets_pid() {
    if lacks_root("the change of ids") {
        return;
    }
    let mut task = shell("", &json!({"env": ["A=1"], "args": ["/usr/bin/env"]}));
    let said = run(&task);
    assert_eq!(said, "A=1\nHOME=/root\n");
    task["process"]["user"] = json!({"uid": 54321});
    assert_eq!(run(&task), "A=1\nHOME=/\n");
    let mut task = shell("echo $LISTEN_FDS $((LISTEN_PID == $$)); echo over >&3", &json!({}));
    task["listen_fds"] = json!(1);
    let said = run_by(&["sh", "-c", "exec 3>&1; exec \"$@\"", "sh"], &task);
    assert_eq!(said, "1 1\nover\n");
}

#[test]
fn the_payload_starts_with_no_signal_blocked_or_ignored() {
    if lacks_root("the change of ids") {
        return;
    }
    let said = run_by(
        &["env", "--ignore-signal=HUP,CHLD,USR1", "--block-signal=TERM,RTMIN"],
        &shell("exec grep -E '^Sig(Blk|Ign)' /proc/self/status", &json!({})),
    );
    assert_eq!(said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn stdio_pipes_are_the_user_s_and_other_files_stay() {
    if lacks_root("the change of owners") {
        return;
    }
    // Opening anew what one has open needs to own it.
    let said = run(&shell(
        "echo out >/dev/stdout; echo err >/dev/stderr; stat -Lc %u /dev/stdin",
        &json!({"user": {"uid": 1000}}),
    ));
    assert_eq!(said, "out\n0\nerr\n");
}

#[test]
fn a_memory_policy_is_set_or_says_why_not() {
    if lacks_root("the change of ids") {
        return;
    }
    let mut task = shell("grep -m1 heap /proc/self/numa_maps", &json!({}));
    task["linux"] = json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}});
    let said = run(&task);
    assert!(said.contains("bind:0") || said.contains("this kernel has no NUMA support"), "{said}");
    task["linux"] = json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "1023"}});
    let said = run(&task);
    assert!(said.starts_with("failed: set the memory policy MPOL_BIND on nodes 1023: "), "{said}");
}

#[test]
fn a_process_that_cannot_be_executed_fails_with_the_words_callers_know() {
    if lacks_root("the change of ids") {
        return;
    }
    for (args, sentence) in [
        (json!(["no-such-program"]), "failed: run program \"no-such-program\": executable file not found in $PATH"),
        (json!(["/no/such"]), "failed: run program \"/no/such\": no such file or directory"),
        (json!(["/etc/passwd"]), "failed: run program \"/etc/passwd\": permission denied"),
        (json!(["/etc"]), "failed: run program \"/etc\": permission denied; it is a directory"),
    ] {
        assert_eq!(run(&shell("", &json!({ "args": args }))).lines().next(), Some(sentence));
    }
}
