use oci_spec::runtime::{Linux, Process};
use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

/// A smallest valid process with `changes` put over its fields.
fn process(changes: Value) -> Process {
    let mut process = json!({"user": {}, "args": ["sh"], "cwd": "/"});
    for (field, value) in changes.as_object().unwrap() {
        process[field] = value.clone();
    }
    serde_json::from_value(process).unwrap()
}

fn linux(fields: Value) -> Linux {
    serde_json::from_value(fields).unwrap()
}

const CALL: Call<'_> = Call { container: "c1", keyring: Keyring::New, preserve_fds: 0, listen_fds: 0 };

fn lower(process: &Process, linux: Option<&Linux>) -> Result<ProcessPlan> {
    super::lower(process, linux, &CALL)
}

fn lowered(changes: Value) -> ProcessPlan {
    lower(&process(changes), None).unwrap()
}

#[test]
fn a_wrong_process_is_one_sentence_that_names_the_field() {
    for (changes, sentence) in [
        (json!({"args": []}), "process.args is empty: it must name a program to run"),
        (json!({"args": null}), "process.args is empty: it must name a program to run"),
        (json!({"args": ["sh", "a\0b"]}), "process.args[1] \"a\\0b\" contains a NUL byte"),
        (json!({"env": ["A=1", "SECRET"]}), "process.env[1] \"SECRET\" has no '=': an entry is name=value"),
        (json!({"env": ["=1"]}), "process.env[0] \"=1\" has an empty name"),
        (json!({"env": ["A=\0"]}), "process.env[0] \"A=\\0\" contains a NUL byte"),
        (json!({"cwd": ""}), "process.cwd is empty: it must be an absolute path"),
        (json!({"cwd": "tmp"}), "process.cwd \"tmp\" is not an absolute path"),
        (json!({"cwd": "/a\0"}), "process.cwd \"/a\\0\" contains a NUL byte"),
        // CVE-2024-40635 and its kind: to setresuid(2) this value is "leave it as it is", which is root.
        (
            json!({"user": {"uid": 4294967295u32}}),
            "process.user.uid 4294967295 is not an id: the largest is 4294967294",
        ),
        (
            json!({"user": {"gid": 4294967295u32}}),
            "process.user.gid 4294967295 is not an id: the largest is 4294967294",
        ),
        (
            json!({"user": {"additionalGids": [1, 4294967295u32]}}),
            "process.user.additionalGids 4294967295 is not an id: the largest is 4294967294",
        ),
        (json!({"user": {"umask": 512}}), "process.user.umask 512 (octal 1000) is larger than octal 777"),
        (
            json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]}),
            "process.rlimits names RLIMIT_CORE twice",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]}),
            "process.rlimits: the soft limit 2 of RLIMIT_NOFILE is above its hard limit 1",
        ),
        (json!({"oomScoreAdj": 1001}), "process.oomScoreAdj 1001 is not within -1000 and 1000"),
        (
            json!({"capabilities": {"inheritable": ["CAP_KILL"]}}),
            "process.capabilities.inheritable has [CAP_KILL], which process.capabilities.bounding has not: operation not permitted",
        ),
        (json!({"apparmorProfile": "a\nb"}), "process.apparmorProfile \"a\\nb\" contains a line break"),
        (json!({"selinuxLabel": "a\0b"}), "process.selinuxLabel \"a\\0b\" contains a NUL byte"),
        (
            json!({"terminal": true, "consoleSize": {"height": 24, "width": 65536}}),
            "process.consoleSize.width 65536 is larger than a terminal can be (65535)",
        ),
        (
            json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
            "process.ioPriority.priority 8 is not within 0 and 7",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}),
            "process.scheduler.nice 20 is not within -20 and 19",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_FIFO"}}),
            "process.scheduler.priority 0 is not within 1 and 99 (policy SCHED_FIFO)",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_RR", "priority": -1}}),
            "process.scheduler.priority -1 is not within 1 and 99 (policy SCHED_RR)",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_BATCH", "priority": 1}}),
            "process.scheduler.priority 1 is for SCHED_FIFO and SCHED_RR alone (policy SCHED_BATCH)",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_OTHER", "runtime": 1}}),
            "process.scheduler.runtime, deadline and period are for SCHED_DEADLINE alone (policy SCHED_OTHER)",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 3, "deadline": 2}}),
            "process.scheduler: SCHED_DEADLINE needs 0 < runtime <= deadline <= period (runtime 3, deadline 2, period 0)",
        ),
    ] {
        let error = lower(&process(changes.clone()), None).unwrap_err();
        assert_eq!(error.to_string(), sentence, "{changes}");
        assert_eq!(error.kind(), Kind::Invalid, "{changes}");
    }
}

#[test]
fn a_wrong_linux_part_is_one_sentence_too() {
    for (fields, sentence) in [
        (
            json!({"personality": {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}}),
            "linux.personality.flags names \"ADDR_NO_RANDOMIZE\": the runtime specification defines no flag yet",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}}),
            "linux.memoryPolicy.nodes must be empty with the mode MPOL_LOCAL",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": ""}}),
            "linux.memoryPolicy.nodes is empty: the mode MPOL_BIND needs nodes",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}}),
            "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"]}}),
            "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES need nodes",
        ),
        (
            json!({"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "1-0"}}),
            "linux.memoryPolicy.nodes \"1-0\": the range 1-0 runs backwards",
        ),
    ] {
        let error = lower(&process(json!({})), Some(&linux(fields.clone()))).unwrap_err();
        assert_eq!(error.to_string(), sentence, "{fields}");
    }
}

#[test]
fn a_policy_that_linux_lacks_is_unsupported() {
    let error = lower(&process(json!({"scheduler": {"policy": "SCHED_ISO"}})), None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn what_is_not_given_has_the_specification_s_default() {
    let plan = lowered(json!({}));
    assert_eq!(plan.user, User { uid: 0, gid: 0, additional_gids: vec![], umask: 0o022 });
    assert_eq!(plan.capabilities, Capabilities::default());
    assert!(!plan.no_new_privileges);
    assert_eq!(plan.terminal, None);
    assert_eq!(plan.exec_affinity, ExecAffinity::default());
    assert_eq!((plan.apparmor_profile, plan.selinux_label, plan.oom_score_adj), (None, None, None));
}

#[test]
fn ids_are_taken_as_they_are() {
    let plan = lowered(json!({"user": {"uid": 1, "gid": 4294967294u32, "additionalGids": [5, 0], "umask": 63}}));
    assert_eq!(plan.user, User { uid: 1, gid: 4294967294, additional_gids: vec![5, 0], umask: 0o077 });
}

#[test]
fn the_last_of_several_values_of_a_variable_wins() {
    let plan = lowered(json!({"env": ["A=1", "B=2", "A=3=4", "C="]}));
    assert_eq!(plan.env, [c"B=2", c"A=3=4", c"C="].map(CString::from));
}

#[test]
fn an_empty_label_asks_for_nothing() {
    let plan = lowered(json!({"apparmorProfile": "", "selinuxLabel": "x:y"}));
    assert_eq!((plan.apparmor_profile, plan.selinux_label), (None, Some(c"x:y".into())));
}

#[test]
fn a_size_counts_only_with_a_terminal() {
    let size = json!({"height": 24, "width": 80});
    assert_eq!(lowered(json!({"consoleSize": {"height": 1_000_000, "width": 1}})).terminal, None);
    assert_eq!(lowered(json!({"terminal": true})).terminal, Some(Terminal { size: None }));
    assert_eq!(
        lowered(json!({"terminal": true, "consoleSize": size})).terminal,
        Some(Terminal { size: Some(WindowSize { rows: 24, columns: 80 }) })
    );
}

#[test]
fn capability_masks_carry_the_kernel_s_numbers() {
    let sets = json!({"bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"], "permitted": ["CAP_SYS_ADMIN"], "effective": ["CAP_KILL"]});
    let capabilities = lowered(json!({ "capabilities": sets })).capabilities;
    assert_eq!(capabilities.bounding, 1 | 1 << 40);
    assert_eq!(capabilities.permitted, 1 << 21);
    assert_eq!(capabilities.effective, 1 << 5);
    // CVE-2022-29162, CVE-2022-27650, CVE-2022-24769, CVE-2025-27612: not asked for is empty, never a copy of another set.
    assert_eq!((capabilities.inheritable, capabilities.ambient), (0, 0));
}

#[test]
fn every_capability_of_the_specification_has_a_number_of_its_own() {
    let names: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 41);
    let capabilities = lowered(json!({"capabilities": {"bounding": names}})).capabilities;
    assert_eq!(capabilities.bounding, (1 << 41) - 1);
    assert_eq!(capability_name(21), "CAP_SYS_ADMIN");
    assert_eq!(capability_name(63), "capability 63");
}

#[test]
fn what_cannot_be_granted_is_left_out_with_a_warning() {
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const RESOURCE: u64 = 1 << 24;
    let all = Held { permitted: u64::MAX, bounding: u64::MAX };
    let weak = Held { permitted: !RESOURCE, bounding: !RESOURCE };
    let none = Capabilities::default();
    let same =
        |mask| Capabilities { bounding: mask, effective: mask, inheritable: mask, permitted: mask, ambient: mask };
    for (wanted, held, granted, warnings) in [
        (same(CHOWN | KILL), all, same(CHOWN | KILL), vec![]),
        (
            same(CHOWN | RESOURCE),
            weak,
            same(CHOWN),
            vec![
                "ignoring unknown or unavailable capabilities: [CAP_SYS_RESOURCE]: the runtime itself does not have them",
            ],
        ),
        (
            Capabilities { permitted: KILL, effective: KILL | CHOWN, ..none },
            all,
            Capabilities { permitted: KILL, effective: KILL, ..none },
            vec!["ignoring effective capabilities that are not permitted: [CAP_CHOWN]"],
        ),
        (
            Capabilities { permitted: KILL, ambient: KILL | CHOWN, ..none },
            all,
            Capabilities { permitted: KILL, ..none },
            vec!["ignoring ambient capabilities that are not permitted: [CAP_CHOWN]"],
        ),
    ] {
        let (got, said) = wanted.granted(held);
        assert_eq!(got, granted, "{wanted:?}");
        assert_eq!(said, warnings, "{wanted:?}");
    }
}

#[test]
fn lists_are_parsed_strictly() {
    let bits = |text| BitList::parse("f", text).map(|list| list.words().to_vec());
    assert_eq!(bits("0").unwrap(), [1]);
    assert_eq!(bits("0-3,7").unwrap(), [0b1000_1111]);
    assert_eq!(bits("63-64").unwrap(), [1 << 63, 1]);
    assert_eq!(bits("60-130").unwrap(), [0xf << 60, usize::MAX, 0b111]);
    // More CPUs than glibc's cpu_set_t holds.
    assert_eq!(bits("1024").unwrap().len(), 17);
    assert_eq!(bits("65535").unwrap()[1023], 1 << 63);
    for wrong in
        ["", ",", "1,", ",1", "1-", "-1", "1--2", "+1", " 1", "1 ", "0x1", "1-2-3", "a", "2-1", "65536", "99999999999"]
    {
        assert_eq!(bits(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong:?}");
    }
    let error = BitList::parse("process.execCPUAffinity.initial", "0,+1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "process.execCPUAffinity.initial \"0,+1\" is not a list of numbers and ranges such as \"0-3,7\" (\"+1\" is not a number)"
    );
}

#[test]
fn many_wide_ranges_cost_no_step_a_bit() {
    let text = vec!["0-65535"; 20_000].join(",");
    assert_eq!(BitList::parse("f", &text).unwrap().words().len(), 1024);
}

#[test]
fn scheduling_takes_the_kernel_s_numbers() {
    let plan = lowered(json!({
        "scheduler": {
            "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000, "period": 3_000_000,
            "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"],
        },
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7},
        "execCPUAffinity": {"initial": "0", "final": "1-2"},
    }));
    let scheduling = plan.scheduling.unwrap();
    assert_eq!((scheduling.flags, scheduling.runtime, scheduling.period), (0x62, 1_000_000, 3_000_000));
    assert_eq!(plan.io_priority.unwrap().packed(), 3 << 13 | 7);
    assert_eq!(plan.exec_affinity.initial.unwrap().words(), [1]);
    assert_eq!(plan.exec_affinity.last.unwrap().words(), [6]);
}

#[test]
fn personality_and_memory_policy_come_from_the_linux_part() {
    let part = linux(json!({
        "personality": {"domain": "LINUX32"},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]},
    }));
    let plan = lower(&process(json!({})), Some(&part)).unwrap();
    assert_eq!(plan.personality, Some(8));
    let policy = plan.memory_policy.unwrap();
    assert_eq!(policy.mode, 2 | 1 << 15 | 1 << 13);
    assert_eq!(policy.nodes.unwrap().words(), [5]);
    for mode in ["MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"] {
        let part = linux(json!({"memoryPolicy": {"mode": mode, "nodes": ""}}));
        assert_eq!(lower(&process(json!({})), Some(&part)).unwrap().memory_policy.unwrap().nodes, None, "{mode}");
    }
}

#[test]
fn the_call_s_flags_are_in_the_plan() {
    let process = process(json!({"env": ["LISTEN_FDS=7", "A=1"]}));
    let plan = super::lower(&process, None, &Call { preserve_fds: 2, listen_fds: 1, ..CALL }).unwrap();
    assert_eq!((plan.preserved_fds, plan.listen_fds), (3, 1));
    assert_eq!(plan.env, [c"A=1", c"LISTEN_FDS=1"].map(CString::from));
    assert_eq!(plan.keyring.as_deref(), Some(c"_ses.c1"));
    let plan = super::lower(&process, None, &Call { keyring: Keyring::Inherit, ..CALL }).unwrap();
    assert_eq!((plan.keyring, plan.env[0].as_c_str()), (None, c"LISTEN_FDS=7"));
    let error = super::lower(&process, None, &Call { preserve_fds: u32::MAX, ..CALL }).unwrap_err();
    assert_eq!(error.to_string(), "--preserve-fds 4294967295 is more than a process can have (1048576)");
}

#[test]
fn listening_sockets_count_only_if_they_are_meant_for_us() {
    for (pid, fds, count) in [
        (Some("7"), Some("2"), 2),
        (Some("8"), Some("2"), 0),
        (None, Some("2"), 0),
        (Some("7"), None, 0),
        (Some("7"), Some("-1"), 0),
        (Some("7"), Some("99999999999"), 0),
    ] {
        let variable = |name: &str| if name == "LISTEN_PID" { pid } else { fds }.map(str::to_owned);
        assert_eq!(listen_fds(variable, 7), count, "{pid:?} {fds:?}");
    }
}
