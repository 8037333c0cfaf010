//! Other limits for a running container: by flags and by a document, and all of them or none.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::cgroup::directory;
use integration::{Container, Runtime};
use serde_json::{Value, json};

fn read(container: &Container<'_>, controller: &str, files: &[&str]) -> Option<String> {
    let directory = directory(container, controller);
    files.iter().find_map(|file| fs::read_to_string(directory.join(file)).ok()).map(|text| text.trim().to_owned())
}

fn limited(rt: &Runtime, resources: Value) -> integration::Bundle {
    rt.bundle(&["/bin/probe", "wait"]).edit(|config| {
        for (key, value) in resources.as_object().expect("resources") {
            config["linux"]["resources"][key] = value.clone();
        }
    })
}

/// What is in the cgroup, where this host has the controller.
#[track_caller]
fn assert_is(container: &Container<'_>, controller: &str, files: &[&str], expected: &str) {
    if let Some(found) = read(container, controller, files) {
        assert_eq!(found, expected, "{files:?}");
    }
}

#[test]
fn each_flag_changes_its_limit() {
    let rt = Runtime::from_env();
    let container = rt.create(&limited(&rt, json!({"memory": {"limit": 33_554_432}})), &[]).unwrap();
    for (flags, controller, files, expected) in [
        (&["--pids-limit", "33"][..], "pids", &["pids.max"][..], "33"),
        (&["--pids-limit", "-1"], "pids", &["pids.max"], "max"),
        (&["--memory", "64m"], "memory", &["memory.limit_in_bytes", "memory.max"], "67108864"),
        (&["--memory-reservation", "1048576"], "memory", &["memory.soft_limit_in_bytes", "memory.low"], "1048576"),
        (&["--cpu-share", "2048"], "cpu", &["cpu.shares"], "2048"),
        (&["--cpu-share", "1024"], "cpu", &["cpu.weight"], "100"),
        (&["--cpu-quota", "30000"], "cpu", &["cpu.cfs_quota_us", "cpu.max"], "30000"),
        (&["--cpu-period", "60000"], "cpu", &["cpu.cfs_period_us"], "60000"),
        (&["--cpu-burst", "1000"], "cpu", &["cpu.cfs_burst_us", "cpu.max.burst"], "1000"),
        (&["--cpuset-cpus", "0"], "cpuset", &["cpuset.cpus"], "0"),
        (&["--cpuset-mems", "0"], "cpuset", &["cpuset.mems"], "0"),
        (&["--cpu-idle", "1"], "cpu", &["cpu.idle"], "1"),
        (&["--cpu-idle", "0"], "cpu", &["cpu.idle"], "0"),
    ] {
        let update = container.call::<&str>("update", flags, &[]);
        // Linux has these since 5.14 and 5.15.
        if ["--cpu-burst", "--cpu-idle"].contains(&flags[0]) && read(&container, controller, files).is_none() {
            let error = update.fails().error();
            let named = files.iter().any(|file| error.contains(file));
            assert!(named && error.contains("this kernel has no such file"), "{flags:?}: {error}");
            continue;
        }
        update.ok();
        if !(expected == "30000" && read(&container, "cpu", &["cpu.max"]).is_some()) {
            assert_is(&container, controller, files, expected);
        }
    }
    container.start().ok();
    container.call::<&str>("update", &["--pids-limit", "44"], &[]).ok();
    assert_is(&container, "pids", &["pids.max"], "44");
}

#[test]
fn a_document_comes_from_a_file_or_from_standard_input() {
    let rt = Runtime::from_env();
    let container = rt.create(&limited(&rt, json!({"pids": {"limit": 5}})), &[]).unwrap();
    let document = json!({"memory": {"limit": 50_331_648}, "cpu": {"shares": 300}, "pids": {}}).to_string();
    let path = rt.fresh_path("resources.json");
    fs::write(&path, &document).unwrap();
    container.call::<&str>("update", &["--resources", path.to_str().unwrap()], &[]).ok();
    assert_is(&container, "memory", &["memory.limit_in_bytes", "memory.max"], "50331648");
    assert_is(&container, "cpu", &["cpu.shares"], "300");

    let args = ["update", "-r", "-", container.id()];
    let (reader, mut writer) = std::io::pipe().unwrap();
    let update = rt.spawn(&args, |command| {
        command.stdin(Stdio::from(reader));
    });
    writer.write_all(br#"{"pids": {"limit": 99}}"#).unwrap();
    drop(writer);
    update.wait().ok();
    assert_is(&container, "pids", &["pids.max"], "99");
    fs::write(&path, "{").unwrap();
    container.call::<&str>("update", &["--resources", path.to_str().unwrap()], &[]).fails();
}

#[test]
fn memory_and_swap_go_up_and_down_in_the_order_that_works() {
    let rt = Runtime::from_env();
    let mebibytes = |count: u64| (count << 20).to_string();
    let container =
        rt.create(&limited(&rt, json!({"memory": {"limit": 33_554_432, "swap": 67_108_864}})), &[]).unwrap();
    if read(&container, "memory", &["memory.memsw.limit_in_bytes", "memory.swap.max"]).is_none() {
        integration::skip!("this kernel counts no swap");
    }
    for (memory, swap) in [(128, 256), (16, 32), (64, 64), (32, 256)] {
        let flags = ["--memory", &mebibytes(memory), "--memory-swap", &mebibytes(swap)];
        container.call::<&str>("update", &flags, &[]).ok();
        assert_is(&container, "memory", &["memory.limit_in_bytes", "memory.max"], &mebibytes(memory));
        assert_is(&container, "memory", &["memory.memsw.limit_in_bytes"], &mebibytes(swap));
        assert_is(&container, "memory", &["memory.swap.max"], &mebibytes(swap - memory));
    }
    container.call::<&str>("update", &["--memory", "-1"], &[]).ok();
    assert_is(&container, "memory", &["memory.max"], "max");
}

#[test]
fn what_is_refused_changes_nothing() {
    let rt = Runtime::from_env();
    let container = rt.create(&limited(&rt, json!({"pids": {"limit": 5}})), &[]).unwrap();
    for flags in [
        &["--pids-limit", "50", "--cpuset-cpus", "4000"][..],
        &["--pids-limit", "50", "--cpu-quota", "5"],
        &["--pids-limit", "50", "--memory", "8m", "--memory-swap", "4m"],
        &["--l3-cache-schema", "L3:0=f"],
    ] {
        let error = container.call::<&str>("update", flags, &[]).fails().error();
        assert!(!error.is_empty(), "{flags:?}");
        if rt.binary().ends_with("tare") {
            assert_is(&container, "pids", &["pids.max"], "5");
        }
    }
}

#[test]
fn a_stopped_container_is_not_updated() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    container.kill("KILL").ok();
    container.wait_exit();
    let error = container.call::<&str>("update", &["--pids-limit", "5"], &[]).fails().error();
    assert!(error.contains("container not running"), "{error}");
}
