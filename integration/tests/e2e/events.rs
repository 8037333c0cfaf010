//! What a container uses and when it ran out of memory; its processes; stopping and going on.

use integration::{Runtime, wait};
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn statistics_are_told_once() {
    let rt = Runtime::from_env();
    let bundle = rt
        .bundle(&["/bin/probe", "wait"])
        .edit(|config| config["linux"]["resources"]["memory"] = json!({"limit": 67_108_864}))
        .edit(|config| config["linux"]["resources"]["pids"] = json!({"limit": 20}));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let events = lines(&container.call::<&str>("events", &["--stats"], &[]).ok().stdout);
    assert_eq!(events.len(), 1);
    let (event, data) = (&events[0], &events[0]["data"]);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id())));
    assert_eq!(data["pids"], json!({"current": 1, "limit": 20}));
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    for key in ["cpuset", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(data.get(key).is_some(), "{key} is missing: {data}");
    }
    container.kill("KILL").ok();
    container.wait_exit();
    let error = container.call::<&str>("events", &["--stats"], &[]).fails().error();
    assert!(error.contains("not running"), "{error}");
}

#[test]
fn a_lack_of_memory_is_an_event() {
    let rt = Runtime::from_env();
    // The first process waits for the second, which is killed, and lives on.
    let script = "read go < /run/go; /bin/probe eat 200; read end < /run/go";
    let bundle = rt
        .bundle(&["/bin/sh", "-c", &format!("mkfifo /run/go; echo up; {script}")])
        .set("/root/readonly", json!(false))
        .edit(|config| config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432}));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("up"));
    let told = rt.fresh_path("events");
    let events = rt.spawn(&["events", "--interval", "50ms", container.id()], |command| {
        command.stdout(std::fs::File::create(&told).unwrap());
    });
    wait::file(&told, |text| text.contains("\"stats\""));
    container.exec(&["sh", "-c", "echo go > /run/go"]).ok();
    wait::file(&told, |text| text.contains("\"oom\""));
    let all = std::fs::read_to_string(&told).unwrap();
    let whole = &all[..all.rfind('\n').map_or(0, |end| end + 1)];
    assert!(lines(whole).iter().any(|event| *event == json!({"type": "oom", "id": container.id()})), "{all}");
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
    events.wait().ok();
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    container.call::<&str>("events", &["--interval", "0s"], &[]).fails();
}

#[test]
fn the_processes_are_listed() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh", "-c", "sleep 1000 & echo up; wait"]);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("up"));
    let pids = container.call::<&str>("ps", &["--format", "json"], &[]).ok().json();
    let pids: Vec<i64> = pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    assert!(pids.len() == 2 && pids.contains(&i64::from(container.pid())), "{pids:?}");

    let table = container.call::<&str>("ps", &[], &[]).ok().stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().next().unwrap().contains("PID") && table.contains("sleep 1000"), "{table}");
    let table = container.call("ps", &[], &["-o", "pid,comm", "-e"]).ok().stdout;
    assert!(table.lines().count() == 3 && table.contains("sleep"), "{table}");
    let error = container.call("ps", &[], &["-o", "comm", "-e"]).fails().error();
    assert!(error.contains("PID"), "{error}");
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let rt = Runtime::from_env();
    let count = "i=0; while :; do i=$((i+1)); echo $i; usleep 1000; done";
    let container = rt.run_detached(&rt.bundle(&["/bin/busybox", "sh", "-c", count]), &[]).unwrap();
    container.wait_stdout(|text| text.lines().count() > 2);
    let error = container.call::<&str>("resume", &[], &[]).fails().error();
    assert!(error.contains("not paused"), "{error}");
    container.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(container.status(), "paused");
    let then = container.stdout();
    container.exec(&["true"]).fails();
    container.call::<&str>("pause", &[], &[]).fails();
    assert_eq!(container.stdout(), then);
    container.call::<&str>("resume", &[], &[]).ok();
    assert_eq!(container.status(), "running");
    container.wait_stdout(|text| text.len() > then.len());
    container.call::<&str>("pause", &[], &[]).ok();
    container.kill("KILL").ok();
    container.wait_exit();
    let error = container.call::<&str>("pause", &[], &[]).fails().error();
    assert!(error.contains("not running"), "{error}");
    container.delete().ok();
}
