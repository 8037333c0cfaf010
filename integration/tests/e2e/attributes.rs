//! What of `process` depends on the host and the kernel: schedulers, processors, memory policies, limits; and what a wrong
//! one is told.

use std::fs;

use integration::{Runtime, report_skip, skip};
use serde_json::json;

use crate::process::check;

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
    // A kernel that runs another module has these files too.
    let has_apparmor = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|it| it.starts_with(b"Y"));
    if !has_apparmor {
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
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    for (lacks, flag, module) in
        [(!has_apparmor, "--apparmor", "AppArmor"), (!has("/sys/fs/selinux/enforce"), "--process-label", "SELinux")]
    {
        if !lacks {
            report_skip(&format!("this host has {module}, which {flag} asks for"));
            continue;
        }
        let error = container.exec_with(&[flag, "a-label"], &["true"]).fails().error();
        assert!(error.contains(&format!("asks for \"a-label\", but {module} is not enabled on this host")), "{error}");
    }
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
